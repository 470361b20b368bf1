"""Addresses: private folders, loopback, taken sockets, servers that come late or never."""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tace_al.core.errors import ConfigError, SamplerError
from tace_al.engines.sampling.ipi_address import (
    InetAddress,
    UnixAddress,
    check_free,
    inet_address,
    unix_address,
    wait_for_server,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:  # short enough for a socket
        yield Path(path)


def test_names_follow_the_convention_of_ipi_and_paths_stay() -> None:
    assert unix_address("water").path == Path("/tmp/ipi_water")
    assert unix_address("/run/me/ipi_water").path == Path("/run/me/ipi_water")
    with pytest.raises(ConfigError, match="cannot name a socket"):
        unix_address("..", Path("/tmp"))


def test_a_private_folder_is_made_and_an_open_one_refused(folder: Path) -> None:
    address = unix_address("water", folder / "mine")
    assert address.path == folder / "mine" / "water"
    assert (folder / "mine").stat().st_mode & 0o777 == 0o700
    (folder / "mine").chmod(0o755)
    with pytest.raises(ConfigError, match="others may enter"):
        unix_address("water", folder / "mine")


def test_a_path_that_the_kernel_would_cut_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        unix_address("/tmp/" + "x" * 110)


def test_only_this_machine_is_talked_to_unless_allowed() -> None:
    assert inet_address("localhost", 31415).host == "127.0.0.1"
    with pytest.raises(ConfigError, match="is not this machine"):
        inet_address("192.0.2.1", 31415)
    assert inet_address("192.0.2.1", 31415, remote=True).host == "192.0.2.1"
    with pytest.raises(ConfigError, match="port 0"):
        inet_address("127.0.0.1", 0)


def test_a_server_that_comes_late_is_waited_for(folder: Path) -> None:
    address = UnixAddress(path=folder / "s")
    server = socket.socket(socket.AF_UNIX)

    def listen() -> None:
        time.sleep(0.1)
        server.bind(str(address.path))
        server.listen()

    late = threading.Thread(target=listen)
    late.start()
    with wait_for_server(address, 10.0), server:
        late.join()


def test_no_server_is_one_sentence(folder: Path) -> None:
    with pytest.raises(SamplerError, match="no i-PI server came to"):
        wait_for_server(UnixAddress(path=folder / "s"), 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
    with pytest.raises(SamplerError, match="a server that is gone has left it"):
        wait_for_server(UnixAddress(path=folder / "s"), 0.1)
    (folder / "file").write_text("")
    with pytest.raises(SamplerError, match="is not a socket"):
        wait_for_server(UnixAddress(path=folder / "file"), 0.1)


def test_a_taken_address_is_one_sentence(folder: Path) -> None:
    address = UnixAddress(path=folder / "s")
    check_free(address)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address.path))
        server.listen()
        with pytest.raises(SamplerError, match="is taken: a server listens there"):
            check_free(address)
    with pytest.raises(SamplerError, match="was left by a server that is gone"):
        check_free(address)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(SamplerError, match="is taken"):
            check_free(InetAddress(host="127.0.0.1", port=port))
