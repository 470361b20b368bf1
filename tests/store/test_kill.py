"""kill -9 at any instant, of the writers and of the database: what was acknowledged is there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tace_al.data.frames import structure_key
from tace_al.store.embedded.launch import stop_server
from tace_al.store.integrity import check_records
from tace_al.store.integrity_files import check_files
from tace_al.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_server_uri")]

WRITER = """
import sys
from pathlib import Path
import numpy as np
from ase.build import molecule
from tace_al.core.labels import Fidelity, Label
from tace_al.dispatch.label_file import write_label
from tace_al.store.store import Store

directory, lane = Path(sys.argv[1]), int(sys.argv[2])
fidelity = Fidelity(name="gfn2", code="tblite 0.8.0")
with Store.open(directory) as store:
    store.add_fidelity(fidelity)
    for number in range(10**6):
        atoms = molecule("NH3")
        atoms.rattle(0.1, seed=10**6 * lane + number)
        key = store.add_structure(atoms, channel="c", origin={"kind": "md"})
        print("structure", key, flush=True)
        store.add_candidate(key, kind="seed", channel="c", generation=0, state="queued")
        print("candidate", key, flush=True)
        for record in store.claim_candidates(f"lane-{lane}", 1):
            label = Label(
                structure_key=record.key,
                fidelity_key=fidelity.key,
                energy=-1.0,
                forces=np.zeros((4, 3)),
            )
            write_label(directory / "labels" / f"{label.key}.npz", label)
            store.add_label(label, fidelity_name="gfn2", role="train", generation=0)
            print("label", label.key, flush=True)
            store.move_candidate(record.key, source="running", target="labelled")
            print("labelled", record.key, flush=True)
        if number % 5 == 4:
            print("set", store.add_training_set([label.key]), flush=True)
"""


def test_nothing_acknowledged_is_lost_when_everything_is_killed(tmp_path: Path, read_file: Any):
    directory = tmp_path / "campaign"
    with Store.open(directory) as store:
        store.start_campaign("killed", {}, seed=0, code_version="0.1.0")
    try:
        told = [line for _ in range(2) for line in killed_after(directory, 2.0, lanes=2)]
        by_kind: dict[str, list[str]] = {}
        for kind, key in told:
            by_kind.setdefault(kind, []).append(key)
        assert len(by_kind["labelled"]) > 20
        with Store.open(directory, create=False) as store:
            found = check_records(store, running=False)
            found += check_files(store, running=False, read_label=read_file)
            assert [f for f in found if f.problem not in ("unread label", "lease")] == []
            candidates = {record.key: record.state for record in store.candidates()}
            assert set(by_kind["candidate"]) <= set(candidates)
            assert {candidates[key] for key in by_kind["labelled"]} == {"labelled"}
            assert set(by_kind["label"]) <= {record.key for record in store.labels()}
            for key in by_kind["structure"]:
                assert structure_key(store.structure(key)) == key
            for key in by_kind["set"]:
                assert len(store.training_set(key)) == 1
            sequence = [record.sequence for record in store.labels()]
            assert len(sequence) == len(set(sequence))
            running = [key for key, state in candidates.items() if state == "running"]
            assert len(running) <= 4, "at most what the killed lanes held"
            assert store.release_stale(0.0) == len(running)
    finally:
        stop_server(directory / "db")


def killed_after(directory: Path, seconds: float, *, lanes: int) -> list[tuple[str, str]]:
    """Have writers work for a while, kill them and their server; return what they were told."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), str(time.time_ns() % 1000 + lane)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for lane in range(lanes)
    ]
    first = [writer.stdout.readline() for writer in writers if writer.stdout]
    time.sleep(seconds)
    os.kill(json.loads((directory / "db/address.json").read_text())["pid"], signal.SIGKILL)
    for writer in writers:
        writer.kill()
    lines = first
    for writer in writers:
        # A line that the kill cut short was never said.
        lines += [line for line in writer.communicate()[0].splitlines(True) if line.endswith("\n")]
    words = [line.split() for line in lines]
    return [(kind, key) for kind, key in words]
