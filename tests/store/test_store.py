"""Opening, sharing, losing and finding again a campaign's Store."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule

from tace_al.core.errors import DatabaseUnreachable, StorageFull, StoreError
from tace_al.store.connection import URI_VARIABLE, masked
from tace_al.store.embedded.launch import stop_server
from tace_al.store.store import Store

SPAWN = multiprocessing.get_context("spawn")
pytestmark = pytest.mark.usefixtures("no_server_uri")


@pytest.fixture
def directory(tmp_path: Path):
    yield tmp_path / "campaign"
    stop_server(tmp_path / "campaign" / "db")


def test_a_campaign_is_found_again(directory: Path):
    with Store.open(directory) as store:
        store.start_campaign("first", {"budget": 1}, seed=3, code_version="0.1.0")
        key = store.add_structure(molecule("H2O"), channel="bare", origin={"kind": "seed"})
        identifier = store.campaign_id
    stop_server(directory / "db")
    with Store.open(directory, create=False) as store:
        assert store.campaign_id == identifier
        assert store.campaign().name == "first"
        assert store.structure_record(key).channel == "bare"


def test_a_directory_that_is_no_campaign(tmp_path: Path):
    with pytest.raises(StoreError, match=r"holds no campaign .*tace-al run"):
        Store.open(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_the_identifier_must_fit(tmp_path: Path, shared_uri: str):
    with pytest.raises(StoreError, match="no campaign identifier"):
        Store.open(tmp_path, uri=shared_uri, campaign="../etc")
    Store.open(tmp_path, uri=shared_uri, campaign="mine").close()
    with pytest.raises(StoreError, match="holds campaign 'mine', not 'other'"):
        Store.open(tmp_path, uri=shared_uri, campaign="other")


def test_a_damaged_campaign_file(tmp_path: Path):
    (tmp_path / "campaign.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        Store.open(tmp_path)


def test_two_stores_in_one_process_do_not_mix(tmp_path: Path, shared_uri: str):
    with (
        Store.open(tmp_path / "a", uri=shared_uri) as one,
        Store.open(tmp_path / "b", uri=shared_uri) as other,
    ):
        one.add_structure(molecule("H2O"), channel="c", origin={})
        one.log("note", "only here")
        assert one.counts()["structures"] == 1
        assert other.counts()["structures"] == 0
        assert other.events() == []


def test_the_server_of_a_campaign_is_remembered(tmp_path: Path, shared_uri: str):
    with Store.open(tmp_path, uri=shared_uri) as store:
        store.log("note", "x")
    with Store.open(tmp_path, create=False) as store:
        assert len(store.events()) == 1
    assert not (tmp_path / "db").exists()


def test_a_campaign_is_not_split_over_two_databases(directory: Path, shared_uri: str):
    with Store.open(directory) as store:
        store.start_campaign("here", {}, seed=0, code_version="0")
    with pytest.raises(StoreError, match=r"lives in its embedded database, not in .* leave out"):
        Store.open(directory, uri=shared_uri)


@pytest.mark.parametrize("by_environment", [False, True])
def test_an_unreachable_server_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
):
    monkeypatch.setattr("tace_al.store.connection._SELECTION_TIMEOUT_MS", 100)
    uri = "mongodb://anna:hunter2@localhost:1/lab"
    if by_environment:
        monkeypatch.setenv(URI_VARIABLE, uri)
    with pytest.raises(DatabaseUnreachable, match=r"anna:\*\*\*@localhost:1/lab.*--db") as caught:
        Store.open(tmp_path, uri=None if by_environment else uri)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not (tmp_path / "campaign.json").exists()


def test_a_malformed_address(tmp_path: Path):
    with pytest.raises(DatabaseUnreachable, match="check the address"):
        Store.open(tmp_path, uri="postgres://x:secret@host")


def test_secrets_are_masked():
    assert masked("mongodb+srv://a:p@ss:w@host/d") == "mongodb+srv://a:***@host/d"
    assert masked("mongodb://host/d?authMechanismProperties=AWS_SESSION_TOKEN:abc&x=1") == (
        "mongodb://host/d?authMechanismProperties=AWS_SESSION_TOKEN:***&x=1"
    )
    assert masked("mongodb://host:27017/d") == "mongodb://host:27017/d"


def test_a_campaign_on_a_secret_server_asks_for_the_password(tmp_path: Path):
    content = {"campaign": "c", "uri": "mongodb://anna:***@host/lab"}
    (tmp_path / "campaign.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=f"give the address.*{URI_VARIABLE}"):
        Store.open(tmp_path, create=False)


def test_a_verb_survives_the_death_of_the_embedded_server(directory: Path):
    with Store.open(directory) as store:
        store.log("note", "before")
        os.kill(json.loads((directory / "db/address.json").read_text())["pid"], signal.SIGKILL)
        store.log("note", "after")
        assert [event.message for event in store.events()] == ["before", "after"]


def test_threads_that_meet_a_dead_server_revive_it_once(directory: Path):
    with Store.open(directory) as store:
        store.log("note", "before")
        os.kill(json.loads((directory / "db/address.json").read_text())["pid"], signal.SIGKILL)
        threads = [threading.Thread(target=store.log, args=("lane", str(n))) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {event.message for event in store.events("lane")} == set("012345")


def test_a_full_disk_becomes_storage_full(tmp_path: Path, shared_uri: str, monkeypatch: Any):
    from pymongo.errors import OperationFailure

    def refuse(*_: Any, **__: Any) -> None:
        raise OperationFailure("no room left on the disk", 14031)

    with Store.open(tmp_path, uri=shared_uri) as store:
        monkeypatch.setattr("pymongo.synchronous.collection.Collection.insert_one", refuse)
        monkeypatch.setattr("pymongo.synchronous.collection.Collection.update_many", refuse)
        with pytest.raises(StorageFull, match=r"run the same command again, nothing was lost"):
            store.log("note", "x")
        with pytest.raises(StorageFull):
            store.heartbeat("me")


def _claim(directory: str, owner: str, answers: Any) -> None:
    with Store.open(Path(directory), create=False) as store:
        mine = []
        while claimed := store.claim_candidates(owner, 3):
            mine.extend(record.key for record in claimed)
        answers.put(mine)


@pytest.mark.slow
def test_processes_share_one_queue(directory: Path):
    with Store.open(directory) as store:
        keys = [f"{number:032x}" for number in range(120)]
        for key in keys:
            store.add_candidate(key, kind="seed", channel="c", generation=0, state="queued")
        answers = SPAWN.Queue()
        owners = [
            SPAWN.Process(target=_claim, args=(str(directory), f"w{n}", answers)) for n in range(4)
        ]
        for owner in owners:
            owner.start()
        claimed = [key for _ in owners for key in answers.get(timeout=60)]
        for owner in owners:
            owner.join()
        assert sorted(claimed) == keys
        assert store.counts()["candidates"] == {"running": 120}


@pytest.mark.slow
def test_first_openers_agree_on_the_identifier(directory: Path):
    program = (
        "import sys; from pathlib import Path; from tace_al.store.store import Store\n"
        "with Store.open(Path(sys.argv[1])) as store: print(store.campaign_id)"
    )
    command = [sys.executable, "-c", program, str(directory)]
    openers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    identifiers = {opener.communicate(timeout=60)[0].strip() for opener in openers}
    assert len(identifiers) == 1
    assert identifiers != {""}


def test_threads_share_a_store(tmp_path: Path, shared_uri: str):
    with Store.open(tmp_path, uri=shared_uri) as store:

        def write(lane: int) -> None:
            for number in range(10):
                store.log("lane", f"{lane}/{number}")

        threads = [threading.Thread(target=write, args=(lane,)) for lane in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({event.message for event in store.events("lane")}) == 40
