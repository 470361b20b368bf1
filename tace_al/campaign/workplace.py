"""What every part of a running campaign shares: settings, Store, dispatcher and folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from tace_al.campaign.config import Campaign
from tace_al.core.atomic_write import require_free_space, write_bytes
from tace_al.core.errors import LabellerMissing, StorageFull, TaceError
from tace_al.core.hashing import content_hash
from tace_al.core.labels import Fidelity
from tace_al.data.frames import frames_to_bytes, structure_key
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.request import Envelope, Request, portable
from tace_al.store.store import Store

TASKS = "tace_al.dispatch.tasks"


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
        Level of theory of the labels.
    """

    campaign: Campaign
    store: Store
    dispatcher: Dispatcher
    directory: Path
    fidelity: Fidelity

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

    def labeller_payload(self) -> dict[str, Any]:
        """Return what a worker needs to rebuild the labeller."""
        choice = self.campaign.labeller
        return {
            "labeller": choice.name,
            "options": dict(choice.options),
            "force_ceiling": choice.force_ceiling,
            "labels_dir": self.labels_dir,
        }


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
