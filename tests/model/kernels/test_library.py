"""Compiled once, by whoever comes first; never a crash without a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tace_al.model.kernels import library

SUM = """
import logging, torch
logging.basicConfig(level=logging.WARNING)
from tace_al.model.kernels import EdgeList, SumLayout, edge_sums
one = torch.ones(1, 1, 1)
for _ in range(2):
    edges = EdgeList.sorted_by_receiver(torch.tensor([0]), torch.tensor([0]), 1)
    print(float(edge_sums(3 * one, 2 * one, one[0], edges, SumLayout(pairs=((0, 0, 1),)))))
"""


def started(code: str, cache: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a fresh Python with a cache of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def has_compiler() -> bool:
    return library.compiled() is not None


def libraries(cache: Path) -> list[Path]:
    return list((cache / "tace-al" / "kernels").glob("*.so"))


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.cache_directory() == tmp_path / "tace-al" / "kernels"


def test_a_cache_that_cannot_be_written_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "not a folder"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    folder = library.cache_directory()
    assert folder.is_dir() and file not in folder.parents
    folder.rmdir()


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match=r"no-such-compiler; install one or set CXX"):
        library.load(tmp_path)


def test_a_compiler_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    sources = r"edge_sums\.cpp, geometry\.cpp, network\.cpp, product\.cpp"
    with pytest.raises(OSError, match=rf"false did not compile {sources}: exit status 1"):
        library.load(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_broken_library_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = library.compiled()
    if compiled is None:  # then there is nothing that could be broken
        return
    path = tmp_path / Path(compiled._name).name
    path.write_bytes(b"torn")
    monkeypatch.setattr(library, "_build", lambda target: target.write_bytes(whole))
    whole = Path(compiled._name).read_bytes()
    assert hasattr(library.load(tmp_path), "tace_edge_sums_float")
    assert hasattr(library.load(tmp_path), "tace_product_float")
    assert path.read_bytes() == whole


def test_without_a_compiler_one_line_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.compiled.cache_clear()
    try:
        assert library.compiled() is None
        assert library.compiled() is None
    finally:
        library.compiled.cache_clear()
    (record,) = caplog.records
    assert "no C++ compiler" in record.message and "more slowly" in record.message


@pytest.mark.slow
def test_importing_compiles_nothing(tmp_path: Path) -> None:
    process = started("import tace_al.model.kernels", tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_without_a_compiler_computes_the_same(tmp_path: Path) -> None:
    output, errors = started(SUM, tmp_path, CXX="no-such-compiler").communicate(timeout=120)
    assert output.split() == ["6.0", "6.0"]
    assert errors.count("compiled kernels are not available") == 1


@pytest.mark.slow
def test_many_processes_may_start_at_once(tmp_path: Path) -> None:
    processes = [started(SUM, tmp_path) for _ in range(4)]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.split() == ["6.0", "6.0"]
    assert len(libraries(tmp_path)) == has_compiler()
    folder = tmp_path / "tace-al" / "kernels"
    assert not [path for path in folder.iterdir() if path.name.startswith("build-")]
