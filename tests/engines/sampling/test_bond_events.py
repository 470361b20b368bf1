import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.bond_events import BondTracker


def zundel(share: float) -> Atoms:
    """Return H between two O 2.6 A apart, at a share of the way."""
    return Atoms("OOH", [[0, 0, 0], [2.6, 0, 0], [0.97 + share * 0.66, 0, 0]])


def test_a_proton_transfer_is_told_once() -> None:
    tracker = BondTracker(zundel(0.0))
    shares = [0.0, 0.2, 0.6, 0.5, 0.9, 1.0, 1.0]
    told = [tracker.look(zundel(share)) for share in shares]
    assert [event.changed for event in told] == [False, False, False, False, True, False, False]
    assert told[-1].formed == ((1, 2),) and told[-1].broken == ((0, 2),)
    frame = zundel(1.0)
    told[-1].store(frame)
    assert frame.info["bonds_formed"] == "O1-H2" and frame.info["bonds_broken"] == "O0-H2"


def test_going_back_leaves_nothing() -> None:
    tracker = BondTracker(zundel(0.0))
    tracker.look(zundel(1.0))
    back = tracker.look(zundel(0.0))
    assert back.changed and not back.formed and not back.broken


def test_between_the_thresholds_nothing_changes() -> None:
    """A vibration across one threshold is no event; what it was bonded to decides."""
    tracker = BondTracker(Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]))
    for length in (1.1, 1.3, 1.05, 1.39, 1.2):
        assert not tracker.look(Atoms("OH", [[0, 0, 0], [0, 0, length]])).changed
    assert tracker.look(Atoms("OH", [[0, 0, 0], [0, 0, 1.5]])).broken == ((0, 1),)
    assert tracker.look(Atoms("OH", [[0, 0, 0], [0, 0, 1.2]])).broken == ((0, 1),)
    assert not tracker.look(Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])).broken


def test_a_hot_crystal_breaks_nothing_across_its_boundary() -> None:
    crystal = bulk("Cu", cubic=True) * (3, 3, 3)
    tracker = BondTracker(crystal)
    rng = np.random.default_rng(0)
    for _ in range(5):
        hot = crystal.copy()
        hot.positions += 0.08 * rng.standard_normal(hot.positions.shape)
        event = tracker.look(hot)
        assert not event.formed and not event.broken


def test_state_and_refusal() -> None:
    tracker, other = BondTracker(zundel(0.0)), BondTracker(zundel(0.0))
    tracker.look(zundel(1.0))
    other.restore(tracker.state())
    assert not other.look(zundel(0.9)).changed
    with pytest.raises(ConfigError, match="first smaller"):
        BondTracker(zundel(0.0), form=1.5, part=1.2)


@pytest.mark.parametrize("name", ["H2", "F2", "H2O2", "N2H4", "Cl2", "Li2", "CH4", "SiH4"])
def test_molecules_at_rest_are_bonded(name: str) -> None:
    """Formed from atoms far apart, every one is in one piece: H2 and F2 have the longest bonds."""
    atoms = molecule(name)
    apart = atoms.copy()
    apart.positions *= 10.0
    formed = BondTracker(apart).look(atoms).formed
    assert len(formed) >= len(atoms) - 1
