"""Conditions act, where a model reads them, and nowhere else; without them nothing is guessed."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from potentials import CUTOFF, POTENTIALS, Potential, close, in_double, potential, reads
from structures import PER_ATOM, conditions_of, ethanol, give, impose, rattled

from tace_al.core.errors import DataError, ModelError
from tace_al.data.conditions import CONDITIONS
from tace_al.model.calculator import CommitteeCalculator, TaceCalculator
from tace_al.model.committee import Committee
from tace_al.model.config import FIDELITY
from tace_al.model.tace import Tace

READ = [
    (name, condition)
    for name in POTENTIALS
    for condition in CONDITIONS
    if reads(potential(name), condition)
]
VECTORS = ("magnetic_moments", "magnetic_field", "electric_field")
"""Conditions of which zero is the same as none."""


def charges_alone(model: Potential, condition: str) -> bool:
    """Whether a total charge is shared out without any effect on the energy."""
    return condition not in model.config.embeddings and not model.long_range


def without(atoms: Atoms, condition: str) -> Atoms:
    """Return a structure that does not say a condition."""
    after = atoms.copy()
    (after.arrays if condition in PER_ATOM else after.info).pop(condition)
    return after


@pytest.mark.parametrize(("name", "condition"), READ)
def test_every_condition_that_is_read_acts(name: str, condition: str) -> None:
    """On energy, forces and descriptors: its value, and whether it is there at all."""
    model = in_double(potential(name))
    atoms = impose(model, ethanol(), seed=3, charge=1)
    other = give(atoms.copy(), condition, conditions_of(9, seed=7, charge=-1)[condition])
    names = ["energy", "forces", "descriptors"]
    frames = [atoms, other, without(atoms, condition)]
    first, second, absent = model.answers(frames, names)
    if charges_alone(model, condition):
        charges = [a["charges"] for a in model.answers(frames, ["charges"])]
        assert (charges[0] - charges[1]).abs().max() > 1e-2
        assert close(first["energy"], second["energy"])
        return
    for changed in (second, absent):
        assert abs(first["energy"] - changed["energy"]) > 1e-6
        assert (first["forces"] - changed["forces"]).abs().max() > 1e-6
        differs = (first["descriptors"] - changed["descriptors"]).abs().max() > 1e-6
        assert differs == (condition in model.config.embeddings)


@pytest.mark.parametrize(("name", "condition"), READ)
def test_not_a_number_means_absent(name: str, condition: str) -> None:
    model = potential(name)
    atoms = impose(model, ethanol(), seed=3, charge=1)
    absent = without(atoms, condition)
    value = np.full_like(np.asarray(conditions_of(9, seed=3)[condition], dtype=float), np.nan)
    unknown = give(atoms.copy(), condition, float(value) if value.ndim == 0 else value)
    frames = [absent, unknown]
    if condition in VECTORS:
        frames.append(give(atoms.copy(), condition, np.zeros_like(value)))
    expected, *answers = model.answers(frames)
    for answer in answers:
        for output in model.laws:
            assert close(expected[output], answer[output], model.tolerance), output


def test_conditions_that_are_not_read_are_nothing(model: Potential) -> None:
    atoms = impose(model, ethanol(), seed=3)
    told = atoms.copy()
    for condition, value in conditions_of(9, seed=5, charge=1).items():
        if not reads(model, condition):
            give(told, condition, value)
    before, after = model.answers([atoms, told])
    for name in model.laws:
        assert close(before[name], after[name], model.tolerance), name


@pytest.mark.parametrize("name", [n for n in POTENTIALS if reads(potential(n), "initial_charges")])
def test_conditions_of_atoms_act_where_they_are(name: str) -> None:
    """Telling one atom changes its neighbours, and no atom beyond the receptive field."""
    model = in_double(potential(name))
    if model.long_range:
        pytest.skip("charges feel one another at any distance")
    far = rattled(molecule("H2O"))
    far.positions += [40.0, 0.0, 0.0]
    atoms = impose(model, rattled(molecule("H2O")) + far, seed=3)
    told = atoms.copy()
    told.arrays["initial_charges"][0] += 0.7
    before, after = model.answers([atoms, told], ["node_energy"])
    change = (before["node_energy"] - after["node_energy"]).abs()
    assert (change[:3] > 1e-7).all()
    assert change[3:].max() < 1e-14


def test_the_sign_of_a_collinear_moment_is_of_no_meaning() -> None:
    model = potential("invariants")
    atoms = impose(model, ethanol(), seed=3)
    flipped = atoms.copy()
    flipped.arrays["collinear_moments"][0] *= -1
    before, after = model.answers([atoms, flipped])
    for name in model.laws:
        assert close(before[name], after[name]), name


@pytest.mark.parametrize("name", ["invariants", "everything"])
def test_the_trunk_knows_the_head_it_works_for(name: str) -> None:
    model = in_double(potential(name))
    assert FIDELITY in model.config.embeddings
    frames = []
    for head in model.config.heads:
        frames.append(impose(model, ethanol(), seed=3))
        frames[-1].info["head"] = head
    features = [answer["descriptors"] for answer in model.answers(frames, ["descriptors"])]
    for first in range(3):
        for second in range(first):
            assert (features[first] - features[second]).abs().max() > 1e-3


def network(**options: object) -> Tace:
    """Return a small network with weights that embeddings act through."""
    shape: dict = {"cutoff": CUTOFF, "channels": 4, "dtype": "float64", "radial_hidden": (8,)}
    model = Tace.from_preset("tiny", elements=["H", "C", "O"], seed=3, **(shape | options))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    return model


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_required_condition_is_asked_for_by_name(condition: str) -> None:
    embeddings = (condition, "magnetic_moments") if condition == "magnetic_field" else (condition,)
    model = network(embeddings=embeddings, required_conditions=(condition,))
    place = "arrays" if CONDITIONS[condition].per == "atom" else "info"
    atoms = molecule("CH3CH2OH")
    atoms.calc = TaceCalculator(model)
    with pytest.raises(ModelError, match=rf'{condition} on every.*atoms\.{place}\["{condition}"\]'):
        atoms.get_potential_energy()
    give(atoms, condition, conditions_of(9, seed=1)[condition])
    energy = atoms.get_potential_energy()
    committee = Committee([model, model])
    assert committee.predict([atoms])[0].energy == pytest.approx(energy, abs=1e-10)
    with pytest.raises(ModelError, match=rf'atoms\.{place}\["{condition}"\]'):
        committee.predict([atoms, molecule("CH4")])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_calculator_notices_a_changed_condition(condition: str) -> None:
    """ASE watches positions and elements only; a stale energy would be a silent error."""
    embeddings = (condition, "magnetic_moments") if condition == "magnetic_field" else (condition,)
    model = network(embeddings=embeddings)
    for calculator in (TaceCalculator(model), CommitteeCalculator(Committee([model, model]))):
        atoms = ethanol()
        if condition == "magnetic_field":
            give(atoms, "magnetic_moments", conditions_of(9, seed=2)["magnetic_moments"])
        atoms.calc = calculator
        before = atoms.get_potential_energy()
        give(atoms, condition, conditions_of(9, seed=2, charge=1)[condition])
        if condition not in PER_ATOM and np.ndim(atoms.info[condition]):
            atoms.get_potential_energy()
            atoms.info[condition] *= 1.5  # the same array, with other numbers
        after = atoms.get_potential_energy()
        assert abs(after - before) > 1e-9
        fresh = atoms.copy()
        fresh.calc = TaceCalculator(model)
        assert after == pytest.approx(fresh.get_potential_energy(), abs=1e-10)


def test_conditions_that_make_no_sense_are_refused() -> None:
    model = potential("invariants")
    cases = [
        ("total_charge", 0.5, "not an integer"),
        ("spin_multiplicity", 0, "not an integer from 1"),
        ("electronic_temperature", -10.0, "negative"),
        ("initial_charges", np.full(9, np.inf), "infinite"),
    ]
    for condition, value, message in cases:
        with pytest.raises((ModelError, DataError), match=message):
            model.answers([give(ethanol(), condition, value)])


def test_a_wire_has_no_ewald_sum() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.pbc = (True, False, False)
    with pytest.raises(ModelError, match="periodic in one direction"):
        potential("equilibrated").answers([atoms])
