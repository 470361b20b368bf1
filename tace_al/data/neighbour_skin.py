"""Verlet skin: neighbour lists that outlive a step.

A list is made with cutoff + skin and serves until a pair that it lacks could come within the cutoff
(L. Verlet, 10.1103/PhysRev.159.98). Cells may change meanwhile. With C and r the cell (rows) and
positions of the list, C' = C F and r' = r F + u those of now, a pair's vector d becomes
d' = d F + u_i - u_j, hence |d'| >= s |d| - 2 max|u|, s the smallest singular value of F: the list
is good while

    cutoff + 2 max|u| <= s (cutoff + skin),

and with a fixed cell while no atom moved more than skin / 2. Graphs hold the pairs within the
cutoff alone, so that they are those of a fresh list; only the order of the images of one pair may
differ. Many structures are one flat batch, measured and filtered in a few operations, whatever
their number.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.data.conditions import read_conditions
from tace_al.data.graph import AtomicGraph
from tace_al.data.neighbours import CLOSEST_CONTACT, neighbour_list


@final
class NeighbourSkin:
    """Graphs of structures that move, with neighbour lists made anew only where they must be.

    Structures are told apart by their keys, and a key without merit costs time, never correctness:
    what a list was made for is compared with the structure at every call.

    Parameters
    ----------
    cutoff
        Angstrom.
    skin
        Angstrom, 0 or more. A thicker one is renewed less often and has more pairs to look at: on
        192 atoms of water 0.33 ms a step at 0.5, 0.38 at 1, against 1.6 for a list made anew.
    conditions
        What else to read from the frames (`tace_al.data.conditions`).
    device
        Where the graphs lie, and where pairs are looked at.

    Attributes
    ----------
    num_lists
        Neighbour lists made so far.

    Examples
    --------
    >>> from ase.build import molecule
    >>> water, skin = molecule("H2O"), NeighbourSkin(4.0)
    >>> for _ in range(10):
    ...     water.positions[0] += 0.01
    ...     graph = skin.graph([water])
    >>> graph.sender.shape[0], skin.num_lists
    (6, 1)
    """

    def __init__(
        self,
        cutoff: float,
        skin: float = 1.0,
        *,
        conditions: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        if not (cutoff > 0.0 and skin >= 0.0):
            raise ValueError(
                f"cutoff = {cutoff} and skin = {skin} A make no list; give a positive cutoff and "
                "a skin of 0 or more"
            )
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.conditions = tuple(conditions)
        self.device = torch.device(device)
        self.num_lists = 0
        self._lists: dict[Hashable, _PairList] = {}
        self._joined: _Joined | None = None
        self._box: _Box | None = None
        self._kept: _KeptPairs | None = None

    def graph(self, frames: Sequence[Atoms], keys: Sequence[Hashable] | None = None) -> AtomicGraph:
        """Return the batch of some structures as they are now.

        Parameters
        ----------
        frames
            One structure or more.
        keys
            A name for each, the same at every call; its place in `frames` by default. Lists of
            names that are not in a call are forgotten.

        Raises
        ------
        StructureError
            As `tace_al.data.neighbours.neighbour_list` does, for the structures as they are now.
        """
        names = tuple(range(len(frames))) if keys is None else tuple(keys)
        state = _State.of(frames)
        joined = self._valid(frames, names, state)
        if self._box is None or not self._box.fits(joined, state.cells):
            self._box = _Box.of(joined, state.cells, self.device)
        box = self._box
        positions = torch.from_numpy(state.positions).to(self.device)
        vectors = positions.index_select(0, joined.receiver)
        vectors -= positions.index_select(0, joined.sender)
        vectors += box.offsets
        squares = torch.linalg.vecdot(vectors, vectors)
        kept = self._within(joined, squares < self.cutoff**2)
        if squares.shape[0] and float(squares.min()) < CLOSEST_CONTACT**2:
            for atoms in frames:  # one of them is refused, with its reason
                neighbour_list(atoms, CLOSEST_CONTACT)
        read = [read_conditions(atoms, self.conditions) for atoms in frames]
        return AtomicGraph(
            numbers=joined.numbers,
            positions=positions,
            cells=box.cells,
            volumes=box.volumes,
            system_index=joined.system_index,
            sender=kept.sender,
            receiver=kept.receiver,
            shift=kept.shift,
            pbc=joined.pbc,
            conditions={
                name: torch.cat([values[name] for values in read]).to(self.device)
                for name in self.conditions
            },
        )

    def _valid(
        self, frames: Sequence[Atoms], names: tuple[Hashable, ...], state: "_State"
    ) -> "_Joined":
        """Return the joined lists of the structures, those that no longer serve made anew."""
        joined = self._joined
        if (
            joined is None
            or joined.names != names
            or not np.array_equal(joined.counts, state.counts)
        ):
            lists = self._lists
            self._lists = {
                name: lists[name]
                if name in lists and len(lists[name].numbers) == len(atoms)
                else self._list(atoms)
                for name, atoms in zip(names, frames, strict=True)
            }
            joined = self._join(names)
        stale = joined.stale(state, self.cutoff, self.skin)
        if stale.any():
            for index in np.flatnonzero(stale).tolist():
                self._lists[names[index]] = self._list(frames[index])
            joined = self._join(names)
        return joined

    def _list(self, atoms: Atoms) -> "_PairList":
        """Return the pairs of one structure within cutoff and skin."""
        self.num_lists += 1
        sender, receiver, shift = neighbour_list(atoms, self.cutoff + self.skin)
        return _PairList(
            numbers=atoms.numbers.copy(),
            positions=atoms.positions.copy(),
            cell=_periodic_cell(atoms),
            pbc=np.array(atoms.pbc, dtype=bool),
            sender=sender,
            receiver=receiver,
            shift=shift.astype(np.float64),
        )

    def _join(self, names: tuple[Hashable, ...]) -> "_Joined":
        """Lay the lists of some structures end to end."""
        self._box = self._kept = None
        self._joined = _Joined.of(names, [self._lists[name] for name in names], self.device)
        return self._joined

    def _within(self, joined: "_Joined", mask: Tensor) -> "_KeptPairs":
        """Return the pairs of a mask, the same tensors as in the last call if it is the same."""
        if self._kept is None or not torch.equal(mask, self._kept.mask):
            index = mask.nonzero().squeeze(1)
            self._kept = _KeptPairs(
                mask=mask,
                sender=joined.sender.index_select(0, index),
                receiver=joined.receiver.index_select(0, index),
                shift=joined.shift.index_select(0, index),
            )
        return self._kept


def _periodic_cell(atoms: Atoms) -> np.ndarray:
    """Return the (3, 3) cell in Angstrom, its rows zero along directions without periodicity."""
    return np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """Structures as they are now, end to end."""

    counts: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[Atoms]) -> "_State":
        """Read the structures."""
        pbc = np.array([atoms.pbc for atoms in frames], dtype=bool)
        cells = np.array([atoms.cell.array for atoms in frames], dtype=np.float64)
        return cls(
            counts=np.array([len(atoms) for atoms in frames]),
            numbers=np.concatenate([atoms.numbers for atoms in frames]),
            positions=np.concatenate([atoms.positions for atoms in frames]),
            cells=np.where(pbc[:, :, None], cells, 0.0),
            pbc=pbc,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _PairList:
    """Pairs of one structure, and the structure when they were found."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    sender: np.ndarray
    receiver: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class _Joined:
    """Pair lists of several structures end to end; `lists_*` is where they were made."""

    names: tuple[Hashable, ...]
    counts: np.ndarray
    lists_numbers: np.ndarray
    lists_positions: np.ndarray
    lists_cells: np.ndarray
    lists_pbc: np.ndarray
    lists_system: np.ndarray
    numbers: Tensor
    pbc: Tensor
    system_index: Tensor
    sender: Tensor
    receiver: Tensor
    shift: Tensor

    @classmethod
    def of(
        cls, names: tuple[Hashable, ...], lists: Sequence[_PairList], device: torch.device
    ) -> "_Joined":
        """Join the lists."""
        counts = np.array([len(pairs.numbers) for pairs in lists])
        starts = np.cumsum(counts) - counts
        system = np.repeat(np.arange(len(lists)), counts)
        numbers = np.concatenate([pairs.numbers for pairs in lists])
        pbc = np.array([pairs.pbc for pairs in lists])
        ends = [_shifted(pairs, int(start)) for pairs, start in zip(lists, starts, strict=True)]
        sender, receiver = (_joined(arrays) for arrays in zip(*ends, strict=True))
        return cls(
            names=names,
            counts=counts,
            lists_numbers=numbers,
            lists_positions=np.concatenate([pairs.positions for pairs in lists]),
            lists_cells=np.array([pairs.cell for pairs in lists]),
            lists_pbc=pbc,
            lists_system=system,
            numbers=torch.tensor(numbers, dtype=torch.int64, device=device),
            pbc=torch.tensor(pbc, device=device),
            system_index=torch.as_tensor(system, dtype=torch.int64, device=device),
            sender=torch.as_tensor(sender, device=device),
            receiver=torch.as_tensor(receiver, device=device),
            shift=torch.as_tensor(_joined([pairs.shift for pairs in lists]), device=device),
        )

    def stale(self, state: _State, cutoff: float, skin: float) -> np.ndarray:
        """Return (systems,) booleans, True where a pair within the cutoff may be missing."""
        moved = state.positions - self.lists_positions
        reach = np.full(len(self.counts), cutoff + skin)
        for index in np.flatnonzero((state.cells != self.lists_cells).any(axis=(1, 2))):
            before, now = self.lists_cells[index], state.cells[index]
            # rows without periodicity are zero: F is the identity across the periodic ones
            deformation = np.eye(3) + np.linalg.pinv(before, rcond=1e-10) @ (now - before)
            atoms = self.lists_system == index
            moved[atoms] = state.positions[atoms] - self.lists_positions[atoms] @ deformation
            reach[index] *= np.linalg.svd(deformation, compute_uv=False)[-1]
        largest = np.zeros(len(self.counts))
        squares = np.einsum("ax,ax->a", moved, moved)
        squares[(state.numbers != self.lists_numbers) | np.isnan(squares)] = np.inf
        np.maximum.at(largest, self.lists_system, squares)
        good = cutoff + 2.0 * np.sqrt(largest) <= reach
        return ~good | (state.pbc != self.lists_pbc).any(axis=1)


