"""One byte of the embedded database's file changes: it is found, and nothing else is lost."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tace_al.core.errors import DatabaseUnreachable
from tace_al.dispatch.label_file import write_label
from tace_al.store.embedded.launch import stop_server
from tace_al.store.integrity import Finding, check_records
from tace_al.store.integrity_files import check_files, with_files
from tace_al.store.repair import repair
from tace_al.store.store import Store

Reader = Callable[[Path], Any]


def behind_its_back(store: Store, statement: str, *values: object) -> None:
    """Change the file while no server has it; the Store starts another by itself."""
    folder = store.directory / "db"
    stop_server(folder)
    with closing(sqlite3.connect(folder / "journal.sqlite")) as file, file:
        assert file.execute(statement, values).rowcount > 0


def body_of(store: Store, collection: str) -> tuple[int, bytes]:
    """Return number and bytes of the first document of a collection."""
    folder = store.directory / "db"
    stop_server(folder)
    query = "SELECT serial, body FROM documents WHERE namespace LIKE ? ORDER BY serial"
    with closing(sqlite3.connect(folder / "journal.sqlite")) as file:
        serial, body = file.execute(query, (f"%.{collection}",)).fetchone()
    return serial, body


def check(store: Store, reader: Reader) -> list[Finding]:
    found = with_files(check_records(store, running=False), store.directory, reader)
    return found + check_files(store, running=False, read_label=reader)


def mend(store: Store, reader: Reader) -> list[Finding]:
    repair(store, check(store, reader), read_label=reader, write_label=write_label)
    return check(store, reader)


def test_another_number_in_a_label_is_found_and_read_from_its_file(
    sound_file: Store, read_file: Reader
) -> None:
    before = sound_file.labels()[0]
    serial, body = body_of(sound_file, "label")
    place = body.index(b"energy\x00") + 10  # inside the number, which stays one
    changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    behind_its_back(sound_file, "UPDATE documents SET body = ? WHERE serial = ?", changed, serial)
    assert sound_file.labels()[0].energy != before.energy
    findings = check(sound_file, read_file)
    first = next(each for each in findings if "other bytes" in each.text)
    assert (first.problem, first.key, first.repair) == (
        "label",
        before.key,
        "read it from its file",
    )
    assert mend(sound_file, read_file) == []
    assert sound_file.labels()[0].energy == before.energy


def test_a_document_that_cannot_be_read_costs_nothing_else(
    sound_file: Store, read_file: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [label.key for label in sound_file.labels()]
    serial, _ = body_of(sound_file, "label")
    behind_its_back(sound_file, "UPDATE documents SET body = x'07' WHERE serial = ?", serial)
    assert [label.key for label in sound_file.labels()] == keys[1:]
    with Store.open(sound_file.directory):
        assert "damaged documents (1)" in caplog.text
    problems = {finding.problem for finding in check(sound_file, read_file)}
    assert {"record", "unread label"} <= problems
    assert mend(sound_file, read_file) == []  # recorded again from its file
    assert {label.key for label in sound_file.labels()} == set(keys)


def test_a_structure_with_other_bytes_is_for_a_person(sound_file: Store, read_file: Reader) -> None:
    serial, body = body_of(sound_file, "structure")
    changed = body.replace(b"channel\x00", b"chamnel\x00")
    behind_its_back(sound_file, "UPDATE documents SET body = ? WHERE serial = ?", changed, serial)
    (finding, *_) = check(sound_file, read_file)
    assert (finding.problem, finding.repair) == ("structure", "")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE indexes SET spec = x'00'",
        "UPDATE indexes SET namespace = namespace || 'x'",
        "DELETE FROM collections",
        "ALTER TABLE documents DROP COLUMN checksum",  # as an earlier version wrote it
    ],
)
def test_what_can_be_made_again_is(sound_file: Store, read_file: Reader, statement: str) -> None:
    keys = [label.key for label in sound_file.labels()]
    folder = sound_file.directory / "db"
    stop_server(folder)
    with closing(sqlite3.connect(folder / "journal.sqlite")) as file, file:
        file.execute(statement)
    with Store.open(sound_file.directory) as store:
        assert [label.key for label in store.labels()] == keys
        assert check(store, read_file) == []
        store.log("note", "it can be written to")


def test_a_file_that_is_none_any_more_says_what_to_do(sound_file: Store) -> None:
    folder = sound_file.directory / "db"
    stop_server(folder)
    (folder / "journal.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseUnreachable, match=r"is damaged.*db restore.*move"):
        Store.open(sound_file.directory)
