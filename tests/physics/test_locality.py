"""Where an atom's world ends: at the cutoff, without a jump, or as slowly as Coulomb's law."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from potentials import CUTOFF, ELEMENTS, POTENTIALS, Potential, close, in_double, potential, reads
from scipy.special import erf
from structures import conditions_of, give, impose, neutral, rattled
from torch import Tensor

from tace_al.core.units import COULOMB_CONSTANT

SHARED_CHARGE = ("charges", "dipole", "born_charges")
LONG_RANGE = [name for name in POTENTIALS if potential(name).long_range]


def fragments(model: Potential) -> tuple[Atoms, Atoms]:
    """Return two molecules far apart, under the same conditions."""
    first = neutral(model, rattled(molecule("H2O")))
    second = neutral(model, rattled(molecule("CH4")))
    second.positions += [30.0, 0.0, 0.0]
    return first, second


def coulomb(model: Potential, frame: Atoms, charges: Tensor) -> float:
    """Return the energy of smeared charges, summed pair by pair."""
    r = frame.get_all_distances()[np.triu_indices(len(frame), 1)]
    first, second = np.triu_indices(len(frame), 1)
    q = charges.double().numpy()
    kernel = erf(r / (np.sqrt(2.0) * model.config.ewald_width)) / r
    return COULOMB_CONSTANT * float((q[first] * q[second] * kernel).sum())


def test_far_molecules_do_not_know_of_each_other(model: Potential) -> None:
    """Apart from charges: those of one structure share its total charge however far apart."""
    first, second = fragments(model)
    one, two, both = model.answers([first, second, first + second])
    if model.long_range:
        own = [
            answer["energy"] - coulomb(model, frame, answer["charges"])
            for frame, answer in zip((first, second, first + second), (one, two, both), strict=True)
        ]
        assert close(own[0] + own[1], own[2], model.tolerance)
        return
    for name, law in model.laws.items():
        if name in SHARED_CHARGE and model.global_charge:
            continue
        separate = torch.cat([one[name], two[name]]) if law.per == "atom" else one[name] + two[name]
        assert close(separate, both[name], model.tolerance), name


@pytest.mark.parametrize("name", LONG_RANGE)
def test_neutral_twins_attract_as_dipoles(name: str) -> None:
    """Two equal molecules share Q = 0 equally: what is left between them falls as 1/R^3.

    Different ones would exchange charge at any distance, in charge equilibration as in the
    uniform correction: E(R) then falls to its limit as 1/R, which is not the sum of the parts.
    Free charges of a fragment need not sum to zero, and interact as q q / R.
    """
    model = in_double(potential(name))
    first = neutral(model, rattled(molecule("H2O")))
    gaps = (30.0, 60.0)
    pairs = []
    for gap in gaps:
        second = first.copy()
        second.positions += [gap, 0.0, 0.0]
        pairs.append(first + second)
    alone, *together = model.answers([first, *pairs])
    differences = [float(answer["energy"] - 2 * alone["energy"]) for answer in together]
    if model.global_charge:
        assert abs(differences[0]) > 1e-8
        assert differences[0] / differences[1] == pytest.approx(8.0, rel=0.1)
    else:
        total = float(alone["charges"].sum())
        assert abs(total) > 1e-2
        for gap, difference in zip(gaps, differences, strict=True):
            expected = COULOMB_CONSTANT * total**2 / gap
            assert difference == pytest.approx(expected, rel=2e-2)


def lone(element: str, model: Potential, *, charge: int, periodic: bool) -> Atoms:
    """Return one atom under every condition, for each head in turn."""
    atoms = Atoms(element, cell=[9, 9, 9], pbc=True) if periodic else Atoms(element)
    return impose(model, atoms, seed=ELEMENTS.index(element), charge=charge)


def test_an_isolated_atom_is_e0_exactly(model: Potential) -> None:
    """Whatever it is told. (A charged one in a periodic box repels its images, of course.)"""
    frames, expected = [], []
    for species, element in enumerate(model.config.elements):
        for charge, periodic in ((1, False), (0, True)):
            frames.append(lone(element, model, charge=charge, periodic=periodic))
            expected.append(model.model.head(frames[-1].info["head"]).e0[species].item())
    answers = model.answers(frames)
    assert [answer["energy"].item() for answer in answers] == expected
    assert not any(answer["forces"].any() for answer in answers)
    for answer in answers:
        for name in model.laws:
            assert name == "stress" or answer[name].isfinite().all() or name in SHARED_CHARGE, name


def test_dissociation_ends_at_the_sum_of_e0(model: Potential) -> None:
    rounding = model.tolerance if model.config.dtype == "float32" else 0.0  # of f_c near 0
    for gap, bound in ((CUTOFF, 1e-12), (CUTOFF - 1e-3, 1e-6 + rounding)):
        dimer = neutral(model, Atoms("CO", positions=[[0, 0, 0], [0, 0, gap]]))
        e0 = model.model.head(dimer.info["head"]).e0
        assert abs(model.energies([dimer]) - e0[1] - e0[2]) < bound


def leaving_atom(model: Potential, gap: float) -> Atoms:
    """Return water with a carbon atom `gap` above its topmost atom, the others well below that."""
    atoms = rattled(molecule("H2O"))
    top = atoms.positions[atoms.positions[:, 2].argmax()]
    return neutral(model, atoms + Atoms("C", positions=[top + np.array([0.0, 0.0, gap])]))


def test_an_atom_leaves_without_a_jump(model: Potential) -> None:
    """Beyond the cutoff it is alone; just inside its force grows as (r_c - r)^2."""
    if model.long_range:
        pytest.skip("long-range interactions have no end")
    model = in_double(model)
    outside = leaving_atom(model, CUTOFF)
    water = outside[:3]
    carbon = model.model.head(outside.info["head"]).e0[1]
    near, nearer = (leaving_atom(model, CUTOFF - gap) for gap in (0.002, 0.001))
    asked = [water, outside, near, nearer]
    water_answer, answer, *inside = model.answers(asked, ["energy", "forces"])
    assert close(answer["energy"], water_answer["energy"] + carbon)
    assert close(answer["forces"][:3], water_answer["forces"])
    assert not answer["forces"][3].any()
    ratio = inside[0]["forces"][3].norm() / inside[1]["forces"][3].norm()
    assert ratio.item() == pytest.approx(4.0, rel=0.05)


def test_energy_forces_and_hessian_are_continuous_at_the_cutoff(model: Potential) -> None:
    """Extrapolated to r_c from either side they meet; the last edge's Hessian falls to zero."""
    model = in_double(model)
    step = 1e-4
    frames = [leaving_atom(model, CUTOFF + shift * step) for shift in (-2, -1, 1, 2)]
    answers = model.answers(frames, ["energy", "forces"])
    for answer, frame in zip(answers, frames, strict=True):
        answer["hessian"] = model.hessian(frame)
    for name in ("energy", "forces", "hessian"):
        inner, inside, outside, outer = (answer[name] for answer in answers)
        jump = (2 * outside - outer) - (2 * inside - inner)
        assert jump.abs().max() < 1e-6 * max(1.0, float(inside.abs().max())), name
    if not model.long_range:
        inner, inside, outside, _ = (answer["hessian"][3] for answer in answers)
        assert not outside.any()
        assert inside.abs().max() > 1e-6
        assert (inner.norm() / inside.norm()).item() == pytest.approx(2.0, rel=0.01)


