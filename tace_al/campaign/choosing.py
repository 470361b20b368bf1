"""Which of the flagged frames are worth their labels.

When a generation's exploration is in, everything that waits is looked at again by the committee
that serves now: frames it knows by now expire, near-duplicates are rejected, and the budget of the
generation goes to the uncertain and different ones, shared among the channels. Up to half of it is
kept for images of the bands: the barrier is what the campaign is for, and hot dynamics is always
more uncertain.

With two levels of theory those frames are labelled at the cheap one, and a few structures, new or
old, at the expensive one too: where the committee does not know what the levels differ by.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from tace_al.campaign.generations import Serving
from tace_al.campaign.labelling import Labelling
from tace_al.campaign.workplace import Workplace, failed_task, raise_if_hopeless
from tace_al.dispatch.request import Envelope
from tace_al.selection.acquisition import Candidate, select
from tace_al.selection.fidelities import choose_expensive

LARGEST_QUEUE = 400
"""Frames ranked at once; the least uncertain beyond that expire."""

ON_PATH = ("neb", "path", "saddle")
"""Origins of structures that lie on a reaction path."""


@final
class Choosing:
    """Ranks the waiting frames once a generation."""

    def __init__(self, workplace: Workplace, labelling: Labelling) -> None:
        self.workplace, self.labelling = workplace, labelling
        self._ranking = ""
        self._waiting: list[str] = []
        self._covered: list[str] = []

    @property
    def running(self) -> bool:
        """Whether a ranking is on its way."""
        return bool(self._ranking)

    def done(self, serving: Serving) -> bool:
        """Whether this generation has chosen."""
        return bool(self.workplace.store.generation(serving.number).audit.get("chosen"))

    def expects(self, key: str) -> bool:
        """Whether an assessment is the ranking."""
        return key == self._ranking

    def start(self, serving: Serving) -> None:
        """Have every waiting frame, and every labelled one, looked at by the serving committee."""
        store = self.workplace.store
        flagged = sorted(
            store.candidates(state="flagged"), key=lambda record: -(record.uncertainty or 0.0)
        )
        for record in flagged[LARGEST_QUEUE:]:
            store.move_candidate(
                record.key, source="flagged", target="expired", reason="queue full"
            )
        self._waiting = [record.key for record in flagged[:LARGEST_QUEUE]]
        if not self._waiting:
            self._finish(serving, {"flagged": 0, "chosen": 0})
            return
        self._covered = list(dict.fromkeys(record.structure for record in store.labels()))
        keys = [*self._waiting, *self._covered]
        cheap = self.workplace.cheap
        payload = {
            "models": list(serving.models),
            "frames": self.workplace.frame_file(store.structures(keys)),
            **self.workplace.head,
            **({} if cheap is None else {"cheap": cheap.name}),
        }
        self._ranking = self.workplace.submit("assess", payload).key

    def receive(self, envelope: Envelope, serving: Serving) -> None:
        """Choose from the ranked frames."""
        raise_if_hopeless(envelope)
        if not envelope.ok or envelope.result is None:
            raise failed_task(envelope, "the waiting frames cannot be ranked")
        self._ranking = ""
        store, acquisition = self.workplace.store, self.workplace.campaign.acquisition
        with np.load(Path(envelope.folder) / envelope.result["assessment_file"]) as content:
            arrays = {name: content[name] for name in content.files}
        spreads = np.split(arrays["force_spread"], np.cumsum(arrays["counts"])[:-1])
        descriptors = arrays["descriptors"]
        candidates, number = [], len(self._waiting)
        for index, key in enumerate(self._waiting):
            uncertainty = float(serving.calibration.force_error(spreads[index]).max())
            if uncertainty < acquisition.low:
                reason = f"known to generation {serving.number}"
                store.move_candidate(key, source="flagged", target="expired", reason=reason)
                continue
            candidates.append(
                Candidate(
                    key=key,
                    channel=store.candidate(key).channel,
                    uncertainty=uncertainty,
                    descriptor=descriptors[index],
                )
            )
        owners = np.array([store.structure_record(key).channel for key in self._covered])
        covered = {
            channel: descriptors[number:][owners == channel] for channel in set(owners.tolist())
        }
        budget = min(acquisition.per_generation, max(self.labelling.remaining, 0))
        kinds = {c.key: store.structure_record(c.key).origin.get("kind") for c in candidates}
        on_band = [candidate for candidate in candidates if kinds[candidate.key] == "neb"]
        first = select(on_band, budget // 2, covered=covered)
        taken = {*first.chosen, *first.duplicates}
        rest = [candidate for candidate in candidates if candidate.key not in taken]
        for candidate in candidates:
            if candidate.key in first.chosen:
                former = covered.get(candidate.channel, np.zeros((0, descriptors.shape[1])))
                covered[candidate.channel] = np.vstack([former, candidate.descriptor])
        second = select(rest, budget - len(first.chosen), covered=covered)
        for key in (*first.duplicates, *second.duplicates):
            store.move_candidate(key, source="flagged", target="rejected", reason="duplicate")
        ranks = {candidate.key: candidate.uncertainty for candidate in candidates}
        chosen = (*first.chosen, *second.chosen)
        for key in chosen:
            store.move_candidate(key, source="flagged", target="queued", priority=ranks[key])
        outcome = {"flagged": number, "chosen": len(chosen)}
        if self.workplace.cheap is not None:
            outcome["expensive"] = self._choose_expensive(serving, arrays, chosen)
        self._finish(serving, outcome)

    def _choose_expensive(
        self, serving: Serving, arrays: Mapping[str, Any], chosen: tuple[str, ...]
    ) -> int:
        """Queue structures for expensive labels; return how many.

        Eligible are the frames just chosen and everything with a cheap label alone, without what is
        kept for calibration.
        """
        settings, number = self.workplace.campaign.expensive, len(self._waiting)
        places = {key: place for place, key in enumerate(self._waiting) if key in chosen}
        places |= {key: number + place for place, key in enumerate(self._covered)}
        spreads = np.split(arrays["difference_spread"], np.cumsum(arrays["counts"])[:-1])
        records = {key: self.workplace.store.structure_record(key) for key in places}
        done, eligible = self._sorted_by_label(places)
        candidates = [
            Candidate(
                key=key,
                channel=records[key].channel,
                uncertainty=float(serving.calibration.force_error(spreads[places[key]]).max()),
                descriptor=arrays["descriptors"][places[key]],
            )
            for key in eligible
            if records[key].num_atoms > 1
        ]
        picked = choose_expensive(
            candidates,
            min(settings.per_generation, max(self.labelling.remaining_expensive, 0)),
            low=settings.low,
            on_path=frozenset(key for key in eligible if records[key].origin["kind"] in ON_PATH),
            covered={
                channel: arrays["descriptors"][
                    [places[key] for key in done if records[key].channel == channel]
                ]
                for channel in {records[key].channel for key in done}
            },
        )
        for key in picked:
            self.labelling.queue_expensive(key, generation=serving.number)
        return len(picked)

    def _sorted_by_label(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return which structures were tried at the expensive level, and which may be."""
        store, target = self.workplace.store, self.workplace.target.name
        records = store.labels(state=None)
        tried = {str(record.structure) for record in records if record.fidelity_name == target}
        kinds = {str(record.key): str(record.kind) for record in store.candidates()}
        done, eligible = [], []
        for key in keys:
            if key in tried:
                done.append(key)
            elif self.labelling.role(key, kinds.get(key, "relax")) == "train":
                eligible.append(key)
        return done, eligible

    def expire(self) -> None:
        """Let go of what the last generation could not afford."""
        for record in self.workplace.store.candidates(state="flagged"):
            self.workplace.store.move_candidate(
                record.key, source="flagged", target="expired", reason="the campaign ended"
            )

    def _finish(self, serving: Serving, outcome: dict[str, int]) -> None:
        """Remember that this generation has chosen."""
        store = self.workplace.store
        audit = {**store.generation(serving.number).audit, "chosen": outcome}
        store.update_generation(serving.number, audit=audit)
