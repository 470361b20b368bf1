"""One structure through every stage of a campaign, so that what is missing shows in a minute.

Each stage is the code that a campaign runs there, on the campaign's own machine, labeller and
database, in a folder of its own: read the structure, keep it in the Store, send it to a worker,
label it, train two small models on it, run a few steps on their committee, draw the report. A stage
that fails says why; those that need it are skipped, the others are tried.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from tace_al import __version__
from tace_al.campaign.config import Campaign
from tace_al.core.atomic_write import require_free_space, write_bytes
from tace_al.core.errors import ConfigError, DispatchError, LabelFailed, TaceError
from tace_al.core.labels import Label
from tace_al.data.frames import frames_to_bytes, structure_key
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.label_file import read_label
from tace_al.dispatch.request import Envelope, Request, portable
from tace_al.dispatch.slurm_commands import check_slurm
from tace_al.dispatch.tasks.label import label_request
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.guards import check_structure
from tace_al.model.config import preset_config
from tace_al.model.kernels import library
from tace_al.report.report import write_report
from tace_al.store.store import Store

State = Literal["ok", "note", "failed", "skipped"]
COMFORTABLE_BYTES = 5_000_000_000
NUM_MEMBERS, NUM_STEPS = 2, 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What came of one stage: "note" when it works but not as well as it could."""

    stage: str
    state: State
    detail: str
    seconds: float = 0.0


class _Note(Exception):
    """A stage that passed with a remark."""


def check_up(
    campaign: Campaign, directory: Path, *, uri: str | None, wait_s: float
) -> Iterator[Finding]:
    """Try every stage; yield what came of each as soon as it is known.

    Parameters
    ----------
    campaign
        Its first structure, labellers, model and machine are tried.
    directory
        A folder to be made, which the machine's workers see.
    uri
        MongoDB server, or None for the embedded database.
    wait_s
        Seconds to wait for one task, queue included.
    """
    with _Checkup(campaign, directory, uri, wait_s) as checkup:
        failed: set[str] = set()
        for stage, needed, work in checkup.stages():
            missing = [name for name in needed if name in failed]
            if missing:
                failed.add(stage)
                detail = f"needs {' and '.join(missing)}"
                yield Finding(stage=stage, state="skipped", detail=detail)
                continue
            finding = _tried(stage, work)
            if finding.state == "failed":
                failed.add(stage)
            yield finding


def _tried(stage: str, work: Callable[[], str]) -> Finding:
    """Run one stage; whatever it raises is its finding."""
    started = time.perf_counter()
    state: State = "ok"
    try:
        detail = work()
    except _Note as note:
        state, detail = "note", str(note)
    except TaceError as error:
        state, detail = "failed", str(error)
    except Exception as error:  # finding out what breaks is the point, whatever it raises
        logger.debug("stage %s", stage, exc_info=True)
        state, detail = "failed", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    return Finding(stage=stage, state=state, detail=detail, seconds=seconds)


