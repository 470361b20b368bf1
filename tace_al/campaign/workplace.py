"""What every part of a running campaign shares: settings, Store, dispatcher and folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from tace_al.campaign.config import Campaign, LabellerChoice
from tace_al.core.atomic_write import require_free_space, write_bytes
from tace_al.core.errors import ConfigError, LabellerMissing, StorageFull, TaceError
from tace_al.core.hashing import content_hash
from tace_al.core.labels import Fidelity
from tace_al.data.frames import frames_to_bytes, structure_key
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.request import Envelope, Request, portable
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.store.store import Store

TASKS = "tace_al.dispatch.tasks"


HEAD = "head"
"""Entry of a frame's `info` that names the level its labels are of (`model.labelled_batch`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of theory of a campaign: its labeller, and the name its labels and head go by."""

    name: str
    choice: LabellerChoice
    fidelity: Fidelity


@dataclass(frozen=True, kw_only=True, slots=True)
class Workplace:
    """One running campaign.

    Parameters
    ----------
    campaign, store, dispatcher
        What to do, where it is remembered, and who does the work.
    directory
        Folder of the campaign.
    fidelity
        Level of theory of the result.
    cheap
        A cheaper level whose labels lie everywhere, or None.
    """

    campaign: Campaign
    store: Store
    dispatcher: Dispatcher
    directory: Path
    fidelity: Fidelity
    cheap: Level | None = None

    @property
    def target(self) -> Level:
        """The level of theory of the result, the expensive one of two."""
        name = self.fidelity.name
        return Level(name=name, choice=self.campaign.labeller, fidelity=self.fidelity)

    @property
    def levels(self) -> dict[str, Level]:
        """All levels by name, the cheap one first."""
        levels = (self.target,) if self.cheap is None else (self.cheap, self.target)
        return {level.name: level for level in levels}

    @property
    def head(self) -> dict[str, str]:
        """What tasks need to use the head of the result: nothing where models have but one."""
        return {} if self.cheap is None else {HEAD: self.target.name}

    @property
    def labels_dir(self) -> Path:
        """Where workers write every label under its own key."""
        return self.directory / "labels"

    def kept_path(self, path: str | Path) -> str:
        """Return how the Store names a file: from the campaign's folder, which may be moved."""
        path = Path(path)
        inside = path.is_relative_to(self.directory)
        return str(path.relative_to(self.directory) if inside else path)

    def path(self, kept: str) -> Path:
        """Return the full path of a file that the Store names."""
        return self.directory / kept

    def frame_file(self, frames: Sequence[Atoms]) -> Path:
        """Write frames for workers to read, named by their content; return the path."""
        name = content_hash([[structure_key(atoms), _label_of(atoms)] for atoms in frames])
        path = self.directory / "inputs" / f"{name}.npz"
        if not path.exists():
            require_free_space(self.directory)
            write_bytes(path, frames_to_bytes(frames))
        return path

    def request(
        self, task: str, payload: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Request:
        """Return the request for `tace_al.dispatch.tasks.<task>`; its files are `Path`s."""
        named = portable(payload, self.directory)
        return Request.build(task, f"{TASKS}.{task}:run", named, timeout_s=timeout_s)

    def submit(
        self, task: str, payload: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Request:
        """Have a task run; return its request."""
        request = self.request(task, payload, timeout_s=timeout_s)
        self.dispatcher.submit(request)
        return request

    def labelled_frames(self, label_keys: Sequence[str]) -> list[Atoms]:
        """Return structures with their labels, in this order; of two levels each names its own."""
        wanted = set(label_keys)
        found: dict[str, Atoms] = {}
        for name in self.levels:
            own = [record.key for record in self.store.labels(name) if record.key in wanted]
            for atoms in self.store.labelled_frames(name, keys=own) if own else []:
                if self.cheap is not None:
                    atoms.info[HEAD] = name
                found[str(atoms.info["label_key"])] = atoms
        return [found[key] for key in label_keys]

    def labeller_payload(self, level: Level | None = None) -> dict[str, Any]:
        """Return what a worker needs to rebuild a labeller, by default that of the result."""
        choice = (level or self.target).choice
        return {
            "labeller": choice.name,
            "options": dict(choice.options),
            "force_ceiling": choice.force_ceiling,
            "labels_dir": self.labels_dir,
        }


def cheap_level(campaign: Campaign, target: Fidelity) -> Level | None:
    """Return the cheaper of a campaign's two levels, None where it has but one.

    Raises
    ------
    ConfigError
        The two levels have one name, by which their labels could not be told apart.
    """
    if not campaign.fidelities:
        return None
    choice = campaign.fidelities[0]
    fidelity = labeller_from_name(choice.name, choice.options).fidelity
    if fidelity.name == target.name:
        raise ConfigError(
            f"both fidelities are called '{target.name}'; give two levels of theory with different "
            "names"
        )
    return Level(name=fidelity.name, choice=choice, fidelity=fidelity)


def raise_if_hopeless(envelope: Envelope) -> None:
    """Raise the errors that no other task could get round: a full disk, a missing labeller."""
    hopeless = {kind.__name__: kind for kind in (StorageFull, LabellerMissing)}
    if envelope.error_kind in hopeless:
        raise hopeless[envelope.error_kind](envelope.error_message)


def failed_task(envelope: Envelope, consequence: str) -> TaceError:
    """Return the error for a task whose failure ends the campaign."""
    return TaceError(
        f"a {envelope.kind} task failed ({envelope.error_kind}: {envelope.error_message}); "
        f"{consequence}. Its files are in {envelope.folder or 'no folder'}"
    )


def _label_of(atoms: Atoms) -> str:
    """Return the key of the label a frame carries, "" without one."""
    return str(atoms.info.get("label_key", ""))
