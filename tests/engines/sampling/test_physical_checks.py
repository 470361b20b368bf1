import numpy as np
from ase import Atoms
from ase.build import fcc100, molecule

from tace_al.engines.sampling.physical_checks import broken_reason, num_fragments
from tace_al.model.prediction import Prediction


def calm(num_atoms: int) -> Prediction:
    return Prediction(member_energies=np.zeros(2), member_forces=np.zeros((2, num_atoms, 3)))


def reason(atoms: Atoms, prediction: Prediction | None = None) -> str | None:
    return broken_reason(
        atoms, prediction or calm(len(atoms)), temperature=300.0, max_separation=6.0
    )


def test_a_sound_frame_passes() -> None:
    assert reason(molecule("CH3OH")) is None
    assert reason(fcc100("Pt", (1, 1, 2), vacuum=5.0)) is None


def test_what_is_not_finite_is_named() -> None:
    atoms = molecule("H2O")
    bad = Prediction(member_energies=np.array([0.0, np.inf]), member_forces=np.zeros((2, 3, 3)))
    assert "predicts something" in str(reason(atoms, bad))
    atoms.positions[0, 0] = np.nan
    assert "positions" in str(reason(atoms))


def test_fragments_are_counted_with_periodic_images() -> None:
    pair = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 9.0]], cell=[10, 10, 10])
    assert num_fragments(pair, 6.0) == 2
    pair.pbc = [False, False, True]
    assert num_fragments(pair, 6.0) == 1
    assert num_fragments(Atoms("Ar"), 6.0) == 1


def test_an_atom_that_leaves_a_surface_breaks_the_frame() -> None:
    slab = fcc100("Pt", (2, 2, 2), vacuum=10.0)
    slab.append("O")
    slab.positions[-1] = slab.positions[-2] + [0, 0, 7.0]
    slab.pbc = [True, True, False]
    assert "fragment" in str(reason(slab))
