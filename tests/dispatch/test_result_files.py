import os
import threading
from pathlib import Path

import pytest

from tace_al.core.errors import DataError
from tace_al.dispatch.request import Envelope
from tace_al.dispatch.result_files import (
    commit_result,
    keep_failure,
    make_scratch,
    plain,
    read_failure,
    read_result,
    result_folder,
    sweep_scratch,
)

KEY = "ab" * 16


def envelope(value: int) -> Envelope:
    return Envelope(key=KEY, kind="probe", ok=True, result={"value": value}, folder="")


def test_a_result_appears_whole_and_is_found_again(tmp_path: Path) -> None:
    assert read_result(tmp_path, "probe", KEY) is None
    scratch = make_scratch(tmp_path, "probe", KEY)
    (scratch / "model").write_text("weights")
    done = commit_result(tmp_path, scratch, envelope(1))
    assert not scratch.exists()
    assert (Path(done.folder) / "model").read_text() == "weights"
    found = read_result(tmp_path, "probe", KEY)
    assert found is not None
    assert found.reused
    assert found.result == {"value": 1}


def test_first_of_many_racing_workers_wins_for_all(tmp_path: Path) -> None:
    results: list[Envelope] = []
    barrier = threading.Barrier(8)

    def finish(value: int) -> None:
        scratch = make_scratch(tmp_path, "probe", KEY)
        barrier.wait()
        results.append(commit_result(tmp_path, scratch, envelope(value)))

    threads = [threading.Thread(target=finish, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len({str(result.result) for result in results}) == 1
    assert [path.name for path in result_folder(tmp_path, "probe", KEY).parent.iterdir()] == [KEY]


def test_a_moved_campaign_finds_its_files(tmp_path: Path) -> None:
    commit_result(tmp_path / "old", make_scratch(tmp_path / "old", "probe", KEY), envelope(1))
    (tmp_path / "old").rename(tmp_path / "new")
    found = read_result(tmp_path / "new", "probe", KEY)
    assert found is not None
    assert Path(found.folder).is_dir()


def test_last_failure_is_kept(tmp_path: Path) -> None:
    for attempt in range(2):
        scratch = make_scratch(tmp_path, "probe", KEY)
        (scratch / "input").write_text(str(attempt))
        failed = Envelope(key=KEY, kind="probe", ok=False, result=None, folder="", error_kind="E")
        kept = keep_failure(tmp_path, scratch, failed)
    assert (Path(kept.folder) / "input").read_text() == "1"
    assert read_failure(tmp_path, "probe", KEY) == kept
    assert read_result(tmp_path, "probe", KEY) is None


def test_scratch_of_killed_workers_is_swept(tmp_path: Path) -> None:
    old, new = make_scratch(tmp_path, "probe", KEY), make_scratch(tmp_path, "probe", KEY)
    os.utime(old, (0, 0))
    assert sweep_scratch(tmp_path, older_than_s=3600) == 1
    assert new.exists()
    assert sweep_scratch(tmp_path, older_than_s=0) == 1


def test_a_damaged_result_says_what_to_do(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, "probe", KEY)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    with pytest.raises(DataError, match="delete its folder"):
        read_result(tmp_path, "probe", KEY)


def test_results_are_plain() -> None:
    assert plain({"a": (1, 2)}) == {"a": [1, 2]}
    with pytest.raises(TypeError, match="expected a dict"):
        plain([1])
    with pytest.raises(TypeError):
        plain({"a": object()})
