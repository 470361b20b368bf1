import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from tace_al.core.errors import ConfigError
from tace_al.engines.sampling.bias import BiasedPotential, HillBias, UpperWall
from tace_al.engines.sampling.collective_variables import collective_variable
from tace_al.engines.sampling.metadynamics_sampler import hill_bias, upper_walls
from tace_al.engines.sampling.potential import CalculatorPotential
from tace_al.engines.sampling.sampler import predicted_frame


def rattled(seed: int = 0) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions += 0.1 * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    return atoms


def periodic() -> Atoms:
    """Return a crystal whose atom 0 has its neighbour 3 across the boundary."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.positions += 0.1 * np.random.default_rng(1).standard_normal(atoms.positions.shape)
    atoms.positions[0] -= [0.4, 0.3, 0.2]
    atoms.wrap()
    return atoms


VARIABLES = ("distance:0,1", "difference:0,1,2", "coordination:O,H,1.2", "coordination:0,H,1.5")


@pytest.mark.parametrize("text", [*VARIABLES, "coordination:Cu,Cu,3.0"])
def test_gradients_are_finite_differences(text: str) -> None:
    atoms = periodic() if "Cu" in text else rattled()
    variable = collective_variable(text, atoms)
    _, gradient = variable.evaluate(atoms)
    for atom, axis in ((0, 0), (1, 2), (2, 1), (len(atoms) - 1, 0)):
        values = []
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * 1e-5
            values.append(variable.evaluate(moved)[0])
        assert gradient[atom, axis] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-7)
    assert np.abs(gradient.sum(axis=0)).max() < 1e-12


def test_distances_and_contacts_see_the_nearest_image() -> None:
    atoms = Atoms("Cu2", [[0.2, 0, 0], [9.8, 0, 0]], cell=[10.0] * 3, pbc=True)
    assert collective_variable("distance:0,1", atoms).evaluate(atoms)[0] == pytest.approx(0.4)
    contacts = collective_variable("coordination:Cu,Cu,0.4", atoms).evaluate(atoms)[0]
    assert contacts == pytest.approx(0.5)


def test_bias_forces_are_minus_the_gradient_of_the_bias() -> None:
    atoms = rattled()
    bias = hill_bias(("distance:0,1", "coordination:O,H,1.2"), (0.1, 0.2), atoms)
    place = bias.values(atoms)
    for shift in ([0.05, 0.1], [-0.1, 0.2], [0.0, -0.1]):
        bias.add(place + shift, 0.05)
    wall = UpperWall(variable=bias.variables[0], limit=float(place[0]) - 0.1)
    for part in (bias, wall):
        _, forces = part.evaluate(atoms)
        energies = []
        for sign in (1.0, -1.0):
            moved = atoms.copy()
            moved.positions[1] += sign * 1e-5 * np.array([1.0, -0.5, 2.0])
            energies.append(part.evaluate(moved)[0])
        slope = (energies[0] - energies[1]) / 2e-5
        assert -forces[1] @ [1.0, -0.5, 2.0] == pytest.approx(slope, abs=1e-7)
        assert np.abs(forces).max() > 1e-3
    assert bias.evaluate(atoms)[0] == pytest.approx(bias.at(place[None])[0])
    assert bias.evaluate(atoms)[0] == pytest.approx(
        sum(
            0.05 * np.exp(-0.5 * ((a / 0.1) ** 2 + (b / 0.2) ** 2))
            for a, b in ([0.05, 0.1], [-0.1, 0.2], [0.0, -0.1])
        )
    )


def test_a_bias_comes_off_a_frame_again() -> None:
    atoms = molecule("H2O")
    bias = hill_bias(("distance:0,1",), (0.1,), atoms)
    for index in range(40):  # more than there is room for at first
        bias.add(bias.values(atoms) + 0.01 * index, 0.02)
    plain = CalculatorPotential(EMT())
    biased = BiasedPotential(plain, [bias])
    frame = predicted_frame(atoms, biased.predict([atoms])[0])
    expected = plain.predict([atoms])[0]
    assert frame.info["energy"] > expected.energy + 0.2
    biased.unbias(frame)
    assert frame.info["energy"] == pytest.approx(expected.energy)
    assert np.allclose(frame.arrays["forces"], expected.forces)
    assert frame.info["bias_energy"] > 0.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distanse:0,1", "Did you mean 'distance'"),
        ("distance:0", "takes 2"),
        ("distance:0,9", "no atom of H2O"),
        ("distance:1,1", "twice"),
        ("coordination:O,C,1.2", "there is no C"),
        ("coordination:O,H,x", "no distance"),
    ],
)
def test_one_sentence_for_a_wrong_variable(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        collective_variable(text, molecule("H2O"))


def test_refusals() -> None:
    bias = hill_bias(("distance:0,1",), (), molecule("H2O"))
    for text in ("1:2.0", "0", "0:x", "-1:2.0"):
        with pytest.raises(ConfigError, match="is no wall"):
            upper_walls((text,), bias)
    with pytest.raises(ConfigError, match="1 collective variables and 2 widths"):
        HillBias(bias.variables, (0.1, 0.2))
