from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from tace_al.core.errors import ConfigError, SamplerError, StructureError
from tace_al.data.frames import CHARGE
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential
from tace_al.engines.sampling.neb import BandResult, BandSettings, nudged_elastic_band
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.engines.sampling.relax import relax
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.model.prediction import Prediction


class Committee(Potential):
    """EMT four times, the members' energies and forces scaled apart; counts its calls."""

    def __init__(self, spread: float) -> None:
        self.spread = spread
        self.batches: list[int] = []

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        self.batches.append(len(frames))
        factors = 1.0 + self.spread * np.array([-1.5, -0.5, 0.5, 1.5])
        return [
            Prediction(
                member_energies=factors * p.energy,
                member_forces=factors[:, None, None] * p.forces,
            )
            for p in CalculatorPotential(EMT()).predict(frames)
        ]


def hop(metal: str, adsorbate: str, height: float) -> tuple[Atoms, Atoms]:
    """Hollow to hollow on a (100) surface, two lower layers fixed, both ends relaxed."""
    slab = fcc100(metal, (2, 2, 3))
    add_adsorbate(slab, adsorbate, height, "hollow")
    slab.center(5.0, axis=2)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    moved = slab.copy()
    moved.positions[-1, 0] += slab.cell[0, 0] / 2
    potential = CalculatorPotential(EMT())
    return relax(potential, slab, fmax=0.01).final, relax(potential, moved, fmax=0.01).final


@pytest.mark.parametrize(
    ("metal", "adsorbate", "height", "barrier"), [("Al", "Au", 1.7, 0.375), ("Pt", "O", 1.2, 0.119)]
)
def test_surface_hops_have_their_known_barriers(
    metal: str, adsorbate: str, height: float, barrier: float
) -> None:
    initial, final = hop(metal, adsorbate, height)
    band = nudged_elastic_band(
        CalculatorPotential(EMT()), initial, final, settings=BandSettings(num_images=5)
    )
    assert band.converged
    assert band.barrier == pytest.approx(barrier, abs=0.01)
    assert band.reverse_barrier == pytest.approx(barrier, abs=0.01)
    fixed = initial.constraints[0].index
    for image in band.images:
        assert np.array_equal(image.positions[fixed], initial.positions[fixed])


def ammonia_inversion() -> tuple[Atoms, Atoms, LabellerPotential]:
    potential = LabellerPotential(labeller_from_name("gfn2"))
    initial = relax(potential, molecule("NH3"), fmax=0.01).final
    final = initial.copy()
    final.positions[:, 2] *= -1.0
    return initial, final, potential


def test_ammonia_inverts_over_its_known_barrier_however_it_is_turned() -> None:
    initial, final, potential = ammonia_inversion()
    final.rotate(50, (1, 2, 3))
    final.positions += [3.0, -1.0, 2.0]
    band = nudged_elastic_band(potential, initial, final, settings=BandSettings(num_images=7))
    assert band.converged
    assert band.barrier == pytest.approx(0.265, abs=0.005)
    heavy, hydrogens = band.saddle.positions[0], band.saddle.positions[1:]
    normal = np.cross(hydrogens[1] - hydrogens[0], hydrogens[2] - hydrogens[0])
    assert abs(normal @ (heavy - hydrogens[0])) / np.linalg.norm(normal) < 0.02
    saddle_forces = potential.predict([band.saddle])[0].forces
    assert np.linalg.norm(saddle_forces, axis=1).max() < 0.05


def test_a_charged_exchange_has_its_known_barrier() -> None:
    atoms = Atoms(
        "ClCH3Cl",
        positions=[
            [0, 0, -3.0],
            [0, 0, 0],
            [1.03, 0, -0.35],
            [-0.515, 0.89, -0.35],
            [-0.515, -0.89, -0.35],
            [0, 0, 1.8],
        ],
    )
    atoms.info[CHARGE] = -1
    potential = LabellerPotential(labeller_from_name("gfn2"))
    initial = relax(potential, atoms, fmax=0.01).final
    final = initial.copy()
    final.positions = (initial.positions * [1, 1, -1])[[5, 1, 2, 3, 4, 0]]
    band = nudged_elastic_band(potential, initial, final)
    assert band.converged
    assert band.barrier == pytest.approx(0.460, abs=0.005)
    assert band.saddle.info[CHARGE] == -1


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [7, 9])
def test_carbonic_acid_decomposes_over_one_of_its_two_saddles(num_images: int) -> None:
    """1.785 eV over the first-order saddle; 1.823 over the planar one, where a band may rest."""
    potential = LabellerPotential(labeller_from_name("gfn2"))
    acid = Atoms(
        "CO3H2",
        positions=[
            [0, 0, 0],
            [0, 1.2, 0],
            [1.15, -0.65, 0],
            [-1.15, -0.65, 0],
            [0.95, -1.6, 0],
            [-1.9, 0, 0],
        ],
    )
    products = Atoms(
        "CO3H2",
        positions=[
            [0, 0, 0],
            [-0.5, 1.06, 0],
            [2.6, -0.9, 0],
            [0.5, -1.06, 0],
            [3.2, -0.2, 0],
            [3.0, -1.75, 0],
        ],
    )
    initial = relax(potential, acid, fmax=0.01).final
    final = relax(potential, products, fmax=0.01).final
    band = nudged_elastic_band(
        potential,
        initial,
        final,
        settings=BandSettings(num_images=num_images, rattle=0.02, max_steps=400),
    )
    assert band.converged
    assert min(abs(band.barrier - 1.785), abs(band.barrier - 1.823)) < 0.01


