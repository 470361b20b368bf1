from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, SamplerError
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.catalogue import sampler_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.lowest_mode import lowest_mode, rigid_motions
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.relax import relax
from tace_al.engines.sampling.saddle_search import SearchSettings, search_saddle, slide_down
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.model.prediction import Prediction


def adatom() -> Atoms:
    """Return Au relaxed in a hollow of Al(100), the lower layers fixed."""
    slab = fcc100("Al", (2, 2, 3))
    add_adsorbate(slab, "Au", 1.7, "hollow")
    slab.center(5.0, axis=2)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    return relax(CalculatorPotential(EMT()), slab, fmax=0.01).final


def full_hessian(atoms: Atoms, potential: CalculatorPotential) -> np.ndarray:
    rows = []
    for index in range(3 * len(atoms)):
        forces = []
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.set_constraint()
            moved.positions.reshape(-1)[index] += sign * 0.01
            forces.append(potential.predict([moved])[0].forces.ravel())
        rows.append((forces[1] - forces[0]) / 0.02)
    matrix = np.array(rows)
    return 0.5 * (matrix + matrix.T)


def test_the_lowest_mode_is_that_of_the_hessian() -> None:
    potential = CalculatorPotential(EMT())
    atoms = relax(potential, molecule("CH4"), fmax=0.001).final
    rigid = rigid_motions(atoms)
    assert rigid.shape == (15, 6)
    outside = np.eye(15) - rigid @ rigid.T
    hessian = outside @ full_hessian(atoms, potential) @ outside + 1e3 * rigid @ rigid.T
    expected = np.linalg.eigvalsh(hessian)[0]
    guess = np.random.default_rng(0).normal(size=(5, 3))
    mode = lowest_mode(potential, atoms, guess, max_products=30, tolerance=1e-4)
    assert mode.curvature == pytest.approx(expected, abs=0.01)
    assert np.abs(rigid.T @ mode.direction.ravel()).max() < 1e-10


def test_an_adatom_finds_the_bridge_over_which_it_hops() -> None:
    """The same saddle point as the elastic band's: 0.375 eV, without being told the other end."""
    start = adatom()
    potential = CalculatorPotential(EMT())
    (bottom,) = potential.predict([start])
    found = search_saddle(
        potential, start, active=[len(start) - 1], settings=SearchSettings(seed=1, fmax=0.01)
    )
    assert found.converged, found.reason
    assert found.saddle.info["energy"] - bottom.energy == pytest.approx(0.375, abs=0.01)
    assert found.mode.curvature < -0.1
    fixed = start.constraints[0].index
    assert np.array_equal(found.saddle.positions[fixed], start.positions[fixed])
    left, right = slide_down(potential, found.saddle, found.mode.direction)
    for side in (left, right):
        assert side.info["energy"] == pytest.approx(bottom.energy, abs=0.005)
    apart = np.linalg.norm((left.positions - right.positions)[-1])
    assert apart == pytest.approx(4.05 / np.sqrt(2), abs=0.15), "a hop to the next hollow"


def test_ammonia_inverts() -> None:
    """GFN2's inversion barrier of ammonia, 0.265 eV, from the pyramid alone."""
    potential = LabellerPotential(labeller_from_name("gfn2"))
    start = relax(potential, molecule("NH3"), fmax=0.01).final
    found = search_saddle(potential, start, settings=SearchSettings(seed=2))
    assert found.converged, found.reason
    assert found.saddle.info["energy"] - start.info["energy"] == pytest.approx(0.265, abs=0.005)
    heights = found.saddle.positions[1:] - found.saddle.positions[0]
    normal = np.cross(heights[0] - heights[1], heights[0] - heights[2])
    assert abs(heights[0] @ normal) / np.linalg.norm(normal) < 0.03, "planar"


def test_guards() -> None:
    start = adatom()
    potential = CalculatorPotential(EMT())
    short = search_saddle(potential, start, settings=SearchSettings(max_steps=2))
    assert not short.converged and "used up" in short.reason and len(short.frames) == 3
    with pytest.raises(ConfigError, match="not all there"):
        search_saddle(potential, start, active=[99])
    with pytest.raises(SamplerError, match="no atom can move"):
        search_saddle(potential, start, active=[0])
    known = search_saddle(
        potential, start, thresholds=Thresholds(low=0.1, high=1.0),
        settings=SearchSettings(max_steps=1),
    )  # fmt: skip
    assert known.outcome == "known"


def test_searches_as_a_sampler() -> None:
    sampler = sampler_from_name(
        "saddle",
        {"active": [12], "max_steps": 40, "record_every": 10},
        potential=CalculatorPotential(EMT()),
        thresholds=Thresholds(low=0.1, high=1.0),
        seed=1,
    )
    chunk = sampler.run(adatom())
    assert chunk.outcome == "known" and len(chunk.known) >= 3
    assert chunk.observables["rise_ev"] > 0.2
    assert chunk.known[-1].info["curvature"] < chunk.known[0].info["curvature"]


class EggBox(Potential):
    """-cos x - cos y + z^2 / 2 for the last atom: saddles of 2 eV, tops of 4 eV in between."""

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        return [self._predict(atoms) for atoms in frames]

    def _predict(self, atoms: Atoms) -> Prediction:
        x, y, z = atoms.positions[-1]
        forces = np.zeros((len(atoms), 3))
        forces[-1] = -np.sin(x), -np.sin(y), -z
        energy = -np.cos(x) - np.cos(y) + 0.5 * z**2
        return Prediction(member_energies=np.array([energy]), member_forces=forces[None])


def test_a_search_along_a_symmetry_does_not_end_on_a_top() -> None:
    """Straight up the diagonal the forces vanish where two directions curve down."""
    atoms = Atoms("ArAr", positions=[[0.0, 0.0, 6.0], [0.2, 0.2, 0.0]])
    atoms.set_constraint(FixAtoms(indices=[0]))
    found = search_saddle(
        EggBox(),
        atoms,
        direction=np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
        settings=SearchSettings(max_separation=20.0),
    )
    assert found.converged
    assert found.saddle.info["energy"] == pytest.approx(0.0, abs=1e-3)
