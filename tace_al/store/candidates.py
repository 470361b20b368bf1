"""The queue of frames that may be worth a label.

States move atomically (`flagged -> queued -> running -> labelled | failed | rejected | expired`): a
move names the state it starts from and happens once, whoever else tries. A claim is a lease, with
an owner and a heartbeat, that goes back to the queue when its owner falls silent.
"""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, final

from tace_al.core.errors import StoreError, nearest_names
from tace_al.store import attempts
from tace_al.store.blobs import Values, blob_fields, pack_arrays, read_blob, unpack_arrays
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.records import CANDIDATE_STATES, CandidateRecord
from tace_al.store.table import Table, now

_UNOWNED = {"owner": None, "lease": None, "heartbeat": None}


@final
class Candidates:
    """The candidates of one campaign."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self._records = Table(CandidateRecord, connection, campaign)

    @guarded
    def add(
        self,
        structure_key: str,
        *,
        kind: str,
        channel: str,
        generation: int,
        uncertainty: float | None = None,
        priority: float = 0.0,
        prediction: Values | None = None,
        state: str = "flagged",
    ) -> bool:
        """Store a candidate; False when its structure is one already.

        Parameters
        ----------
        structure_key
            Key of the stored structure.
        kind
            Why: "seed", "uncertain", "audit", "saddle", "end_state" or "relax".
        channel, generation
            Where and when it was met.
        uncertainty
            Largest error bar of a force, eV/A.
        priority
            Higher is labelled first.
        prediction
            What the committee said: energy, energy_spread, forces, force_spread.
        state
            First state.
        """
        known = self._records.identity(key=structure_key)
        if known is not None:
            return attempts.made_here(known)
        packed = None if prediction is None else pack_arrays(prediction)
        return self._records.insert(
            key=structure_key,
            kind=kind,
            state=state,
            channel=channel,
            generation=generation,
            uncertainty=None if uncertainty is None else float(uncertainty),
            priority=float(priority),
            created=now(),
            updated=now(),
            **blob_fields(self.connection, "prediction", packed),
        )

    @guarded
    def move(self, key: str, *, source: str | tuple[str, ...], target: str, **fields: Any) -> bool:
        """Move a candidate from a state (or one of several) to another; False if it was not there.

        `fields` are set in the same instant.
        """
        sources = (source,) if isinstance(source, str) else tuple(source)
        _check_states(*sources, target)
        if isinstance(fields.get("prediction"), Mapping):
            packed = pack_arrays(fields.pop("prediction"))
            fields.update(blob_fields(self.connection, "prediction", packed))
        if target != "running":
            fields = {**_UNOWNED, **fields}
        fields = {**fields, "state": target, "updated": now()}
        return self._records.move({"key": key}, sources, fields)

    def claim(self, owner: str, limit: int) -> list[CandidateRecord]:
        """Lease up to `limit` queued candidates to `owner`, highest priority first."""
        return self._claim(owner, limit, uuid.uuid4().hex)

    @guarded
    def _claim(self, owner: str, limit: int, lease: str) -> list[CandidateRecord]:
        """Claim; what an earlier try got under the same lease is part of the answer."""
        claimed: list[CandidateRecord] = []
        if attempts.tried_before():
            own = self._records.objects.filter(state="running", lease=lease)
            claimed.extend(own.order_by("-priority", "id"))
        while len(claimed) < limit:
            time = now()
            record = (
                self._records.objects.filter(state="queued")
                .order_by("-priority")
                .modify(
                    new=True,
                    set__state="running",
                    set__owner=owner,
                    set__lease=lease,
                    set__heartbeat=time,
                    set__updated=time,
                    inc__attempts=1,
                )
            )
            if record is None:
                break
            claimed.append(record)
        return claimed

    @guarded
    def heartbeat(self, owner: str) -> int:
        """Renew the leases of `owner`; return how many it has."""
        return self._records.change({"state": "running", "owner": owner}, {"heartbeat": now()})

    @guarded
    def release_stale(self, older_than_seconds: float, owner: str | None = None) -> int:
        """Put leases back into the queue whose last heartbeat is too long ago.

        Parameters
        ----------
        older_than_seconds
            Age from which a lease is stale; 0 releases all.
        owner
            Only this owner's.
        """
        where: dict[str, Any] = {
            "state": "running",
            "heartbeat__lte": now() - timedelta(seconds=older_than_seconds),
        }
        if owner is not None:
            where["owner"] = owner
        fields = {**_UNOWNED, "state": "queued", "updated": now()}
        return self._records.change(where, fields)

    @guarded
    def records(self, state: str | None = None, kind: str | None = None) -> list[CandidateRecord]:
        """Return candidates by falling priority; None means any state or kind."""
        if state is not None:
            _check_states(state)
        where = {"state": state, "kind": kind}
        wanted = {name: value for name, value in where.items() if value is not None}
        return list(self._records.objects.filter(**wanted).order_by("-priority", "id"))

    @guarded
    def record(self, key: str) -> CandidateRecord:
        """Return the candidate with a structure's key."""
        return self._records.one(key=key)

    @guarded
    def prediction(self, candidate: CandidateRecord) -> dict[str, Any]:
        """Return what the committee said about a candidate, empty if nothing."""
        content = read_blob(self.connection, candidate.prediction, candidate.prediction_file)
        return {} if content is None else unpack_arrays(content)


def _check_states(*states: str) -> None:
    """Raise for a word that is no state."""
    for state in states:
        if state not in CANDIDATE_STATES:
            raise StoreError(
                f"{state!r} is no state of a candidate.{nearest_names(state, CANDIDATE_STATES)}"
            )
