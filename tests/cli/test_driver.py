"""`tace-al driver`: what it refuses in one sentence, and a run with a real i-PI."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ase.build import bulk

TaceAl = Callable[..., "object"]
INPUT = """
<simulation verbosity='low' sockets_prefix='{folder}/'>
  <output prefix='run'><properties filename='out'> [ step, potential ] </properties></output>
  <total_steps> {steps} </total_steps>
  <ffsocket name='any' mode='unix' pbc='False'><address> s </address></ffsocket>
  <system>
    <initialize nbeads='3'><file mode='ase'> start.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities></initialize>
    <forces><force forcefield='any'/></forces>
    <motion mode='dynamics'><dynamics mode='nve'>
      <timestep units='femtosecond'> 1 </timestep></dynamics></motion>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
  </system>
</simulation>
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:  # short enough for a socket
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.02, seed=2)
        atoms.write(Path(path) / "start.xyz", format="extxyz")
        yield Path(path)


@pytest.fixture
def server(folder: Path) -> Iterator[Callable[[int], "subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(steps: int) -> "subprocess.Popen[bytes]":
        (folder / "input.xml").write_text(INPUT.format(folder=folder, steps=steps))
        with (folder / "log").open("wb") as log:
            command = [str(Path(sys.executable).parent / "i-pi"), "input.xml"]
            started.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.ipi
@pytest.mark.slow
def test_a_run_is_served_to_its_end(
    tace_al: TaceAl, folder: Path, server: Callable[[int], "subprocess.Popen[bytes]"]
) -> None:
    process = server(4)
    ended = tace_al(
        "driver",
        "--calculator",
        "emt",
        "--socket",
        "s",
        "--directory",
        folder,
        "--template",
        folder / "start.xyz",
    )
    assert ended.code == 0, ended.err
    assert "the server is done: 15 structures in" in ended.out
    assert process.wait(20) == 0


@pytest.mark.ipi
@pytest.mark.slow
def test_a_server_that_is_killed_is_one_sentence(
    tace_al: TaceAl, folder: Path, server: Callable[[int], "subprocess.Popen[bytes]"]
) -> None:
    process = server(100_000)

    def kill_when_it_runs() -> None:
        out = folder / "run.out"
        while not (out.exists() and out.stat().st_size > 500):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_runs, daemon=True)
    killer.start()
    ended = tace_al(
        "driver",
        "--calculator",
        "emt",
        "--socket",
        folder / "s",
        "--template",
        folder / "start.xyz",
        "--idle",
        "60s",
    )
    assert ended.code == 2
    assert "closed the connection without a word" in ended.err
    assert "RESTART" in ended.err


def test_what_is_missing_or_wrong_is_one_sentence_each(tace_al: TaceAl, folder: Path) -> None:
    template = ("--template", folder / "start.xyz")
    emt = ("--calculator", "emt")
    cases = [
        ((*emt, *template), "give one address"),
        ((*emt, *template, "--socket", "a", "--port", "31415"), "give one address"),
        ((*emt, "--socket", "a"), "name the structure"),
        ((*template, "--socket", "a"), "nothing to calculate with"),
        ((*emt, *template, "--host", "192.0.2.1", "--port", "31415"), "is not this machine"),
        ((*emt, *template, "--socket", folder / "s", "--wait", "0.1s"), "no i-PI server came"),
        ((*emt, *template, "--socket", folder / "start.xyz"), "is not a socket"),
    ]
    for arguments, sentence in cases:
        ended = tace_al("driver", *arguments)
        assert ended.code == 2, arguments
        assert sentence in ended.err
        assert ended.err.count("\n") == 1
