"""Labels: from the queue to the labeller and into the Store, each at most once.

A queued candidate is claimed, sent out in a batch, and ends as `labelled` or `failed`. Workers
write every label to a file of its own key first, so that what a killed campaign had computed is
read, not repeated.

With two levels of theory a candidate is labelled at the cheap one, and at the expensive one too
where the choice of frames asks for it, at saddle points, and at some of the frames kept for
calibration. It goes back to the queue between the two.
"""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from tace_al.campaign.outliers import Outliers
from tace_al.campaign.retrying import kept_bundle, retries
from tace_al.campaign.workplace import Level, Workplace, raise_if_hopeless
from tace_al.core.labels import Label
from tace_al.core.random_generators import random_generator
from tace_al.dispatch.apps import TIMED_OUT
from tace_al.dispatch.label_file import LabelFailure, label_path, read_label
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
        self._batches: dict[str, tuple[Level, list[str]]] = {}
        self._timed_out: set[str] = set()
        self._outliers = Outliers(workplace.store)
        records = workplace.store.labels(state=None)
        self.counts = Counter(str(record.fidelity_name) for record in records)
        self._seconds: dict[str, list[float]] = {name: [] for name in workplace.levels}
        for record in records:
            if record.seconds:
                self._seconds.setdefault(str(record.fidelity_name), []).append(record.seconds)
        workplace.store.release_stale(0.0, OWNER)

    @property
    def num_labels(self) -> int:
        """Labels of every level, failed ones included."""
        return self.counts.total()

    @property
    def num_running(self) -> int:
        """Candidates that are being labelled."""
        return sum(len(keys) for _, keys in self._batches.values())

    @property
    def remaining(self) -> int:
        """Labels that the budget still allows."""
        return self.workplace.campaign.stopping.max_labels - self.num_labels - self.num_running

    @property
    def remaining_expensive(self) -> int:
        """Labels of the expensive one of two levels that the budgets still allow."""
        target, limit = self.workplace.target, self.workplace.campaign.stopping.max_expensive_labels
        if limit is None:
            return self.remaining
        running = [len(keys) for level, keys in self._batches.values() if level == target]
        return min(self.remaining, limit - self.counts[target.name] - sum(running))

    @property
    def reason(self) -> str | None:
        """Why the campaign is over when its budget of expensive labels is spent, or None."""
        limit, name = (
            self.workplace.campaign.stopping.max_expensive_labels,
            self.workplace.target.name,
        )
        if limit is None or self.counts[name] < limit:
            return None
        return f"label budget spent: {self.counts[name]} of {limit} labels of {name}"

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
        store, target = self.workplace.store, self.workplace.target
        expensive = self.remaining_expensive
        by_level: dict[str, list[str]] = {name: [] for name in self.workplace.levels}
        for record in store.claim_candidates(OWNER, self.remaining):
            level = self._next_level(record)
            if level is None:  # another run got as far as its last label
                store.move_candidate(record.key, source="running", target="labelled")
            elif level == target and len(by_level[target.name]) >= expensive:
                reason = f"no budget for {target.name}"
                store.move_candidate(record.key, source="running", target="labelled", reason=reason)
            else:
                by_level[level.name].append(record.key)
        for name, keys in by_level.items():
            size = self._batch_size(len(keys), self.workplace.levels[name])
            for start in range(0, len(keys), size):
                self._send(keys[start : start + size], self.workplace.levels[name])

    def queue_expensive(self, key: str, *, generation: int) -> None:
        """Have a structure labelled at both of two levels, whatever it has been so far."""
        store, levels = self.workplace.store, list(self.workplace.levels)
        channel = store.structure_record(key).channel
        # the steps of a relaxation have labels without having been candidates
        store.add_candidate(
            key, kind="relax", channel=channel, generation=generation, state="labelled"
        )
        states = ("flagged", "queued", "labelled", "rejected", "expired")
        store.move_candidate(key, source=states, target="queued", levels=levels)

    def receive(self, envelope: Envelope) -> None:
        """Keep the labels and failures of a batch.

        A batch that died is tried one by one, and one structure that ran out of time once more.
        """
        level, keys = self._batches.pop(envelope.key)
        store = self.workplace.store
        raise_if_hopeless(envelope)
        if not envelope.ok or envelope.result is None:
            if len(keys) > 1 or self._deserves_more_time(keys[0], envelope):
                for key in keys:
                    self._send([key], level)
            else:
                kind, message = envelope.error_kind, envelope.error_message
                self._fail(keys[0], level, kind=kind, message=message, envelope=envelope)
            return
        for entry in envelope.result["labels"]:
            key = entry["structure"]
            candidate = store.candidate(key)
            path = label_path(self.workplace.labels_dir, entry["label_key"])
            problem = self._outliers.problem(key, path, level.name) if entry["ok"] else None
            if problem is not None:
                kind, message = problem.kind, problem.message
                self._fail(key, level, kind=kind, message=message, envelope=envelope)
            elif entry["ok"]:
                self.keep(
                    key,
                    path,
                    role=self.role(key, candidate.kind),
                    generation=candidate.generation,
                    worker=envelope.worker,
                    level=level,
                )
                two = self.workplace.cheap is not None
                further = two and self._next_level(candidate) is not None
                target = "queued" if further else "labelled"
                store.move_candidate(key, source=("running", "queued"), target=target)
            else:
                kind, message, attempts = entry["kind"], entry["message"], entry.get("attempts", 1)
                self._fail(
                    key, level, kind=kind, message=message, envelope=envelope, attempts=attempts
                )

    def keep(
        self,
        key: str,
        path: Path,
        *,
        role: str,
        generation: int,
        worker: str = "",
        level: Level | None = None,
    ) -> None:
        """Read a label file into the Store; a label that is there already changes nothing.

        `level` is the one of the result where nothing is said.
        """
        label = read_label(path)
        assert isinstance(label, Label)
        name = (level or self.workplace.target).name
        new = self.workplace.store.add_label(
            label, fidelity_name=name, role=role, generation=generation, worker=worker
        )
        if new:
            self.counts[name] += 1
            self._seconds[name].append(label.seconds)
        self.on_label(key)

    def _fail(
        self,
        key: str,
        level: Level,
        *,
        kind: str,
        message: str,
        envelope: Envelope,
        attempts: int = 1,
    ) -> None:
        """Record a failed label with its reason and the bundle that repeats it."""
        store = self.workplace.store
        candidate = store.candidate(key)
        failure = LabelFailure(
            structure_key=key,
            fidelity_key=level.fidelity.key,
            kind=kind,
            message=message,
            attempts=attempts,
            log=f"{message}\nThe task left its files in: {envelope.folder or 'no folder'}",
        )
        new = store.add_failure(
            key,
            level.fidelity,
            kind=kind,
            message=message,
            bundle=kept_bundle(store, failure, level.fidelity, level.choice),
            generation=candidate.generation,
            worker=envelope.worker,
            attempts=attempts,
        )
        self.counts[level.name] += int(new)
        store.move_candidate(key, source=("running", "queued"), target="failed", reason=kind)

    def _next_level(self, candidate: Any) -> Level | None:
        """Return the level a candidate is to be labelled at now, None where it has its labels."""
        levels = self.workplace.levels
        if self.workplace.cheap is None:
            return self.workplace.target
        records = self.workplace.store.labels_of_structure(candidate.key)
        done = {record.fidelity_name for record in records if record.state == "labelled"}
        wanted = list(candidate.levels) or self._levels(candidate.key, candidate.kind)
        return next((levels[name] for name in wanted if name not in done), None)

    def _levels(self, key: str, kind: str) -> list[str]:
        """Return the levels of a candidate that nothing was decided for."""
        names = list(self.workplace.levels)
        if kind == "saddle":
            return names
        campaign = self.workplace.campaign
        lot = random_generator(campaign.seed, "expensive", key).random()
        measured = self.role(key, kind) == "calibration"
        both = measured and lot < campaign.expensive.calibration_share
        return names if both else names[:1]

    def _send(self, keys: list[str], level: Level) -> None:
        """Submit one batch."""
        payload = {
            **self.workplace.labeller_payload(level),
            "frames": self.workplace.frame_file(self.workplace.store.structures(keys)),
            "keys": keys,
        }
        again = retries(self.workplace.store, keys)
        if again:  # at a user's word; it makes another request than the one that failed
            payload["retries"] = again
        limit = level.choice.max_seconds * len(keys)
        request = self.workplace.submit("label", payload, timeout_s=limit)
        self._batches[request.key] = (level, keys)

    def _deserves_more_time(self, key: str, envelope: Envelope) -> bool:
        """Tell whether a structure ran past its deadline for the first time."""
        if envelope.error_kind != TIMED_OUT or key in self._timed_out:
            return False
        self._timed_out.add(key)
        return True

    def _batch_size(self, num_keys: int, level: Level) -> int:
        """Return how many structures go into one task."""
        seconds = self._seconds[level.name]
        mean = sum(seconds) / len(seconds) if seconds else TASK_SECONDS
        by_time = math.floor(TASK_SECONDS / max(mean, 1e-3))
        by_worker = math.ceil(num_keys / max(self.workplace.dispatcher.capacity, 1))
        return max(1, min(by_time, by_worker, LARGEST_BATCH))

    def role(self, key: str, kind: str) -> str:
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
