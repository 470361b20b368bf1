"""Hessians of structures and what vibrates: ASE's atoms in, arrays or vibrational data out.

Atoms that a `FixAtoms` holds have no rows unless they are asked for by index. A network in float32
gives second derivatives good to about 1e-4 of the largest: for frequencies use
`model.as_dtype("float64")`, which makes the Hessian symmetric to 1e-10.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms, constrained_indices
from ase.vibrations import VibrationsData

from tace_al.data.graph import graph_from_atoms
from tace_al.model.hessian import DEFAULT_CHUNK, force_jacobian
from tace_al.model.tace import Tace


def free_atoms(atoms: Atoms) -> np.ndarray:
    """Return the indices of the atoms that no `FixAtoms` holds, ascending.

    >>> from ase.build import molecule
    >>> water = molecule("H2O")
    >>> water.set_constraint(FixAtoms([0]))
    >>> free_atoms(water).tolist()
    [1, 2]
    """
    held = constrained_indices(atoms, only_include=FixAtoms)
    return np.setdiff1d(np.arange(len(atoms)), held)


def hessian(
    model: Tace,
    atoms: Atoms,
    *,
    atom_indices: Sequence[int] | np.ndarray | None = None,
    chunk: int = DEFAULT_CHUNK,
    head: str | None = None,
) -> np.ndarray:
    """Return second derivatives of the energy of one structure.

    Parameters
    ----------
    model
        A network; its own dtype decides the precision, its own device does the work.
    atoms
        One structure; for a periodic one the Hessian is that of the cell (the Gamma point).
    atom_indices
        Atoms whose rows are wanted. Default: all that no `FixAtoms` holds. Atoms named here are
        computed even where they are held. Other constraints are not looked at.
    chunk
        Rows in one backward pass.
    head
        Level of theory; default the model's first.

    Returns
    -------
    (n, 3, N, 3) eV/Angstrom^2, float64: rows of the n chosen atoms, columns of all N. Columns of
    held atoms remain, being what their displacement would do; the square block that vibrations need
    is `hessian(model, atoms)[:, :, free_atoms(atoms)]`.
    """
    indices = free_atoms(atoms) if atom_indices is None else _checked(atom_indices, len(atoms))
    graph = graph_from_atoms(atoms, model.config.cutoff, model.config.conditions)
    graph = graph.to(model.embedding.device)
    rows = torch.from_numpy(indices).to(graph.positions.device)
    if model.config.reads_positions:  # charges tie every row to every atom: no share to save
        full = model.evaluate(graph, ("hessian",), head=head)["hessian"]
        return full.index_select(0, rows).double().cpu().numpy()
    positions = graph.positions.clone().requires_grad_()
    graph = replace(graph, positions=positions)
    forces = model.evaluate(graph, ("forces",), create_graph=True, head=head).forces
    return force_jacobian(forces, positions, rows, chunk).double().cpu().numpy()


def vibrations(
    model: Tace,
    atoms: Atoms,
    *,
    atom_indices: Sequence[int] | np.ndarray | None = None,
    chunk: int = DEFAULT_CHUNK,
    head: str | None = None,
) -> VibrationsData:
    """Return ASE's vibrational data, from which frequencies, modes and thermochemistry follow.

    Only `atom_indices` (default: all that no `FixAtoms` holds) move. `atoms` should be relaxed with
    the same model; `get_frequencies()` then gives cm^-1, with imaginary ones at a saddle.

    >>> from ase.build import molecule
    >>> model = Tace.from_preset("tiny", elements=["H", "O"], dtype="float64")
    >>> vibrations(model, molecule("H2O")).get_frequencies().shape
    (9,)
    """
    indices = free_atoms(atoms) if atom_indices is None else _checked(atom_indices, len(atoms))
    rows = hessian(model, atoms, atom_indices=indices, chunk=chunk, head=head)
    block = rows[:, :, indices]
    # the two orders of differentiation differ by rounding
    symmetric = 0.5 * (block + block.transpose(2, 3, 0, 1))
    return VibrationsData(atoms, symmetric, indices=indices)


def _checked(atom_indices: Sequence[int] | np.ndarray, num_atoms: int) -> np.ndarray:
    """Return indices as whole numbers 0..num_atoms - 1, or say which one is not."""
    indices = np.asarray(atom_indices)
    if indices.dtype == bool:
        raise ValueError("atom_indices is a mask; pass indices, such as np.flatnonzero(mask)")
    indices = indices.astype(np.int64).reshape(-1)
    outside = indices[(indices < -num_atoms) | (indices >= num_atoms)]
    if outside.size:
        raise ValueError(
            f"atom_indices names {outside.tolist()}; the structure has atoms 0..{num_atoms - 1}"
        )
    return indices % num_atoms if num_atoms else indices
