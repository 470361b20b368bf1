"""What a committee says about one structure: mean, every member, and how far they disagree."""

from dataclasses import dataclass

import numpy as np

from tace_al.core.errors import ModelError


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Energies and forces of one structure from every member of a committee.

    Parameters
    ----------
    member_energies
        (members,) total energies in eV.
    member_forces
        (members, atoms, 3) in eV/Angstrom, each the exact negative gradient of its own energy;
        (0, atoms, 3) where only their mean was asked for.
    stress
        (3, 3) mean stress in eV/Angstrom^3, (1/V) dE/dstrain, or None without a cell.
    descriptors
        (atoms, features) invariant features of the first member, or None when not asked for.
    mean_forces
        (atoms, 3) in eV/Angstrom, only where members' own forces were not asked for.
    """

    member_energies: np.ndarray
    member_forces: np.ndarray
    stress: np.ndarray | None = None
    descriptors: np.ndarray | None = None
    mean_forces: np.ndarray | None = None

    @property
    def energy(self) -> float:
        """Mean energy in eV."""
        return float(self.member_energies.mean())

    @property
    def forces(self) -> np.ndarray:
        """(atoms, 3) mean forces in eV/Angstrom: the gradient of the mean energy."""
        return self.member_forces.mean(axis=0) if self.mean_forces is None else self.mean_forces

    @property
    def energy_spread(self) -> float:
        """Standard deviation of the members' energies in eV (population form)."""
        return float(self.member_energies.std())

    @property
    def force_spread(self) -> np.ndarray:
        """(atoms,) rms distance of the members' forces from their mean in eV/Angstrom.

        Raises
        ------
        ModelError
            Only the mean of the forces was asked for.
        """
        if self.mean_forces is not None:
            raise ModelError(
                "the spread of forces needs every member's, and only their mean was asked for; "
                "leave member_forces=False out of the prediction"
            )
        deviation = self.member_forces - self.forces
        return np.sqrt((deviation**2).sum(axis=2).mean(axis=0))
