"""A real Slurm of three nodes, all on this computer and below one folder.

One controller, one daemon for each of the nodes n1, n2 (partition `cpu`) and n3 (partition `gpu`,
with two things that Slurm takes for GPUs), ports of their own, no accounting: the daemons of
Debian's slurmctld, slurmd and munge, which want neither systemd nor namespaces. A watcher waits for
a lock that this process holds; when it is dropped, also by kill -9, everything that carries this
Slurm's configuration in its environment is killed.
"""

import fcntl
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

NODES = ("n1", "n2", "n3")
MUNGE_USER = "munge"
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "sinfo")

WATCHER = """
import fcntl, sys, time
import psutil
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_SH)
for _ in range(3):
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == sys.argv[2]:
                for parent in process.parents():  # of a job, which outlives it without a mark
                    if parent.name().startswith("slurmstepd"):
                        parent.kill()
                process.kill()
        except psutil.Error:
            pass
    time.sleep(0.2)
"""

CONFIGURATION = """
ClusterName=sandbox
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=6
KillWait=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
PropagateResourceLimits=NONE
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
NodeName=n3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=4 {gres}
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes=n3 MaxTime=60 State=UP
"""


class Slurm:
    """Three nodes that accept jobs, from construction to `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = {
            **os.environ,
            "PATH": _PATH,
            "SLURM_CONF": str(self.configuration),
        }
        self.has_gpus = self._write_files()
        self._lock = (folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        watcher = [sys.executable, "-c", WATCHER, str(folder / "lock"), str(self.configuration)]
        self._watcher = subprocess.Popen(watcher, start_new_session=True)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._start_munge()
            self._start("slurmctld", "slurmctld", "-D")
            for node in NODES:
                self.start_node(node)
            self.wait_until(lambda: self.node_states() == dict.fromkeys(NODES, "idle"), 60.0)
        except BaseException:
            self.close()
            raise

    def _write_files(self) -> bool:
        """Write the configuration; return whether the third node could be given its GPUs."""
        (self.folder / "state").mkdir()
        for node in NODES:
            (self.folder / f"spool.{node}").mkdir()
        devices = [self.folder / f"gpu{number}" for number in range(2)]
        try:
            for device in devices:  # Slurm wants device files; these are the null device
                os.mknod(device, 0o20666, os.makedev(1, 3))
        except PermissionError:
            devices = []
        gres = [f"NodeName=n3 Name=gpu File={device}\n" for device in devices]
        (self.folder / "gres.conf").write_text("".join(gres))
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            folder=self.folder,
            ports=free_ports(4),
            gres="Gres=gpu:2" if devices else "",
        )
        self.configuration.write_text(text)
        return bool(devices)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command, stdout=output, stderr=output, env=self.environment, start_new_session=True
            )

    def _start_munge(self) -> None:
        """Start the authentication service, as its own user where this is root."""
        home = self.folder / "munge"
        home.mkdir(mode=0o755)
        key = home / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        command = ["munged", "--foreground", "--force", f"--key-file={key}"]
        command += [f"--{kind}-file={home / kind}" for kind in ("log", "pid", "seed")]
        command += [f"--socket={self.folder / 'munge.socket'}"]
        if os.getuid() == 0 and MUNGE_USER in {user.pw_name for user in pwd.getpwall()}:
            owner = pwd.getpwnam(MUNGE_USER)
            os.chown(home, owner.pw_uid, owner.pw_gid)
            os.chown(key, owner.pw_uid, owner.pw_gid)
            command[-1] = f"--socket={home / 'socket'}"
            (self.folder / "munge.socket").symlink_to(home / "socket")
            ids = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
            command = ["setpriv", *ids, *command]
        self._start("munged", *command)
        self.wait_until((self.folder / "munge.socket").exists, 20.0)

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node as a power cut does: its daemon and everything that runs on it."""
        self._daemons[node].kill()
        self._daemons[node].wait()
        there = []
        for process in self.processes():
            try:
                if process.environ().get("SLURMD_NODENAME") == node:
                    there.append(process)
            except psutil.Error:
                continue
        # The shepherds of jobs first, which would report that their jobs have failed.
        parents = {parent for process in there for parent in process.parents()}
        for process in [one for one in parents if is_shepherd(one)] + there:
            try:
                process.kill()
            except psutil.Error:
                continue

    def ask(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def node_states(self) -> dict[str, str]:
        """Return each node's state ("idle", "allocated", "down", ...)."""
        try:
            lines = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        except AssertionError:  # the controller is still starting
            return {}
        return dict(line.split()[:2] for line in lines)

    def jobs(self) -> dict[str, str]:
        """Return the node of every job that runs or ends, "" of those that wait."""
        lines = self.ask("squeue", "--noheader", "--format=%i|%N").splitlines()
        return dict(line.split("|") for line in lines)

    def completed(self) -> list[dict[str, str]]:
        """Return what Slurm wrote down about each job that ended."""
        path = self.folder / "completed"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(item.split("=", 1) for item in line.split() if "=" in item) for line in lines]

    def processes(self) -> list[psutil.Process]:
        """Return every process that this Slurm started, its daemons aside."""
        daemons = {daemon.pid for daemon in self._daemons.values()}
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") != str(self.configuration):
                    continue
                if process.pid not in daemons and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def wait_until(self, condition: Callable[[], bool], within_s: float) -> None:
        """Wait for a condition; when it does not come true, show what the daemons said."""
        give_up = time.monotonic() + within_s
        while not condition():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if time.monotonic() > give_up:
                logs = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
                text = "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in logs)
                raise AssertionError(f"it never happened; dead: {dead}\n{text}")
            time.sleep(0.05)

    def close(self) -> None:
        """End every job and daemon."""
        for daemon in self._daemons.values():
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
        self._lock.close()
        self._watcher.wait(timeout=20)


def is_shepherd(process: psutil.Process) -> bool:
    """Return True for Slurm's process above a job, which has neither its name nor its mark."""
    try:
        return process.name().startswith("slurmstepd")
    except psutil.Error:
        return False


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Return a running Slurm, or skip where there is none to run."""
    missing = [name for name in _DAEMONS if shutil.which(name, path=_PATH) is None]
    if missing:
        pytest.skip(f"no Slurm to run: {', '.join(missing)} not installed (slurmctld slurmd munge)")
    # Not pytest's folder: the user that munge runs as may not enter it, and its name is too long.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    cluster = Slurm(folder)
    try:
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
