import numpy as np
import pytest
from ase.build import molecule

from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.relax import relax


def test_water_relaxes_and_every_frame_carries_its_label() -> None:
    potential = LabellerPotential(labeller_from_name("gfn2"))
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=0)
    start = atoms.positions.copy()
    relaxation = relax(potential, atoms, fmax=0.01)
    assert relaxation.converged
    assert np.array_equal(atoms.positions, start)
    assert potential.num_labels == len(relaxation.frames) == relaxation.steps + 1
    energies = [frame.info["energy"] for frame in relaxation.frames]
    assert energies[-1] == min(energies)
    assert relaxation.final.get_distance(0, 1) == pytest.approx(0.959, abs=0.01)
    label = labeller_from_name("gfn2").label(relaxation.frames[1])
    assert np.allclose(relaxation.frames[1].arrays["forces"], label.forces)


def test_steps_are_limited() -> None:
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=0)
    potential = LabellerPotential(labeller_from_name("gfn2"))
    relaxation = relax(potential, atoms, fmax=1e-6, max_steps=2)
    assert not relaxation.converged
    assert relaxation.steps == 2