@final
class _Checkup:
    """The stages, which hand each other what they made."""

    def __init__(self, campaign: Campaign, directory: Path, uri: str | None, wait_s: float) -> None:
        self.campaign, self.directory = campaign, directory.resolve()
        self.uri, self.wait_s = uri, wait_s
        self.atoms = campaign.start_structures[0].to_atoms()
        self._open = ExitStack()
        self._store: Store | None = None
        self._dispatcher: Dispatcher | None = None
        self._label: Label | None = None
        self._models: list[Path] = []

    def __enter__(self) -> "_Checkup":
        """Take part in `with`; the stages open what they need."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close workers and database, the last one opened first."""
        self._open.close()

    def stages(self) -> list[tuple[str, tuple[str, ...], Callable[[], str]]]:
        """Return each stage: its name, the names it needs, and its work."""
        return [
            ("disk", (), self.disk),
            ("kernels", (), self.kernels),
            ("cuda", (), self.cuda),
            ("import", (), self.read),
            ("store", ("disk", "import"), self.keep),
            ("scheduler", (), self.scheduler),
            ("dispatch", ("disk", "scheduler"), self.dispatch),
            ("label", ("import", "dispatch"), self.label),
            ("train", ("label",), self.train),
            ("dynamics", ("train",), self.dynamics),
            ("report", ("store", "label"), self.report),
        ]

    def disk(self) -> str:
        """Write a file where results go, and look at the room there."""
        try:
            write_bytes(self.directory / "inputs" / "written", b"here")
        except OSError as error:
            raise ConfigError(
                f"{error.filename or self.directory} cannot be written ({error.strerror}); name "
                "another folder with --dir"
            ) from error
        require_free_space(self.directory)
        free = shutil.disk_usage(self.directory).free
        if free < COMFORTABLE_BYTES:
            raise _Note(
                f"{free / 1e6:.0f} MB free; long campaigns want {COMFORTABLE_BYTES / 1e9:.0f} GB"
            )
        return f"{free / 1e9:.0f} GB free"

    def kernels(self) -> str:
        """Compile the network's kernels, or say what runs instead."""
        try:
            library.load(library.cache_directory())
        except OSError as error:
            reason = " ".join(str(error).split())[:200]
            raise _Note(
                f"{reason}; models run in PyTorch alone, several times more slowly: install a C++ "
                "compiler (g++ or clang++)"
            ) from error
        return "compiled"

    def cuda(self) -> str:
        """Look for a GPU of this computer."""
        import torch

        if torch.cuda.is_available():
            return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        raise _Note("no GPU in this computer; models run on the CPU")

    def read(self) -> str:
        """Check the structures and the labeller's name and options."""
        for structure in self.campaign.start_structures:
            check_structure(structure.to_atoms())
        names = [
            labeller_from_name(choice.name, choice.options).fidelity.name
            for choice in self.campaign.fidelities or (self.campaign.labeller,)
        ]
        number = len(self.campaign.start_structures)
        return f"{number} structures, first {self.atoms.get_chemical_formula()}; {', '.join(names)}"

    def keep(self) -> str:
        """Write the structure to the database and read it back."""
        self._store = self._open.enter_context(Store.open(self.directory, uri=self.uri))
        content = self.campaign.model_dump(mode="json")
        name, seed = self.campaign.name, self.campaign.seed
        self._store.start_campaign(name, content, seed=seed, code_version=__version__)
        channel = self.campaign.channels[0]
        key = self._store.add_structure(self.atoms, channel=channel, origin={"kind": "checkup"})
        (found,) = self._store.structures([key])
        if not np.array_equal(found.positions, self.atoms.positions):
            raise TaceError("the database returns other positions than it was given")
        return "written and read, " + ("a MongoDB server" if self.uri else "embedded database")

    def scheduler(self) -> str:
        """Ask Slurm, where the machine has one, whether it would take such blocks."""
        machine = self.campaign.machine
        check_slurm(machine)
        if machine.slurm is None:
            return f"none needed, {machine.workers} {machine.executor} of this computer"
        return "Slurm would take these blocks"

    def dispatch(self) -> str:
        """Send a task that does nothing to a worker and back."""
        self._dispatcher = self._open.enter_context(
            Dispatcher(self.campaign.machine, self.directory)
        )
        function = "tace_al.dispatch.tasks.probe:run"
        envelope = self._done(Request.build("probe", function, {"value": os.getpid()}))
        result = self._result(envelope)
        gpus = f", GPU {result['gpus']}" if result.get("gpus") else ""
        complaint = self._complaint_at_start()
        if complaint:
            raise _Note(
                f"worker {envelope.worker}{gpus}, but the lines before it said: {complaint}; "
                "look at worker_init of the machine"
            )
        return f"worker {envelope.worker}{gpus}"

    def _complaint_at_start(self) -> str:
        """Return the last line that a pool's script wrote to its error output, "" for none."""
        scripts = self.directory / "parsl"
        logs = [*scripts.rglob("*.stderr"), *scripts.rglob("*.sh.err")]
        texts = (log.read_text(errors="replace").strip() for log in logs)
        said = [text.splitlines()[-1] for text in texts if text]
        return said[0][:300] if said else ""

    def label(self) -> str:
        """Label the structure at every level of theory."""
        told = []
        for choice in self.campaign.fidelities or (self.campaign.labeller,):
            request = label_request(
                choice.name,
                dict(choice.options),
                frames=self._written("structure.npz", self.atoms),
                keys=[structure_key(self.atoms)],
                labels_dir=self.directory / "labels",
            )
            (entry,) = self._result(self._done(request))["labels"]
            if not entry["ok"]:
                raise LabelFailed(entry["kind"], f"{choice.name}: {entry['message']}")
            label = read_label(Path(entry["label_file"]))
            assert isinstance(label, Label)
            self._label = label
            told.append(f"{choice.name} {label.energy:.3f} eV in {label.seconds:.2f} s")
        return "; ".join(told)

    def train(self) -> str:
        """Train the members of a small committee for a moment."""
        assert self._label is not None
        frame = self.atoms.copy()
        frame.info["REF_energy"] = self._label.energy
        frame.arrays["REF_forces"] = np.asarray(self._label.forces)
        frames = self._written("training.npz", frame)
        choice = self.campaign.model
        config = preset_config(choice.preset, elements=self.campaign.elements, **choice.options)
        for seed in range(NUM_MEMBERS):
            options = {"epochs": 2, "time_limit_s": 10.0, "energy_weight": 1.0, "seed": seed}
            payload = {
                "frames": frames,
                "training": [0],
                "validation": [],
                "config": config.to_dict(),
                "options": options,
                "start": None,
                "metadata": {},
            }
            envelope = self._done(self._request("train", payload))
            self._models.append(Path(envelope.folder) / self._result(envelope)["model_file"])
        return f"{NUM_MEMBERS} models, preset {choice.preset}, {NUM_MEMBERS * 2} epochs"

    def dynamics(self) -> str:
        """Run a few steps of the committee's dynamics."""
        payload = {
            "models": self._models,
            "start": self._written("structure.npz", self.atoms),
            "thresholds": {"low": 1e6, "high": 1e7, "scale": 1.0},
            "temperature": 300.0,
            "temperature_end": 300.0,
            "steps": NUM_STEPS,
            "timestep_fs": 0.25,
            "friction_per_fs": 0.02,
            "seed": 0,
        }
        result = self._result(self._done(self._request("langevin", payload)))
        return f"{result['steps']} steps, largest spread {result['max_uncertainty']:.3g} eV/A"

    def report(self) -> str:
        """Write a report with a figure of what the workers did."""
        assert self._store is not None and self._label is not None
        path = write_report(self._store, self.directory / "report")
        figures = list(path.parent.glob("*.png"))
        if not figures:
            raise TaceError(f"the report in {path} has no figure; see its text for what is missing")
        return f"{len(figures)} figures"

    def _request(self, task: str, payload: dict[str, Any]) -> Request:
        function = f"tace_al.dispatch.tasks.{task}:run"
        return Request.build(task, function, portable(payload, self.directory))

    def _written(self, name: str, atoms: Any) -> Path:
        path = self.directory / "inputs" / name
        write_bytes(path, frames_to_bytes([atoms]))
        return path

    def _done(self, request: Request) -> Envelope:
        """Run one task and return its envelope."""
        assert self._dispatcher is not None
        self._dispatcher.submit(request)
        give_up = time.monotonic() + self.wait_s
        while time.monotonic() < give_up:
            for envelope in self._dispatcher.wait(1.0):
                if self._store is not None:
                    self._store.log(
                        "task",
                        f"{envelope.kind} done",
                        task_kind=envelope.kind,
                        key=envelope.key,
                        worker=envelope.worker,
                        started=envelope.started,
                        ended=envelope.ended,
                        ok=envelope.ok,
                    )
                return envelope
        reasons = self._dispatcher.waiting_for
        raise DispatchError(
            f"no worker finished a {request.kind} task within {self.wait_s:.0f} s"
            f"{f' (blocks wait: {reasons})' if reasons else ''}; raise --wait, or look at the logs "
            f"in {self.directory / 'parsl'}"
        )

    def _result(self, envelope: Envelope) -> dict[str, Any]:
        if not envelope.ok or envelope.result is None:
            raise DispatchError(
                f"{envelope.error_kind} on {envelope.worker}: {envelope.error_message}"
            )
        return envelope.result