def passing(model: Potential, offset: float) -> Atoms:
    """Return two molecules that pass each other."""
    visitor = rattled(molecule("H2O"))
    visitor.positions += [offset, 1.0, 1.0]
    return neutral(model, rattled(molecule("CH3OH")) + visitor)


def test_forces_are_continuous_while_edges_come_and_go(model: Potential) -> None:
    """Two fragments pass each other: every edge that appears does so with no force."""
    model = in_double(model)
    shifts, steps, stiffness = np.arange(2.0, 6.0, 0.5), (1e-3, 1e-5), 2e3  # eV/A^2
    offsets = [shift + sign * step for shift in shifts for step in steps for sign in (-1, 1)]
    frames = [passing(model, offset) for offset in offsets]
    answers = model.answers(frames, ["energy", "forces"])
    for start in range(0, len(answers), 4):
        changes = []
        for place, step in zip((start, start + 2), steps, strict=True):
            before, after = answers[place], answers[place + 1]
            change = float((before["forces"] - after["forces"]).abs().max())
            if not model.config.embeddings:
                assert change < 2 * step * stiffness
            slope = max(1.0, float(before["forces"].abs().max()))
            assert abs(before["energy"] - after["energy"]) < 2 * step * slope * 10
            changes.append(change)
        assert changes[1] < 0.02 * changes[0] + 1e-9  # a hundredth of the step


def test_atoms_beyond_the_receptive_field_do_not_count(model: Potential) -> None:
    """A chain's first atom feels what is num_layers cutoffs away, and nothing farther."""
    if model.long_range:
        pytest.skip("long-range interactions have no end")
    model = in_double(model)
    reach = model.config.num_layers
    spacing = 0.75 * CUTOFF / 2  # two bonds are a hop, three are not
    chain = Atoms("C" * 9, positions=[[spacing * k, 0.1 * (k % 2), 0.05 * k] for k in range(9)])
    neutral(model, chain)
    far = chain.copy()
    far.positions[2 * reach + 1] += [0.0, 0.2, 0.1]
    near = chain.copy()
    near.positions[2 * reach] += [0.0, 0.2, 0.1]
    names = ["node_energy", "descriptors"]
    before, unseen, seen = model.answers([chain, far, near], names)
    for name in names:
        assert close(before[name][0], unseen[name][0], 1e-14), name
        assert (before[name][0] - seen[name][0]).abs().max() > 1e-11, name


def test_conditions_of_a_lone_atom_do_not_move_it() -> None:
    """E0 is that of the free atom: the energy of its charge or its moment in a field is not."""
    for name in ("everything", "invariants", "exchange"):
        model = potential(name)
        frames = []
        for seed in range(3):
            atom = Atoms("O")
            for condition, value in conditions_of(1, seed=seed, charge=seed).items():
                if reads(model, condition):
                    give(atom, condition, value)
            frames.append(atom)
        energies = model.energies(frames)
        assert len(set(energies.tolist())) == 1
