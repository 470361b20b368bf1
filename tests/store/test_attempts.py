"""A database that vanishes in the middle of a verb and comes back, or does not."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from tace_al.core.errors import DatabaseUnreachable
from tace_al.core.labels import Fidelity, Label
from tace_al.store.embedded.launch import ensure_server
from tace_al.store.store import Store

pytestmark = pytest.mark.usefixtures("no_server_uri")
GFN2 = Fidelity(name="gfn2", code="tblite 0.8.0", settings={"method": "GFN2-xTB"})


@pytest.fixture
def remote(proxy: Any, tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "campaign", uri=proxy.uri, patience_s=20.0) as opened:
        opened.start_campaign("test", {}, seed=0, code_version="0")
        yield opened


def label(key: str) -> Label:
    return Label(structure_key=key, fidelity_key=GFN2.key, energy=-1.0, forces=np.zeros((3, 3)))


@pytest.mark.slow
def test_a_verb_waits_for_a_server_that_returns(
    remote: Store, proxy: Any, caplog: pytest.LogCaptureFixture
):
    proxy.cut()
    threading.Timer(0.5, proxy.restore).start()
    with caplog.at_level(logging.WARNING, logger="tace_al"):
        remote.log("note", "over the gap")
    assert [event.message for event in remote.events()] == ["over the gap"]
    said = [record.getMessage() for record in caplog.records]
    assert any("waiting up to 20 s for its return" in line for line in said)
    assert any("answers again after" in line for line in said)


@pytest.mark.slow
def test_patience_ends_with_one_sentence(
    proxy: Any, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("tace_al.store.connection._SELECTION_TIMEOUT_MS", 100)
    with Store.open(tmp_path / "campaign", uri=proxy.uri, patience_s=0.4) as store:
        store.log("note", "before")
        proxy.cut()
        with pytest.raises(DatabaseUnreachable, match=r"stopped answering during log.*same comm"):
            store.log("note", "lost")
        with pytest.raises(DatabaseUnreachable):
            store.finish_campaign("failed")
        said = [record.getMessage() for record in caplog.records]
        assert sum("waiting up to" in line for line in said) == 1, "tidying up does not wait again"
        proxy.restore()
        assert [event.message for event in store.events()] == ["before"], "nothing is lost"


def lost_replies(store: Store) -> dict[str, tuple[str, Callable[[], object], object]]:
    """Return, by verb: the command whose reply is lost, the call, and the right answer."""
    key = store.add_structure(molecule("H2O"), channel="c", origin={})
    for name in ("moved", "q1", "q2", "q3"):
        state = "flagged" if name == "moved" else "queued"
        store.add_candidate(name, kind="seed", channel="c", generation=0, state=state)
    failed = store.add_structure(molecule("NH3"), channel="c", origin={})
    store.add_failure(failed, GFN2, kind="crash", message="no", generation=0)
    settings = {"fidelity_name": "gfn2", "role": "train", "generation": 0}
    return {
        "an event": ("insert", lambda: store.log("note", "once"), None),
        "a candidate": (
            "insert",
            lambda: store.add_candidate("new", kind="seed", channel="c", generation=0),
            True,
        ),
        "a label": ("insert", lambda: store.add_label(label(key), **settings), True),
        "a label for a failure": (
            "update",
            lambda: store.add_label(label(failed), **settings),
            True,
        ),
        "a move": (
            "update",
            lambda: store.move_candidate("moved", source="flagged", target="rejected"),
            True,
        ),
        "a claim": (
            "findAndModify",
            lambda: sorted(record.key for record in store.claim_candidates("me", 2)),
            ["q1", "q2"],
        ),
        "a generation": ("insert", lambda: store.add_generation(0), True),
    }


@pytest.mark.slow
def test_what_was_written_before_its_reply_was_lost_counts_once(remote: Store, proxy: Any):
    for name, (command, call, expected) in lost_replies(remote).items():
        proxy.lose.add(command)
        assert call() == expected, name
        assert not proxy.lose, f"{name}: the reply was not lost"
    counts = remote.counts()
    assert counts["events"] == 1
    assert counts["labels"] == {"train": 2, "calibration": 0, "failed": 0}
    assert counts["candidates"] == {"flagged": 1, "queued": 1, "running": 2, "rejected": 1}
    assert [record.key for record in remote.claim_candidates("me", 5)] == ["q3"]


def test_a_key_of_another_is_no_success_of_ours(remote: Store, proxy: Any):
    arguments: dict[str, Any] = {"kind": "seed", "channel": "c", "generation": 0}
    assert remote.add_candidate("k", **arguments)
    proxy.lose.add("aggregate")
    proxy.lose.add("find")
    assert not remote.add_candidate("k", **arguments)


@pytest.mark.slow
def test_writers_outlive_a_server_killed_and_started_on_its_socket(db_folder: Path, tmp_path: Path):
    """With an address of its own nobody but the test restarts it: the writers must wait."""
    from urllib.parse import quote_plus

    path = ensure_server(db_folder, idle_seconds=30)
    uri = f"mongodb://{quote_plus(str(path))}/?directConnection=true"
    written: list[str] = []
    stop = threading.Event()
    with Store.open(tmp_path / "campaign", uri=uri, patience_s=30.0) as store:

        def write(lane: int) -> None:
            number = 0
            while not stop.is_set():
                store.log("lane", f"{lane}/{number}")
                written.append(f"{lane}/{number}")
                number += 1

        lanes = [threading.Thread(target=write, args=(lane,)) for lane in range(3)]
        for lane in lanes:
            lane.start()
        for _ in range(2):
            time.sleep(0.2)
            os.kill(json.loads((db_folder / "address.json").read_text())["pid"], signal.SIGKILL)
            time.sleep(0.1)
            assert ensure_server(db_folder, idle_seconds=30) == path
        before = len(written)
        deadline = time.monotonic() + 20
        while len(written) < before + 30 and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()
        for lane in lanes:
            lane.join(timeout=30)
        messages = [event.message for event in store.events("lane")]
    assert sorted(messages) == sorted(written), "each acknowledged event is there exactly once"
    assert len(written) >= before + 30, "the writers went on"


def test_an_address_may_lie_in_a_private_file(proxy: Any, tmp_path: Path):
    secret = tmp_path / "address"
    secret.write_text(proxy.uri + "\n")
    secret.chmod(0o644)
    with pytest.raises(DatabaseUnreachable, match=r"read by others; run chmod 600"):
        Store.open(tmp_path / "campaign", uri=f"@{secret}")
    secret.chmod(0o600)
    with Store.open(tmp_path / "campaign", uri=f"@{secret}") as store:
        store.start_campaign("a", {}, seed=0, code_version="0")
    with Store.open(tmp_path / "campaign", create=False) as store:
        assert store.campaign().name == "a"
    with pytest.raises(DatabaseUnreachable, match="cannot be read from"):
        Store.open(tmp_path / "other", uri=f"@{tmp_path / 'nothing'}")
