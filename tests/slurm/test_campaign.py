"""A whole campaign on a live Slurm that loses a node, and then its main process."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tace_al.campaign.config import Campaign, Structure
from tace_al.dispatch.lifeline import folder_mark
from tace_al.dispatch.machine import Machine, machine_from_name
from tace_al.store.store import Store
from tace_al.workflows.reactions import REFERENCE_BARRIERS, ammonia_inversion

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.parsl, pytest.mark.campaign]

# An ASE calculator that notes every calculation before it starts; slow enough to be caught at it.
COUNTED = """
import hashlib, time
from pathlib import Path
from tblite.ase import TBLite

class Counted(TBLite):
    def __init__(self, log, charge=None, multiplicity=None):
        super().__init__(
            method="GFN2-xTB", verbosity=0, charge=charge, multiplicity=multiplicity
        )
        self.log = log

    def calculate(self, atoms=None, properties=None, system_changes=None):
        if system_changes:
            text = repr((atoms.numbers.tolist(), atoms.positions.tolist()))
            with Path(self.log).open("a") as log:
                log.write(hashlib.sha256(text.encode()).hexdigest() + "\\n")
            time.sleep(0.4)
        super().calculate(atoms, properties or ["energy"], system_changes or [])
"""


def machine_file(folder: Path) -> Path:
    """Write the machine as a user would: two nodes for labels, one for models."""
    block = {"cores_per_node": 4, "workers_per_node": 1, "walltime": "00:20:00"}
    content = {
        "worker_init": f"export PYTHONPATH={folder}:$PYTHONPATH",
        "slurm": {
            **block,
            "partition": "cpu",
            "max_blocks": 2,
            "address": "127.0.0.1",
            "longest_task_s": 300,
            "heartbeat_period_s": 1,
            "heartbeat_threshold_s": 6,
            "poll_period_s": 1,
        },
        "models": {**block, "partition": "gpu", "longest_task_s": 600},
    }
    path = folder / "three_nodes.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def tiny(machine: Machine, folder: Path) -> Campaign:
    """Return the inversion of ammonia, with labels that are counted in a file."""
    initial, final = (Structure.from_atoms(atoms) for atoms in ammonia_inversion())
    return Campaign.build(
        name="ammonia",
        reactions=[{"name": "inversion", "initial": initial, "final": final, "num_images": 5}],
        machine=machine,
        labeller={
            "name": "counted_labels:Counted",
            "options": {
                "log": str(folder / "calculations"),
                "charge_option": "charge",
                "multiplicity_option": "multiplicity",
            },
        },
        model={
            "options": {"channels": 8, "radial_hidden": [16]},
            "members": 2,
            "first_epochs": 20,
        },
        exploration={"walkers": 1, "steps": 20, "band_steps": 40},
        acquisition={"per_generation": 8},
        stopping={"max_labels": 40, "max_generations": 1},
    )


class Run:
    """`tace-al run` as a process of its own."""

    def __init__(self, slurm: Any, folder: Path) -> None:
        self.slurm, self.directory = slurm, folder / "run"
        self.output = folder / "output"
        (folder / "counted_labels.py").write_text(COUNTED)
        machine = machine_from_name(str(machine_file(folder)))
        (folder / "campaign.yaml").write_text(tiny(machine, folder).to_yaml())
        program = [sys.executable, "-m", "tace_al.cli.main", "-v", "run"]
        self.command = [*program, str(folder / "campaign.yaml"), "--dir", str(self.directory)]
        path = ":".join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**slurm.environment, "PYTHONPATH": path}
        environment.pop("TACE_AL_MONGO_URI", None)
        self.environment = environment

    def start(self) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self.command,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )

    def wait_until(self, process: subprocess.Popen[bytes], condition: Any, within_s: float) -> None:
        give_up = time.monotonic() + within_s
        while not condition():
            assert process.poll() is None, self.output.read_text()
            assert time.monotonic() < give_up, self.output.read_text()
            time.sleep(0.05)

    def running(self, kind: str) -> int:
        return len(list(self.directory.glob(f"results/{kind}/*/.scratch-*")))


def test_a_campaign_survives_a_lost_node_and_a_killed_main_process(slurm: Any) -> None:
    folder = slurm.folder / "campaign"
    folder.mkdir()
    run = Run(slurm, folder)
    process = run.start()

    # a node is lost while it labels: what its worker was at, and no more, is made again
    run.wait_until(process, lambda: run.running("relax") + run.running("label") == 2, 120.0)
    victim = next(node for node in slurm.jobs().values() if node in ("n1", "n2"))
    slurm.kill_node(victim)

    # the main process is killed while a committee is being trained
    run.wait_until(process, lambda: run.running("train") >= 1, 150.0)
    known = {path: path.stat().st_mtime_ns for path in run.directory.glob("labels/*.npz")}
    abandoned = slurm.jobs()
    process.kill()
    process.wait()
    assert "n3" in abandoned.values()

    process = run.start()
    assert process.wait(timeout=200) == 0, run.output.read_text()

    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in known.items())
    check_store(run.directory)
    counts = Counter((folder / "calculations").read_text().split())
    # one worker on the lost node, three when the main process died
    assert sum(counts.values()) - len(counts) <= 4

    slurm.wait_until(lambda: not slurm.jobs(), 60.0)  # Slurm has to notice the dead node
    slurm.wait_until(lambda: left_of(slurm) == [], 30.0)
    mark = folder_mark(run.directory)
    ended = {job["JobId"]: job for job in slurm.completed() if mark in job["Name"]}
    assert set(abandoned) <= set(ended)
    assert {job["JobState"] for job in ended.values()} <= {"CANCELLED", "NODE_FAIL", "COMPLETED"}


def check_store(directory: Path) -> None:
    """Check that the campaign finished and that every label is there once."""
    with Store.open(directory, create=False) as store:
        campaign = store.campaign()
        assert campaign.state == "finished"
        labels = store.labels(state=None)
        assert len({label.key for label in labels}) == len(labels) >= 10
        written = {path.stem for path in directory.glob("labels/*.npz")}
        assert {label.key for label in labels} <= written
        assert not store.candidates(state="running")
        barrier = campaign.result["barriers"]["inversion"]["barrier"]
        events = {event.message for event in store.events(kind="dispatch")}
        kinds = {event.data["task_kind"] for event in store.events(kind="task")}
    assert abs(barrier - REFERENCE_BARRIERS["ammonia_inversion"]) < 0.3
    assert "retried" in events  # what the lost node was at
    assert {"relax", "label", "train", "band"} <= kinds


def left_of(slurm: Any) -> list[list[str]]:
    """Return the command lines of what is left, the campaign's own database aside."""
    lines = []
    for process in slurm.processes():
        try:
            lines.append(process.cmdline())
        except psutil.Error:
            continue
    return [line for line in lines if "tace_al.store.embedded.server" not in line]
