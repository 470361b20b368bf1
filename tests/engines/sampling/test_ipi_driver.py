"""A real i-PI, started from inputs as a user would write them, served by our driver."""

import ast
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from tace_al.core.errors import SamplerError
from tace_al.core.units import GPA, HARTREE
from tace_al.engines.sampling import ipi_driver
from tace_al.engines.sampling.ipi_address import InetAddress, UnixAddress, unix_address
from tace_al.engines.sampling.ipi_driver import Driver, DriverSettings
from tace_al.engines.sampling.potential import CalculatorPotential, Potential
from tace_al.model.prediction import Prediction

pytestmark = [pytest.mark.ipi, pytest.mark.slow]
SETTINGS = DriverSettings(connections=4, wait_s=30.0, idle_s=30.0)

# Written by hand: none of this comes from ipi_input.py.
INPUT = """
<simulation verbosity='low' sockets_prefix='{prefix}'>
  <output prefix='run'>
    <properties stride='1' filename='out'>
      [ step, potential{{electronvolt}}, pressure_md{{gigapascal}} ] </properties>
    <trajectory stride='1' filename='extras' extra_type='raw'> extras </trajectory>
    <trajectory stride='1' filename='spread' extra_type='force_spread_ev_per_angstrom'> extras
    </trajectory>
    <checkpoint stride='5' filename='checkpoint' overwrite='True'/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> 7 </seed></prng>
  <ffsocket name='any' mode='{mode}' pbc='False'>
    <address> {address} </address> {more}
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase'> start.xyz </file>
      <velocities mode='thermal' units='kelvin'> 200 </velocities>
    </initialize>
    <forces><force forcefield='any'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 1 </timestep>
        <thermostat mode='{thermostat}'><tau units='femtosecond'> 50 </tau></thermostat>
      </dynamics>
    </motion>
    <ensemble><temperature units='kelvin'> 200 </temperature></ensemble>
  </system>
</simulation>
"""


class HandWrittenRun:
    """An i-PI that was started from the shell, in its own folder."""

    def __init__(self, folder: Path, atoms: Atoms) -> None:
        self.folder, self.atoms = folder, atoms
        self.address = UnixAddress(path=folder / "s")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, beads: int = 1, steps: int = 20, thermostat: str = "langevin", **more: str):
        """Start it."""
        self.atoms.write(self.folder / "start.xyz", format="extxyz")
        text = INPUT.format(
            prefix=more.get("prefix", f"{self.folder}/"),
            mode=more.get("mode", "unix"),
            address=more.get("address", "s"),
            more=more.get("more", ""),
            beads=beads,
            steps=steps,
            thermostat=thermostat,
        )
        (self.folder / "input.xml").write_text(text)
        self.launch()

    def launch(self) -> None:
        """Start i-PI on the input that is there."""
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "i-pi", "input.xml"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def properties(self) -> np.ndarray:
        """Return the rows of its output once it has ended."""
        assert self.process is not None and self.process.wait(30) == 0, self.log()
        return np.loadtxt(self.folder / "run.out", ndmin=2)

    def log(self) -> str:
        """Return what it said."""
        return (self.folder / "log").read_text()


@pytest.fixture
def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture
def run(copper: Atoms) -> Iterator[HandWrittenRun]:
    with tempfile.TemporaryDirectory() as folder:
        started = HandWrittenRun(Path(folder), copper)
        yield started
        if started.process is not None:
            started.process.kill()
            started.process.wait()


