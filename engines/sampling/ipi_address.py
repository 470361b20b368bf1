"""Where an i-PI server listens, and how to reach it.

A unix socket is a file, i-PI's prefix plus the `<address>` of its input: `/tmp/ipi_NAME` unless the
input sets `sockets_prefix`. Anyone on the machine may connect to a file in /tmp, and neither kind
of socket asks who calls; a folder that is the user's own (mode 0700) keeps others out. Over inet
only this machine is talked to unless the caller says otherwise.
"""

import errno
import ipaddress
import os
import re
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from tace_al.core.errors import ConfigError, SamplerError

IPI_PREFIX = "/tmp/ipi_"
"""i-PI's own convention."""
MAX_SOCKET_PATH = 107
"""Bytes that the kernel keeps of the path of a unix socket."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RETRY_S = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class UnixAddress:
    """A socket file."""

    path: Path

    def __post_init__(self) -> None:
        """Refuse what the kernel would cut off."""
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH:
            raise ConfigError(
                f"the socket path {self.path} is longer than {MAX_SOCKET_PATH} bytes; "
                "use a shorter folder or name"
            )

    def __str__(self) -> str:
        """Name the file."""
        return str(self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class InetAddress:
    """A host and a port."""

    host: str
    port: int

    def __post_init__(self) -> None:
        """Refuse a port that is none."""
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} does not exist; give 1025 to 65535")

    def __str__(self) -> str:
        """Name host and port."""
        return f"{self.host}:{self.port}"


Address = UnixAddress | InetAddress


def unix_address(name: str, directory: Path | None = None) -> UnixAddress:
    """Return the address of a unix socket.

    Parameters
    ----------
    name
        As in the `<address>` of i-PI's input, or a path with a slash in it.
    directory
        Private folder instead of /tmp: made with mode 0700, refused if others may write to it.

    Raises
    ------
    ConfigError
        The name would leave its folder, or the folder is not private.
    """
    if directory is None and "/" in name:
        return UnixAddress(path=Path(name).absolute())
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot name a socket; use letters, digits, dots, dashes and underscores, "
            "at most 64 of them"
        )
    if directory is None:
        return UnixAddress(path=Path(IPI_PREFIX + name))
    return UnixAddress(path=private_folder(directory) / name)


def private_folder(directory: Path) -> Path:
    """Return a folder that only its owner can enter, made if it is not there."""
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigError(
            f"others may enter {directory}; give a folder of your own with mode 0700 "
            f"(chmod 700 {directory}), or a new one"
        )
    return directory


def inet_address(host: str, port: int, *, remote: bool = False) -> InetAddress:
    """Return the address of an inet socket.

    Parameters
    ----------
    remote
        Allow a host that is not this machine.

    Raises
    ------
    ConfigError
        The host is elsewhere and that was not allowed, or has no address.
    """
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"the host {host} has no address ({error}); check the name") from error
    numbers = [str(entry[4][0]) for entry in found]
    if not remote and not all(ipaddress.ip_address(number).is_loopback for number in numbers):
        raise ConfigError(
            f"{host} is not this machine, and i-PI's sockets ask nobody who they are; use "
            "127.0.0.1 (through an ssh tunnel, if i-PI runs elsewhere), or add --remote"
        )
    return InetAddress(host=numbers[0], port=port)


def try_connect(address: Address) -> socket.socket | None:
    """Return a connection that does not block, or None where nobody listens (yet).

    Raises
    ------
    SamplerError
        The address is there but can never be connected to: no permission, no socket.
    """
    unix = isinstance(address, UnixAddress)
    connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if isinstance(address, UnixAddress):
            if address.path.exists() and not address.path.is_socket():
                raise SamplerError(f"{address} is not a socket; give the name of an i-PI server's")
            connection.setblocking(False)  # a full queue of the server must not hold us
            connection.connect(str(address.path))
        else:
            connection.settimeout(5.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect((address.host, address.port))
            connection.setblocking(False)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError, TimeoutError):
        connection.close()
        return None
    except PermissionError as error:
        connection.close()
        raise SamplerError(
            f"{address} belongs to somebody else; choose another name, or let its owner open it"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def wait_for_server(address: Address, timeout_s: float) -> socket.socket:
    """Return a connection to a server that may have to start first.

    Raises
    ------
    SamplerError
        None has answered within `timeout_s`.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        connection = try_connect(address)
        if connection is not None:
            return connection
        if time.monotonic() >= give_up:
            raise SamplerError(_nobody(address, timeout_s))
        time.sleep(min(_RETRY_S, max(timeout_s, 0.001)))


def check_free(address: Address) -> None:
    """Refuse an address at which no server can be started.

    Raises
    ------
    SamplerError
        A server listens there, or a dead one has left its file.
    """
    if isinstance(address, UnixAddress):
        if not address.path.exists():
            return
        connection = try_connect(address)
        if connection is None:
            raise SamplerError(
                f"the socket {address} was left by a server that is gone; remove the file, or "
                "choose another name"
            )
        connection.close()
        raise SamplerError(
            f"the socket {address} is taken: a server listens there; choose another name, or end "
            "that server"
        )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise SamplerError(
                f"the port {address} is taken; choose another, or end the server that listens there"
            ) from error


def _nobody(address: Address, timeout_s: float) -> str:
    """Say that no server came, and why that may be."""
    if isinstance(address, UnixAddress) and address.path.exists():
        return (
            f"nobody listens at {address}: a server that is gone has left it, or one is busy "
            f"elsewhere for more than {timeout_s:g} s; remove the file and start i-PI again"
        )
    kind = "unix" if isinstance(address, UnixAddress) else "inet"
    return (
        f"no i-PI server came to {address} within {timeout_s:g} s; start `i-pi input.xml` whose "
        f"<ffsocket mode='{kind}'> names this address, or wait longer with --wait"
    )
