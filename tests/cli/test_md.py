import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import write

from tace_al.cli.dynamics import DynamicsPlan
from tace_al.cli.ramp import responses
from tace_al.core.units import GPA
from tace_al.data.extxyz import read_structures
from tace_al.engines.sampling.recorded_run import read_log
from tace_al.model.checkpoint import save
from tace_al.model.tace import Tace


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    """Return the file of a small crystal of copper."""
    write(tmp_path / "cu.xyz", bulk("Cu", cubic=True), format="extxyz")
    return tmp_path / "cu.xyz"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_constant_energy_and_going_on(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["md", copper, "--calculator", "emt", "--ensemble", "nve", "--timestep", 4]
    arguments += ["--out", out, "--seed", 3]
    assert tace_al(*arguments, "--steps", 60).code == 0
    assert tace_al(*arguments, "--steps", 120).code == 0
    found = read(out / "md.json")
    assert found["outcome"] == "done" and found["steps"] == [120]
    assert found["conserved_noise_mev_per_atom"] < 0.5
    assert abs(found["conserved_drift_mev_per_atom_per_ps"]) < 0.5
    assert len(read_structures(out / "trajectory.xyz")) == 12
    assert read_log(out)["step"].tolist() == list(range(10, 121, 10))
    assert (out / "md.png").stat().st_size > 1000
    assert found["inputs"]["potential"]["calculator"] == "emt"

    other = tace_al(*arguments, "--steps", 120, "--temperature", 500)
    assert other.code == 2 and "temperature: 300.0, not 500.0" in other.err


def test_constant_pressure_with_copies(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    outcome = tace_al(
        *["md", copper, "--calculator", "emt", "--ensemble", "npt", "--pressure", 2],
        *["--temperature", 100, "--timestep", 4, "--steps", 150, "--walkers", 2, "--out", out],
        *["--pressure-period", 300],
    )
    assert outcome.code == 0, outcome.err
    found = read(out / "md.json")
    assert found["steps"] == [150, 150]
    assert found["mean_pressure_gpa"] == pytest.approx(2.0, abs=1.5)
    assert found["mean_volume_a3"] < bulk("Cu", cubic=True).get_volume()


def test_guards_end_a_run_and_keep_what_was_good(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    outcome = tace_al(
        *["md", copper, "--calculator", "emt", "--ensemble", "nve", "--temperature", 900],
        *["--timestep", 60, "--steps", 200, "--record-every", 1, "--out", out],
    )
    assert outcome.code == 2 and "broke" in outcome.err
    found = read(out / "md.json")
    assert found["outcome"] == "broken" and "at step" in found["reasons"][0]
    nothing = tace_al("md", copper)
    assert nothing.code == 2 and "nothing to calculate with" in nothing.err


@pytest.mark.slow
def test_a_pressure_ramp_gives_the_bulk_modulus(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    """EMT's copper has 134 GPa at rest and near 156 on average up to 10 GPa."""
    out = tmp_path / "run"
    outcome = tace_al(
        *["ramp", copper, "--calculator", "emt", "--temperature", 5, "--pressure", 0],
        *["--pressure-end", 10, "--timestep", 5, "--steps", 400, "--pressure-period", 300],
        *["--out", out, "--record-every", 5],
    )
    assert outcome.code == 0, outcome.err
    crystal = bulk("Cu", cubic=True)
    from ase.calculators.emt import EMT

    crystal.calc = EMT()
    volumes, pressures = [], []
    for strain in np.linspace(0.0, -0.03, 7):
        squeezed = crystal.copy()
        squeezed.set_cell(crystal.cell * (1 + strain), scale_atoms=True)
        squeezed.calc = EMT()
        volumes.append(squeezed.get_volume())
        pressures.append(-squeezed.get_stress()[:3].mean() * 160.21766)
    inside = np.array(pressures) < 11.0
    slope = np.polyfit(np.array(pressures)[inside], np.log(volumes)[inside], 1)[0]
    found = read(out / "ramp.json")["responses"]["bulk_modulus_gpa"]
    assert found == pytest.approx(-1.0 / slope, rel=0.08)
    refused = tace_al("ramp", copper, "--calculator", "emt")
    assert refused.code == 2 and "nothing changes" in refused.err


@pytest.mark.slow
def test_a_heating_ramp_gives_the_heat_capacity(
    tace_al: Callable[..., Any], copper: Path, tmp_path: Path
) -> None:
    """Dulong and Petit: 3 k an atom, less the three momenta of a crystal that does not drift."""
    out = tmp_path / "run"
    outcome = tace_al(
        *["ramp", copper, "--calculator", "emt", "--temperature", 10, "--temperature-end", 200],
        *["--timestep", 6, "--steps", 500, "--walkers", 3, "--friction", 0.02, "--out", out],
    )
    assert outcome.code == 0, outcome.err
    found = read(out / "ramp.json")["responses"]["heat_capacity_kb_per_atom"]
    potential = 1.5 * 3 / 4  # of four atoms, nine of twelve directions are springs
    assert found - 1.5 == pytest.approx(potential, rel=0.25)


def test_a_committee_says_what_it_does_not_know(
    tace_al: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "w.xyz", molecule("H2O"), format="extxyz")
    models = [tmp_path / "a.tace", tmp_path / "b.tace"]
    for seed, path in enumerate(models):
        save(Tace.from_preset("tiny", elements=["H", "O"], seed=seed), path)
    arguments = ["md", tmp_path / "w.xyz", *models, "--steps", 20, "--record-every", 5]
    outcome = tace_al(*arguments, "--out", tmp_path / "run", "--temperature", 50)
    assert outcome.code == 0, outcome.err
    assert (read_log(tmp_path / "run")["uncertainty_ev_per_a"] > 0.0).all()
    assert len(read(tmp_path / "run" / "md.json")["inputs"]["potential"]["sha256"]) == 2
    stopped = tace_al(*arguments, "--out", tmp_path / "stopped", "--stop-above", 1e-9)
    assert stopped.code == 0, stopped.err
    found = read(tmp_path / "stopped" / "md.json")
    assert found["outcome"] == "stopped" and "error bar" in found["reasons"][0]


def test_a_start_that_differs_in_more_than_its_places_is_another_run(
    tace_al: Callable[..., Any], tmp_path: Path
) -> None:
    """Fixed atoms, masses and momenta decide the numbers too."""
    crystal, path = bulk("Cu", cubic=True), tmp_path / "cu.xyz"
    arguments = ["md", path, "--calculator", "emt", "--steps", 10, "--out", tmp_path / "run"]
    write(path, crystal, format="extxyz")
    assert tace_al(*arguments).code == 0
    held, moving, heavy = crystal.copy(), crystal.copy(), crystal.copy()
    held.set_constraint(FixAtoms(indices=[0]))
    moving.set_momenta(np.full((4, 3), 0.5))
    heavy.set_masses([65.0] * 4)
    for other in (held, moving, heavy):
        write(path, other, format="extxyz")
        refused = tace_al(*arguments)
        assert refused.code == 2 and "other settings (structure" in refused.err
    write(path, crystal, format="extxyz")
    assert tace_al(*arguments, "--steps", 20).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ensemble", "npt"], "not periodic in three directions"),
        (["--ensemble", "nve", "--pressure", "5"], "--pressure says nothing to ensemble nve"),
        (["--cell", "axes"], "--cell axes says nothing"),
        (["--ensemble", "nve", "--thermostat", "nose-hoover"], "take --ensemble nvt"),
        (["--record-every", "50"], "keeps nothing of 20 steps"),
        (["--equilibration", "30"], "leaves no frame"),
        (["--temperature", "-3"], "give more than 0"),
    ],
)
def test_options_that_cannot_act_are_refused(
    tace_al: Callable[..., Any], tmp_path: Path, options: list[str], words: str
) -> None:
    write(tmp_path / "w.xyz", molecule("H2O"), format="extxyz")
    arguments = ["md", tmp_path / "w.xyz", "--calculator", "emt", "--steps", 20]
    outcome = tace_al(*arguments, *options, "--out", tmp_path / "run")
    assert outcome.code == 2 and words in outcome.err


def test_responses_of_a_ramp_under_pressure_and_with_held_atoms() -> None:
    """dH/dT holds P dV/dT, and atoms that are held carry no momenta."""
    crystal = bulk("Cu", cubic=True)
    crystal.set_constraint(FixAtoms(indices=[0]))
    plan = DynamicsPlan(
        ensemble="npt", temperature=100.0, temperature_end=300.0, pressure_gpa=10.0, steps=100
    )
    share = np.linspace(0.0, 1.0, 11)
    log = {
        "step": 100 * share,
        "energy_ev": 0.02 * share,  # over 200 K
        "volume_a3": 48.0 + 0.5 * share,
        "temperature_k": 100.0 + 200.0 * share,
        "uncertainty_ev_per_a": 0.0 * share,
    }
    found = responses(log, plan, crystal)["responses"]["heat_capacity_kb_per_atom"]
    enthalpy = (0.02 + 10.0 * GPA * 0.5) / 200.0 / units.kB
    assert found == pytest.approx((enthalpy + 1.5 * 3) / 4)
