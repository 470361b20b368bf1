"""The compiled kernels: built on first use, kept per user, loaded with ctypes.

One library of all sources. Its name holds a digest of them, the flags and the processor, so that
neither an update nor a home directory shared by unlike machines loads what does not fit. It is
compiled beside its final place and renamed onto it: any number of processes may start at once, each
sees nothing or the whole file, and a lock spares most of them the work. It knows nothing of
PyTorch, and serves all its versions.
"""

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")
BASE_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-Wno-psabi")
NATIVE_FLAG_SETS = (("-march=native",), ("-mcpu=native",), ())  # the first that compiles is taken
COMPILE_SECONDS = 300.0


@cache
def compiled() -> ctypes.CDLL | None:
    """Return the compiled kernels, building them if need be; None where that is impossible.

    The first call may take some seconds. Without a compiler it says so once, in the log.
    """
    try:
        return load(cache_directory())
    except OSError as error:
        logger.warning(
            "the compiled kernels are not available (%s): sums over neighbours and products go "
            "through PyTorch's own operators, which gives the same numbers more slowly",
            error,
        )
        return None


def cache_directory() -> Path:
    """Return the folder of compiled kernels, $XDG_CACHE_HOME/tace-al/kernels or below ~/.cache.

    Where that cannot be written, a private folder that lasts as long as the machine lets it.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(root) if root else Path.home() / ".cache") / "tace-al" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home directory
        pass
    return Path(tempfile.mkdtemp(prefix="tace-al-kernels-"))


def load(folder: Path) -> ctypes.CDLL:
    """Return the kernels for this processor from `folder`, compiled there if absent.

    Raises
    ------
    OSError
        There is no compiler, it failed, or what it made cannot be loaded.
    """
    path = folder / f"kernels-{_digest()}.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            logger.info("%s cannot be loaded and is compiled again", path)
            path.unlink(missing_ok=True)
    with _lock(path.with_suffix(".lock")):
        if not path.exists():
            _build(path)
    return ctypes.CDLL(str(path))


def sources() -> list[Path]:
    """Return the files that are compiled together."""
    return sorted(FOLDER.glob("*.cpp"))


def _digest() -> str:
    """Return what tells apart libraries that must not be mixed up."""
    texts = [path.read_bytes() for path in (*sources(), *sorted(FOLDER.glob("*.h")))]
    parts = [*texts, repr((BASE_FLAGS, NATIVE_FLAG_SETS)).encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Return the processor's kind and instruction sets."""
    kind = f"{platform.system()} {platform.machine()}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{kind} {platform.processor()}"
    names = ("flags", "Features", "model name", "CPU part")
    return "\n".join([kind, *sorted({line for line in lines if line.startswith(names)})])


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock where the file system has them; correctness does not need it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            logger.debug("no file lock in %s: %s", path.parent, error)
        yield


def _compiler() -> list[str]:
    """Return the command of the C++ compiler, $CXX if that is set.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    chosen = os.environ.get("CXX")
    candidates = [shlex.split(chosen)] if chosen else [[name] for name in COMPILERS]
    for command in candidates:
        if command and shutil.which(command[0]):
            return command
    names = ", ".join(command[0] for command in candidates if command)
    raise FileNotFoundError(f"no C++ compiler, looked for {names}; install one or set CXX")


def _build(path: Path) -> None:
    """Compile the sources and rename the result to `path`.

    Raises
    ------
    OSError
        There is no compiler, or it failed whatever the flags.
    """
    compiler = _compiler()
    files = sources()
    names = ", ".join(file.name for file in files)
    logger.info("compiling %s into %s, once", names, path.parent)
    errors = []
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        target = Path(folder) / "library.so"
        for native in NATIVE_FLAG_SETS:
            flags = (*BASE_FLAGS, *native, "-o", str(target))
            message = _compile([*compiler, *flags, *map(str, files)])
            if not message:
                target.replace(path)
                return
            errors.append(message)
    raise OSError(f"{compiler[0]} did not compile {names}: {errors[-1]}")


def _compile(command: Sequence[str]) -> str:
    """Run the compiler; return its first complaint, or an empty string."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done after {COMPILE_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    return (lines or done.stderr.splitlines() or [f"exit status {done.returncode}"])[0]