class Members(Potential):
    """EMT as a committee of two that disagree by known amounts."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.truth = CalculatorPotential(EMT())

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        self.batches.append(len(frames))
        return [self._split(one) for one in self.truth.predict(frames)]

    def _split(self, one: Prediction) -> Prediction:
        shift = np.zeros_like(one.member_forces[0])
        shift[0, 0] = 0.1
        energy = one.member_energies[0]
        return replace(
            one,
            member_energies=np.array([energy - 0.02, energy + 0.02]),
            member_forces=np.array([one.member_forces[0] - shift, one.member_forces[0] + shift]),
        )


@pytest.mark.parametrize("more", ["", "<consolidate_messages> False </consolidate_messages>"])
def test_beads_of_a_step_are_evaluated_together(run: HandWrittenRun, more: str) -> None:
    run.start(beads=4, steps=12, thermostat="svr", more=more)
    potential = Members()
    served = Driver(potential, run.atoms, run.address, settings=SETTINGS).serve()

    assert served.ended == "exit", run.log()
    assert served.structures == 4 * 13
    assert potential.batches.count(4) >= 10
    assert run.properties()[-1, 0] == 12


def test_extras_are_json_with_every_member_and_the_spread_of_every_atom(
    run: HandWrittenRun,
) -> None:
    run.start(beads=2, steps=3, more="<batch_size> 2 </batch_size>")
    potential = Members()
    Driver(potential, run.atoms, run.address, settings=SETTINGS).serve()
    run.properties()

    assert potential.batches == [2] * 4
    for bead in range(2):
        lines = (run.folder / f"run.extras_{bead}").read_text().splitlines()
        found = [
            json.loads(ast.literal_eval(line)["raw"][bead]) for line in lines if line[0] == "{"
        ]
        assert len(found) == 4
        for extras in found:
            assert len(extras["committee_force"]) == len(extras["committee_pot"]) == 2
            assert extras["energy_spread_ev"] == pytest.approx(0.02)
            assert extras["max_force_spread_ev_per_angstrom"] == pytest.approx(0.1)
        spreads = np.loadtxt(run.folder / f"run.spread_{bead}")
        np.testing.assert_allclose(spreads, [[0.1, 0.0, 0.0, 0.0]] * 4, atol=1e-9)


def test_the_committee_is_understood_by_ipi_itself(run: HandWrittenRun) -> None:
    run.start(beads=2, steps=2)
    assert run.process is not None
    run.process.kill()  # its input is made into another
    text = (run.folder / "input.xml").read_text()
    socket = text[text.index("<ffsocket") : text.index("</ffsocket>") + len("</ffsocket>")]
    name = f"tace-al-test-{os.getpid()}"  # i-PI gives inner sockets no prefix but its own
    inner = socket.replace("name='any'", "name='inner'").replace("> s <", f"> {name} <")
    committee = f"<ffcommittee name='any'><parse_json>True</parse_json>{inner}</ffcommittee>"
    text = text.replace(socket, committee).replace(
        "extra_type='force_spread_ev_per_angstrom'", "extra_type='committee_uncertainty'"
    )
    run.process.wait()
    (run.folder / "input.xml").write_text(text)
    run.launch()
    Driver(Members(), run.atoms, unix_address(name), settings=SETTINGS).serve()
    run.properties()

    found = np.loadtxt(run.folder / "run.spread_0") * HARTREE
    np.testing.assert_allclose(found, 0.02 * np.sqrt(2.0), rtol=1e-6)  # i-PI's has n - 1 below


def test_energy_and_pressure_of_a_crystal_are_those_of_its_calculator(run: HandWrittenRun) -> None:
    run.start(steps=2)
    Driver(CalculatorPotential(EMT()), run.atoms, run.address, settings=SETTINGS).serve()
    rows = run.properties()

    run.atoms.calc = EMT()
    assert rows[0, 1] == pytest.approx(run.atoms.get_potential_energy(), abs=1e-5)
    static = -np.trace(run.atoms.get_stress(voigt=False)) / 3.0 / GPA
    first = run.log()
    assert "error" not in first.lower()
    kinetic = rows[0, 2] - static  # what is left is that of the drawn momenta, 3 N kT / (3 V)
    volume = run.atoms.get_volume()
    expected = len(run.atoms) * 8.617e-5 * 200 / volume / GPA
    assert 0.1 * expected < kinetic < 4.0 * expected


def test_a_driver_that_is_killed_is_replaced_by_another_and_the_run_completes(
    run: HandWrittenRun,
) -> None:
    run.start(beads=4, steps=60)
    begun = multiprocessing.get_context("fork").Semaphore(0)

    def slow(frames: Sequence[Atoms], predictions: Sequence[Prediction]) -> None:
        begun.release()
        time.sleep(0.1)

    first = multiprocessing.get_context("fork").Process(
        target=Driver(Members(), run.atoms, run.address, settings=SETTINGS, observe=slow).serve
    )
    first.start()
    for _ in range(10):
        assert begun.acquire(timeout=30)
    first.kill()  # while it computes: it sleeps before it answers
    first.join()

    potential = Members()
    served = Driver(potential, run.atoms, run.address, settings=SETTINGS).serve()
    assert served.ended == "exit"
    assert run.properties()[-1, 0] == 60
    assert served.structures >= 4 * 45


def test_a_server_that_is_killed_ends_its_driver(run: HandWrittenRun) -> None:
    run.start(beads=2, steps=10_000)
    assert run.process is not None
    process = run.process
    rounds = 0

    def kill_soon(frames: Sequence[Atoms], predictions: Sequence[Prediction]) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            process.send_signal(signal.SIGKILL)

    begin = time.monotonic()
    driver = Driver(
        CalculatorPotential(EMT()), run.atoms, run.address, settings=SETTINGS, observe=kill_soon
    )
    assert driver.serve().ended == "lost"
    assert time.monotonic() - begin < 20.0


def test_an_inet_server_that_comes_late_is_waited_for(run: HandWrittenRun) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    late = threading.Timer(
        0.3,
        run.start,
        kwargs={
            "steps": 2,
            "mode": "inet",
            "address": "127.0.0.1",
            "more": f"<port> {port} </port>",
        },
    )
    late.start()
    served = Driver(
        CalculatorPotential(EMT()),
        run.atoms,
        InetAddress(host="127.0.0.1", port=port),
        settings=SETTINGS,
    ).serve()
    late.join()
    assert served.structures == 3
    assert run.properties()[-1, 0] == 2


def test_another_number_of_atoms_is_refused(run: HandWrittenRun) -> None:
    run.start(steps=2)
    with pytest.raises(SamplerError, match="sends 4 atoms and the template has 1"):
        Driver(CalculatorPotential(EMT()), Atoms("Cu"), run.address, settings=SETTINGS).serve()


def test_a_listener_that_says_nothing_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, copper: Atoms
) -> None:
    monkeypatch.setattr(ipi_driver, "GREETING_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = InetAddress(host="127.0.0.1", port=mute.getsockname()[1])
        settings = DriverSettings(wait_s=0.1)
        with pytest.raises(SamplerError, match="has not said a word for"):
            Driver(CalculatorPotential(EMT()), copper, address, settings=settings).serve()