def emt_band(potential: Potential, **options: object) -> BandResult:
    initial, final = hop("Al", "Au", 1.7)
    settings = BandSettings(num_images=5)
    return nudged_elastic_band(potential, initial, final, settings=settings, **options)  # type: ignore[arg-type]


def test_all_images_are_predicted_in_one_call_a_step() -> None:
    committee = Committee(spread=0.0)
    band = emt_band(committee)
    assert committee.batches == [5] + [3] * (band.steps - 1)


def test_every_member_has_its_own_profile() -> None:
    band = emt_band(Committee(spread=0.02))
    barriers = band.member_energies.max(axis=1) - band.member_energies[:, 0]
    assert barriers == pytest.approx(band.barrier * np.array([0.97, 0.99, 1.01, 1.03]), rel=0.01)
    assert band.member_tangential_forces.shape == (4, 5)
    assert band.energies == pytest.approx(band.member_energies.mean(axis=0))
    slopes = np.gradient(band.energies, band.reaction_coordinate)[1:-1]
    assert np.sign(-band.tangential_forces[1]) == np.sign(slopes[0])
    for index, image in enumerate(band.images):
        assert image.info["image"] == index
        assert image.info["energy"] == pytest.approx(band.energies[index])
        assert image.arrays["force_spread"].shape == (len(image),)


def test_a_band_that_breaks_comes_home_at_once() -> None:
    committee = Committee(spread=0.3)
    band = emt_band(committee, thresholds=Thresholds(low=0.01, high=0.05))
    assert band.outcome == "broken"
    assert not band.converged
    assert len(committee.batches) == 1
    assert band.max_uncertainty >= 0.05


def test_outcomes_follow_the_largest_uncertainty() -> None:
    known = emt_band(Committee(spread=0.001), thresholds=Thresholds(low=0.5, high=5.0))
    assert (known.outcome, known.converged) == ("known", True)
    unsure = emt_band(Committee(spread=0.01), thresholds=Thresholds(low=1e-4, high=5.0, scale=2.0))
    assert (unsure.outcome, unsure.converged) == ("uncertain", True)
    assert unsure.max_uncertainty == max(image.info["uncertainty"] for image in unsure.images)


def test_a_band_goes_on_from_a_path_with_fewer_steps() -> None:
    initial, final, potential = ammonia_inversion()
    settings = BandSettings(num_images=7, rattle=0.03, seed=5)
    band = nudged_elastic_band(potential, initial, final, settings=settings)
    settings = BandSettings(num_images=7)
    again = nudged_elastic_band(potential, initial, final, settings=settings, path=band.images)
    assert again.steps < band.steps
    assert again.barrier == pytest.approx(band.barrier, abs=0.005)
    settings = BandSettings(num_images=9)
    finer = nudged_elastic_band(potential, initial, final, settings=settings, path=band.images)
    assert len(finer.images) == 9
    assert finer.barrier == pytest.approx(band.barrier, abs=0.005)


def test_a_band_that_starts_folded_still_finds_the_saddle() -> None:
    """Eleven images a tenth of an angstrom apart, rattled: it once went up a 17 eV wall."""
    initial, final, potential = ammonia_inversion()
    settings = BandSettings(num_images=11, rattle=0.05)
    band = nudged_elastic_band(potential, initial, final, settings=settings)
    assert band.converged
    assert band.barrier == pytest.approx(0.265, abs=0.005)


def test_the_same_seed_gives_the_same_band() -> None:
    initial, final, potential = ammonia_inversion()
    settings = BandSettings(num_images=5, rattle=0.05, seed=1, max_steps=3)
    one = nudged_elastic_band(potential, initial, final, settings=settings)
    two = nudged_elastic_band(potential, initial, final, settings=settings)
    assert np.array_equal(one.energies, two.energies)
    assert not one.converged
    assert one.steps == 3


def test_ends_can_be_relaxed_on_the_way() -> None:
    initial, final = hop("Al", "Au", 1.7)
    rough = [initial.copy(), final.copy()]
    for atoms in rough:
        atoms.positions[-1, 2] += 0.2
    settings = BandSettings(num_images=5, relax_ends=True)
    band = nudged_elastic_band(CalculatorPotential(EMT()), rough[0], rough[1], settings=settings)
    assert band.barrier == pytest.approx(0.375, abs=0.01)


def test_states_that_cannot_be_joined_are_refused() -> None:
    potential = CalculatorPotential(EMT())
    with pytest.raises(StructureError, match="same atoms in the same order"):
        nudged_elastic_band(potential, molecule("H2O"), molecule("CO2"))
    slab = fcc100("Al", (2, 2, 2), vacuum=5.0)
    wider = slab.copy()
    wider.set_cell(slab.cell.array * 1.01)
    with pytest.raises(StructureError, match="differ in cell"):
        nudged_elastic_band(potential, slab, wider)
    with pytest.raises(ConfigError, match="at least 3"):
        BandSettings(num_images=2)


def test_an_end_state_that_is_not_finite_is_refused() -> None:
    initial, final = hop("Al", "Au", 1.7)
    with pytest.raises(SamplerError, match="not finite at an end state"):
        nudged_elastic_band(Committee(spread=float("nan")), initial, final)