def _shifted(pairs: _PairList, first_atom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sender and receiver where the atoms are counted from another's end."""
    if first_atom == 0:
        return pairs.sender, pairs.receiver
    return pairs.sender + first_atom, pairs.receiver + first_atom


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays end to end, a single one as it is: lists are never changed."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    """What depends on the cells of now."""

    known: np.ndarray
    cells: Tensor
    volumes: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, joined: _Joined, cells: np.ndarray, device: torch.device) -> "_Box":
        """Cross cells with the shifts of the pairs."""
        volumes = np.abs(np.linalg.det(cells))
        volumes[~joined.lists_pbc.all(axis=1)] = np.nan
        rows = torch.from_numpy(cells).to(device)
        if len(cells) == 1:
            offsets = joined.shift @ rows[0]
        else:
            pair_cells = rows[joined.system_index[joined.sender]]
            offsets = torch.einsum("es,esx->ex", joined.shift, pair_cells)
        return cls(
            known=cells,
            cells=rows,
            volumes=torch.from_numpy(volumes).to(device),
            offsets=offsets,
        )

    def fits(self, joined: _Joined, cells: np.ndarray) -> bool:
        """Whether these are the cells of now."""
        return self.known.shape == cells.shape and bool((self.known == cells).all())


@dataclass(frozen=True, kw_only=True, slots=True)
class _KeptPairs:
    """Pairs within the cutoff."""

    mask: Tensor
    sender: Tensor
    receiver: Tensor
    shift: Tensor
