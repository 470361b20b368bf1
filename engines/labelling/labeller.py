"""The interface of a labeller: one structure in, one label out.

A labeller is a small frozen object of plain settings, so that a worker can rebuild it from its
name and options. Guards (`guards.py`) run around it, never inside it.
"""

from abc import ABC, abstractmethod

from ase import Atoms

from tace_al.core.labels import Fidelity, Label


class Labeller(ABC):
    """Gives energies and forces at one level of theory."""

    @property
    @abstractmethod
    def fidelity(self) -> Fidelity:
        """The level of theory, with every setting that changes a number."""

    @abstractmethod
    def label(self, atoms: Atoms) -> Label:
        """Return the label of one structure.

        Total charge and multiplicity are read as `tace_al.data.frames` says.

        Raises
        ------
        LabelFailed
            The calculation ran and failed; `kind` says how.
        LabellerMissing
            The package or program is not installed.
        """

    def retries(self, kind: str) -> "tuple[Labeller, ...]":
        """Return labellers to try, in this order, after a failure of a kind.

        All have this one's fidelity: another way to the same number, never another number.
        """
        del kind
        return ()
