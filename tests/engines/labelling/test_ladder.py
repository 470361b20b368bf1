"""Retries go up the ladder of their kind, stay at one level of theory and are counted."""

from dataclasses import dataclass, replace
from typing import final

import pytest
from ase import Atoms
from ase.build import molecule

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Fidelity, Label
from tace_al.engines.labelling.fake import FakeLabeller
from tace_al.engines.labelling.guarded import guarded_label
from tace_al.engines.labelling.labeller import Labeller
from tace_al.engines.labelling.ladder import laddered_label
from tace_al.engines.labelling.pyscf import PySCFLabeller

CALLS: list[int] = []


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Stubborn(Labeller):
    """Fails with `kind` until its rung is high enough; `level` is its level of theory."""

    kind: str = "convergence"
    works_at: int = 2
    rung: int = 0
    level: int = 0
    drifts: bool = False

    @property
    def fidelity(self) -> Fidelity:
        """The level alone."""
        return Fidelity(name="stubborn", code="1", settings={"level": self.level})

    def retries(self, kind: str) -> tuple["Stubborn", ...]:
        """Return two rungs for "convergence"."""
        if kind != "convergence":
            return ()
        return tuple(replace(self, rung=rung, level=int(self.drifts)) for rung in (1, 2))

    def label(self, atoms: Atoms) -> Label:
        """Return a label from the rung that works on."""
        CALLS.append(self.rung)
        if self.rung < self.works_at:
            raise LabelFailed(self.kind, f"rung {self.rung} is too low; climb")
        return replace(FakeLabeller().label(atoms), fidelity_key=self.fidelity.key)


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Begin to count."""
    CALLS.clear()


def test_the_ladder_is_climbed_until_a_label_comes() -> None:
    """Both rungs are tried in order, and the label is of the labeller's own level."""
    label = guarded_label(Stubborn(), molecule("H2O"))
    assert CALLS == [0, 1, 2]
    assert label.fidelity_key == Stubborn().fidelity.key


def test_every_way_that_failed_is_told() -> None:
    """The first failure comes back, with the number of attempts and what the others said."""
    with pytest.raises(LabelFailed, match="rung 0 is too low") as failed:
        laddered_label(Stubborn(works_at=9), molecule("H2O"))
    assert failed.value.attempts == 3
    notes = " ".join(failed.value.__notes__)
    assert "rung 1 is too low" in notes and "rung 2 is too low" in notes


@pytest.mark.parametrize(("kind", "calls"), [("crash", 2), ("contact", 1), ("parity", 1)])
def test_a_crash_gets_a_second_chance_and_a_guard_none(kind: str, calls: int) -> None:
    """Only what may be the machine's fault is repeated as it was."""
    with pytest.raises(LabelFailed) as failed:
        laddered_label(Stubborn(kind=kind), molecule("H2O"))
    assert [0] * calls == CALLS
    assert failed.value.attempts == calls


def test_a_retry_at_another_level_is_a_mistake_of_ours() -> None:
    """A setting that changes the number must not pass for a retry."""
    with pytest.raises(AssertionError, match="level of theory"):
        laddered_label(Stubborn(drifts=True), molecule("H2O"))


def test_a_structure_that_a_guard_refuses_never_reaches_the_labeller() -> None:
    """Overlapping atoms cost no attempt at all."""
    with pytest.raises(LabelFailed, match="overlap"):
        guarded_label(Stubborn(), Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.05]]))
    assert CALLS == []


def test_pyscf_is_rescued() -> None:
    """One cycle is not enough for water, the ladder is, and the number is the usual one."""
    usual = PySCFLabeller(method="hf", basis="sto-3g")
    rescued = guarded_label(replace(usual, max_cycle=1), molecule("H2O"))
    assert rescued.energy == pytest.approx(usual.label(molecule("H2O")).energy, abs=1e-6)
    assert rescued.fidelity_key == usual.fidelity.key
