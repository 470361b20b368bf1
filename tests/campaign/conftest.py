"""Campaigns small enough for tests: the inversion of ammonia with GFN2-xTB, a millisecond a label.

Networks of eight channels trained for seconds know little; what these runs show is that the loop
does what it says, not how good a barrier can be.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from tace_al.campaign.config import Campaign, Structure
from tace_al.campaign.loop import run_campaign
from tace_al.campaign.outcome import CampaignResult
from tace_al.cli.main import main
from tace_al.dispatch.lifeline import folder_mark, marked_processes
from tace_al.dispatch.machine import machine_from_name
from tace_al.store.connection import URI_VARIABLE
from tace_al.store.store import Store
from tace_al.workflows.reactions import ammonia_inversion

BuildCampaign = Callable[..., Campaign]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A campaign that ran to its end, its Store still open."""

    campaign: Campaign
    directory: Path
    result: CampaignResult
    output: str
    store: Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def ammonia(**parts: Any) -> Campaign:
    """Return a tiny campaign; each argument replaces or amends a part of it."""
    initial, final = (Structure.from_atoms(atoms) for atoms in ammonia_inversion())
    content: dict[str, Any] = {
        "name": "ammonia",
        "reactions": [{"name": "inversion", "initial": initial, "final": final, "num_images": 5}],
        "machine": machine_from_name("threads", workers=2),
        "model": {
            "options": {"channels": 8, "radial_hidden": [16]},
            "members": 2,
            "first_epochs": 30,
            "epochs": 10,
        },
        "exploration": {"walkers": 1, "steps": 30, "band_steps": 60},
        "stopping": {"max_labels": 45, "max_generations": 2},
    }
    for name, part in parts.items():
        amended = isinstance(part, dict) and isinstance(content.get(name), dict)
        content[name] = {**content[name], **part} if amended else part
    return Campaign.build(**content)


def run_here(campaign: Campaign, directory: Path) -> tuple[CampaignResult, str]:
    """Run a campaign in this process; return its result and what it printed."""
    text = io.StringIO()
    console = Console(file=text, width=200)
    return run_campaign(campaign, directory=directory, uri=None, console=console), text.getvalue()


@pytest.fixture(scope="session")
def tiny_campaign() -> BuildCampaign:
    """Return the function that builds tiny campaigns."""
    return ammonia


@pytest.fixture
def run(no_server: None) -> Callable[[Campaign, Path], tuple[CampaignResult, str]]:
    """Return the function that runs a campaign in this process."""
    return run_here


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that campaigns use their embedded databases."""
    monkeypatch.delenv(URI_VARIABLE, raising=False)


def finished_campaign(campaign: Campaign, directory: Path) -> Iterator[Finished]:
    """Run a campaign and keep its Store open for tests to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(URI_VARIABLE, raising=False)
        result, output = run_here(campaign, directory)
        with Store.open(directory, create=False) as store:
            yield Finished(
                campaign=campaign, directory=directory, result=result, output=output, store=store
            )


@pytest.fixture(scope="session")
def run_to_its_end() -> Callable[[Campaign, Path], Iterator[Finished]]:
    """Return the function that runs a campaign and keeps its Store open."""
    return finished_campaign


@pytest.fixture(scope="session")
def finished_in_threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Return a campaign of three generations that ran in threads: read it, never change it."""
    # many audits, so that every kind of candidate may occur
    campaign = ammonia(
        acquisition={"audit_share": 0.9, "low": 0.55, "per_generation": 8},
        model={"validation_share": 0.3},
        stopping={"max_labels": 60, "max_generations": 3},
    )
    yield from finished_campaign(campaign, tmp_path_factory.mktemp("threads") / "ammonia")


@pytest.fixture(scope="session")
def finished_in_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Return a campaign that ran on two worker processes: read it, never change it."""
    campaign = ammonia(machine=machine_from_name("local", workers=2))
    yield from finished_campaign(campaign, tmp_path_factory.mktemp("processes") / "ammonia")


@pytest.fixture
def tace_al(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Return a function that runs `tace-al` with the given arguments in this process."""

    def command(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tace-al", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(code=int(ended.value.code or 0), out=captured.out, err=captured.err)

    return command


class Program:
    """`tace-al run` as a process of its own, in its own session as from a terminal."""

    def __init__(self, campaign_file: Path, directory: Path, environment: dict[str, str]) -> None:
        self.campaign_file, self.directory = campaign_file, directory
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """Start the command, the same every time."""
        command = [sys.executable, "-m", "tace_al.cli.main", "run", str(self.campaign_file)]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self.environment,
        )
        return self.process

    def start_and_wait_for(self, pattern: str, number: int = 1) -> subprocess.Popen[str]:
        """Start and return once so many files or folders of the directory match a pattern."""
        process = self.start()
        known = set(self.directory.glob(pattern))
        give_up = time.monotonic() + 90.0
        while len(set(self.directory.glob(pattern)) - known) < number:
            if process.poll() is not None:
                raise AssertionError(f"ended too soon: {process.communicate()}")
            assert time.monotonic() < give_up, f"{pattern} never appeared"
            time.sleep(0.01)
        return process

    def kill(self) -> None:
        """Kill the main process alone, as `kill -9` does, and wait until its workers are gone."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.wait_for_workers()

    def wait_for_workers(self, within_s: float = 10.0) -> None:
        """Wait until no worker of the campaign lives."""
        give_up = time.monotonic() + within_s
        while list(marked_processes(f"{folder_mark(self.directory)}:")):
            assert time.monotonic() < give_up, "workers outlive their campaign"
            time.sleep(0.05)

    def interrupt(self) -> tuple[int, str, str]:
        """Press Ctrl-C, which a terminal sends to the whole group; return code and texts."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        return self.finish(30.0)

    def finish(self, within_s: float = 180.0) -> tuple[int, str, str]:
        """Wait for the end; return exit code, standard output and standard error."""
        assert self.process is not None
        try:
            out, err = self.process.communicate(timeout=within_s)
        finally:
            self.process.kill()
        return self.process.returncode, out, err

    def leftovers(self) -> list[str]:
        """Return the command lines of processes that name the campaign's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.directory) in line:
                found.append(line)
        return found


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[Campaign], Program]]:
    """Return a function that makes the program for a campaign; nothing of it outlives the test."""
    made = []

    def make(campaign: Campaign) -> Program:
        path = tmp_path / "campaign.yaml"
        path.write_text(campaign.to_yaml())
        made.append(Program(path, tmp_path / "run", {"PYTHONPATH": str(tmp_path)}))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.communicate()
