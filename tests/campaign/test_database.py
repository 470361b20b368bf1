"""A database that vanishes under a campaign and returns: it waits, and nothing is lost."""

import io
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from rich.console import Console

from tace_al.campaign.loop import run_campaign
from tace_al.core.errors import DatabaseUnreachable
from tace_al.store.embedded.launch import ensure_server, stop_server
from tace_al.store.store import Store

pytestmark = [pytest.mark.campaign, pytest.mark.slow]


class Server:
    """A database that belongs to no campaign: only the test starts it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = ensure_server(folder, idle_seconds=60)
        self.uri = f"mongodb://{quote_plus(str(path))}/?directConnection=true"

    def kill(self) -> None:
        os.kill(json.loads((self.folder / "address.json").read_text())["pid"], signal.SIGKILL)

    def start(self) -> None:
        ensure_server(self.folder, idle_seconds=60)

    def kill_at(self, labels: Path, number: int, *, for_s: float | None) -> threading.Thread:
        """Kill once there are so many label files; start again after a while, if at all."""

        def wait_and_kill() -> None:
            give_up = time.monotonic() + 60
            while len(list(labels.glob("*.npz"))) < number and time.monotonic() < give_up:
                time.sleep(0.005)
            self.kill()
            if for_s is not None:
                time.sleep(for_s)
                self.start()

        thread = threading.Thread(target=wait_and_kill)
        thread.start()
        return thread


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    opened = Server(tmp_path / "db")
    yield opened
    stop_server(opened.folder)


def test_a_campaign_waits_for_its_database_and_goes_on_after_giving_up(
    server: Server,
    tiny_campaign: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    campaign = tiny_campaign(
        model={"first_epochs": 5, "epochs": 3},
        exploration={"walkers": 1, "steps": 5, "band_steps": 5, "num_rattled": 2},
        stopping={"max_generations": 2},
    )
    directory = tmp_path / "campaign"
    labels = directory / "labels"

    def run() -> Any:
        console = Console(file=io.StringIO())
        return run_campaign(campaign, directory=directory, uri=server.uri, console=console)

    defaults: Any = Store.open.__func__.__kwdefaults__  # type: ignore[attr-defined]
    monkeypatch.setitem(defaults, "patience_s", 0.5)
    monkeypatch.setattr("tace_al.store.connection._SELECTION_TIMEOUT_MS", 200)
    killer = server.kill_at(labels, 6, for_s=None)
    with pytest.raises(DatabaseUnreachable, match="then run the same command again, nothing was"):
        run()
    killer.join()
    before = {path: path.stat().st_mtime_ns for path in labels.glob("*.npz")}
    assert len(before) >= 6

    monkeypatch.setitem(defaults, "patience_s", 60.0)
    server.start()
    killer = server.kill_at(labels, len(before) + 4, for_s=5.0)
    with caplog.at_level(logging.WARNING, logger="tace_al"):
        result = run()
    killer.join()
    assert any("answers again after" in record.getMessage() for record in caplog.records)
    after = {path: path.stat().st_mtime_ns for path in labels.glob("*.npz")}
    assert before.items() <= after.items(), "no label was computed twice"
    with Store.open(directory, uri=server.uri, create=False) as store:
        assert {record.key for record in store.labels()} == {path.stem for path in labels.iterdir()}
        assert store.campaign().state == "finished"
        assert store.candidates(state="running") == []
    assert result.num_labels == len(after)
