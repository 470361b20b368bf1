"""ASE calculators: one model, or a committee with its spread.

ASE keeps results while positions, cell, elements and its own charges and moments stay as they are;
these calculators also watch the conditions that their model reads (`tace_al.data.conditions`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from tace_al.data.conditions import read_conditions
from tace_al.data.neighbour_skin import NeighbourSkin
from tace_al.model.committee import Committee
from tace_al.model.config import Dtype
from tace_al.model.derivatives import SECOND
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.kept_inputs import InputsKeeper
from tace_al.model.network_weights import CompiledKeeper
from tace_al.model.outputs import available_outputs, structure_outputs
from tace_al.model.tace import Tace


@final
class TaceCalculator(Calculator):
    """One model in ASE's units and sign conventions.

    Energy, forces and, in crystals, stress come with every calculation; any other output of the
    model (`tace_al.model.outputs`) is a property of the same name, computed when asked for:
    `atoms.calc.get_property("polarizability", atoms)`, `atoms.get_dipole_moment()`.

    Parameters
    ----------
    model
        A `Tace`.
    dtype
        "float32" or "float64"; default the model's own.
    device
        "cpu" or "cuda".
    head
        Name of the level of theory that answers; the first by default.
    splines
        Read radial weights from splines instead of their networks, where the compiled kernels are
        there: faster, and within 1e-6 eV/Angstrom. Second derivatives always use the networks.

    Examples
    --------
    >>> from ase.build import molecule
    >>> atoms = molecule("H2O")
    >>> atoms.calc = TaceCalculator(Tace.from_preset("tiny", elements=["H", "O"]))
    >>> atoms.get_forces().shape
    (3, 3)
    >>> atoms.calc.get_property("atomic_virials", atoms).shape
    (3, 3, 3)
    """

    def __init__(
        self,
        model: Tace,
        *,
        dtype: Dtype | None = None,
        device: str = "cpu",
        head: str | None = None,
        splines: bool = True,
    ) -> None:
        super().__init__()
        model = model if dtype is None or dtype == model.config.dtype else model.as_dtype(dtype)
        self.model = model.to(device).eval()
        model.head(head)
        self.head = head
        available = set(available_outputs(model.config)) - {"node_energy"}
        self.implemented_properties = ["free_energy", "energies", *sorted(available)]
        self._compiled = CompiledKeeper([self.model], (head,) if head else ()) if splines else None
        self._skin = neighbour_skin(self.model)
        self._inputs = InputsKeeper(self.model, head)
        self._conditions: dict[str, Tensor] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`."""
        super().calculate(atoms, list(properties), list(system_changes))
        config = self.model.config
        graph = self._skin.graph([self.atoms])
        asked = set(properties) - {"energy", "free_energy", "energies", "descriptors", "stress"}
        crystal = bool(np.all(self.atoms.pbc))  # ASE says that others have no stress
        names = asked | {"forces"} | ({"stress"} if crystal else set())
        compiled = self._compiled.current() if self._compiled and not names & SECOND else None
        output = self.model.evaluate(
            graph,
            tuple(names),
            head=self.head,
            inputs=self._inputs.of(graph),
            splines=compiled.splines[0] if compiled else (),
            network=compiled.network if compiled else None,
        )
        kept = {} if system_changes else self.results
        energy = float(output.energy)
        self.results = kept | {
            "energy": energy,
            "free_energy": energy,
            "energies": output.node_energy.cpu().numpy(),
            "descriptors": output.descriptors.cpu().numpy(),
        }
        per_structure = structure_outputs(config)
        for name in names:
            values = output[name].double().cpu().numpy()
            self.results[name] = values[0] if name in per_structure else values
        if "stress" in self.results:
            self.results["stress"] = full_3x3_to_voigt_6_stress(self.results["stress"])
        self._conditions = read_conditions(self.atoms, config.conditions)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation."""
        return [*super().check_state(atoms, tol), *changed_conditions(self._conditions, atoms)]


@final
class CommitteeCalculator(Calculator):
    """The mean of a committee, with what its members disagree on.

    Besides energy, forces and stress, `results` holds `energy_spread` (eV, standard deviation over
    members), `force_spread` ((atoms,) eV/Angstrom), `member_energies` and `member_forces`.

    Parameters
    ----------
    committee
        Models trained apart, or heads of one model.
    member_forces
        Without them there is no `force_spread`, and heads of one model cost no more than one.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE's)

    def __init__(self, committee: Committee | HeadCommittee, *, member_forces: bool = True) -> None:
        super().__init__()
        self.committee = committee
        self._member_forces = member_forces
        self._skin = neighbour_skin(committee.members[0])
        self._conditions: dict[str, Tensor] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`."""
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = calculator_results(
            self.committee, self._skin, self.atoms, member_forces=self._member_forces
        )
        self._conditions = read_conditions(self.atoms, self.committee.members[0].config.conditions)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation."""
        return [*super().check_state(atoms, tol), *changed_conditions(self._conditions, atoms)]


def changed_conditions(known: Mapping[str, Tensor], atoms: Atoms) -> list[str]:
    """Return the names of conditions that are no longer what they were."""
    present = read_conditions(atoms, tuple(known))
    return [
        name
        for name, before in known.items()
        if before.shape != present[name].shape
        or not torch.allclose(before, present[name], rtol=0.0, atol=0.0, equal_nan=True)
    ]


def neighbour_skin(model: Tace) -> NeighbourSkin:
    """Return the neighbour lists of one structure that moves."""
    config = model.config
    return NeighbourSkin(config.cutoff, conditions=config.conditions, device=model.embedding.device)


def calculator_results(
    committee: Committee | HeadCommittee,
    skin: NeighbourSkin,
    atoms: Atoms,
    *,
    member_forces: bool = True,
) -> dict[str, Any]:
    """Return ASE results of one structure (stress in Voigt order xx, yy, zz, yz, xz, xy)."""
    periodic = bool(np.all(atoms.pbc))
    (prediction,) = committee.predict_batch(
        skin.graph([atoms]), stress=periodic, member_forces=member_forces
    )
    results: dict[str, Any] = {
        "energy": prediction.energy,
        "free_energy": prediction.energy,
        "forces": prediction.forces,
        "energy_spread": prediction.energy_spread,
        "member_energies": prediction.member_energies,
    }
    if member_forces:
        results["force_spread"] = prediction.force_spread
        results["member_forces"] = prediction.member_forces
    if prediction.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress)
    return results
