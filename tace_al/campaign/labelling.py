"""Labels: from the queue to the labeller and into the Store, each at most once.

A queued candidate is claimed, sent out in a batch, and ends as `labelled` or `failed`. Workers
write every label to a file of its own key first, so that what a killed campaign had computed is
read, not repeated.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import final

from tace_al.campaign.workplace import Workplace, raise_if_hopeless
from tace_al.core.labels import Label
from tace_al.core.random_generators import random_generator
from tace_al.dispatch.label_file import label_path, read_label
from tace_al.dispatch.request import Envelope

OWNER = "campaign"
TASK_SECONDS = 4.0
"""A batch of labels is made about this long: long against the cost of a task, short to lose."""
LARGEST_BATCH = 64


@final
class Labelling:
    """Sends queued candidates to the labeller and keeps what comes back.

    `on_label` is called with the structure key of every new label.
    """

    def __init__(self, workplace: Workplace, on_label: Callable[[str], None]) -> None:
        self.workplace, self.on_label = workplace, on_label
        self._batches: dict[str, list[str]] = {}
        records = workplace.store.labels(state=None)
        self.num_labels = len(records)
        self._seconds = [record.seconds for record in records if record.seconds]
        workplace.store.release_stale(0.0, OWNER)

    @property
    def num_running(self) -> int:
        """Candidates that are being labelled."""
        return sum(len(keys) for keys in self._batches.values())

    @property
    def remaining(self) -> int:
        """Labels that the budget still allows."""
        return self.workplace.campaign.stopping.max_labels - self.num_labels - self.num_running

    @property
    def idle(self) -> bool:
        """Whether nothing is being labelled and nothing that the budget allows is queued."""
        if self.num_running:
            return False
        return self.remaining <= 0 or not self.workplace.store.candidates(state="queued")

    def submit(self) -> None:
        """Send everything queued, within the budget, in as many batches as there are workers."""
        if self.remaining <= 0:
            return
        store = self.workplace.store
        claimed = store.claim_candidates(OWNER, self.remaining)
        keys = [record.key for record in claimed]
        size = self._batch_size(len(keys))
        for start in range(0, len(keys), size):
            self._send(keys[start : start + size])

    def receive(self, envelope: Envelope) -> None:
        """Keep the labels and failures of a batch; a batch that died is tried one by one."""
        keys = self._batches.pop(envelope.key)
        store = self.workplace.store
        raise_if_hopeless(envelope)
        if not envelope.ok or envelope.result is None:
            if len(keys) > 1:
                for key in keys:
                    self._send([key])
            else:
                self._fail(keys[0], envelope.error_kind, envelope.error_message, envelope)
            return
        for entry in envelope.result["labels"]:
            key = entry["structure"]
            candidate = store.candidate(key)
            if entry["ok"]:
                self.keep(
                    key,
                    label_path(self.workplace.labels_dir, entry["label_key"]),
                    role=self._role(key, candidate.kind),
                    generation=candidate.generation,
                    worker=envelope.worker,
                )
                store.move_candidate(key, source=("running", "queued"), target="labelled")
            else:
                self._fail(key, entry["kind"], entry["message"], envelope)

    def keep(self, key: str, path: Path, *, role: str, generation: int, worker: str = "") -> None:
        """Read a label file into the Store; a label that is there already changes nothing."""
        label = read_label(path)
        assert isinstance(label, Label)
        name = self.workplace.fidelity.name
        new = self.workplace.store.add_label(
            label, fidelity_name=name, role=role, generation=generation, worker=worker
        )
        if new:
            self.num_labels += 1
            self._seconds.append(label.seconds)
        self.on_label(key)

    def _fail(self, key: str, kind: str, message: str, envelope: Envelope) -> None:
        """Record a failed label with its reason."""
        store = self.workplace.store
        candidate = store.candidate(key)
        new = store.add_failure(
            key,
            self.workplace.fidelity,
            kind=kind,
            message=message,
            bundle=self.workplace.kept_path(envelope.folder) if envelope.folder else "",
            generation=candidate.generation,
            worker=envelope.worker,
        )
        self.num_labels += int(new)
        store.move_candidate(key, source=("running", "queued"), target="failed", reason=kind)

    def _send(self, keys: list[str]) -> None:
        """Submit one batch."""
        payload = {
            **self.workplace.labeller_payload(),
            "frames": self.workplace.frame_file(self.workplace.store.structures(keys)),
            "keys": keys,
        }
        request = self.workplace.submit("label", payload)
        self._batches[request.key] = keys

    def _batch_size(self, num_keys: int) -> int:
        """Return how many structures go into one task."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else TASK_SECONDS
        by_time = math.floor(TASK_SECONDS / max(mean, 1e-3))
        by_worker = math.ceil(num_keys / max(self.workplace.dispatcher.capacity, 1))
        return max(1, min(by_time, by_worker, LARGEST_BATCH))

    def _role(self, key: str, kind: str) -> str:
        """Return "calibration" for audits and a fixed share of dynamics frames, else "train".

        The lot hangs on the structure's key, so that it is the same however often it is drawn.
        """
        if kind == "audit":
            return "calibration"
        origin = self.workplace.store.structure_record(key).origin
        if origin.get("kind") not in ("rattle", "md", "neb"):
            return "train"
        campaign = self.workplace.campaign
        lot = random_generator(campaign.seed, "role", key).random()
        return "calibration" if lot < campaign.acquisition.calibration_share else "train"
