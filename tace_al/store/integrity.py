"""Does a campaign's database still say what was once put into it?

Everything in the Store is named by its content, so everything can be recomputed: the key of a
structure from its frame, of a level from its settings, of a label from structure and level, of a
training set from its labels in order, of a model from its file. `check_records` does that, follows
every reference from one record to another, and looks at states that no living process would leave
behind. What only files can tell (`check_files`) stands in `integrity_files`, repairs in `repair`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

import numpy as np

from tace_al.core.errors import StoreError
from tace_al.core.hashing import content_hash
from tace_al.core.labels import label_key
from tace_al.data.frames import frames_from_bytes, structure_key
from tace_al.store.blobs import unpack_arrays
from tace_al.store.damage import Damage
from tace_al.store.models import training_set_key, unpacked_keys
from tace_al.store.raw_records import Contents, RawRecords
from tace_al.store.records import (
    CampaignRecord,
    FidelityRecord,
    GenerationRecord,
    LabelRecord,
    ModelRecord,
    StructureRecord,
    TrainingSetRecord,
)
from tace_al.store.store import Store
from tace_al.store.table import now

Problem = Literal[
    "record",
    "campaign",
    "fidelity",
    "structure",
    "label",
    "label file",
    "unread label",
    "candidate",
    "lease",
    "training set",
    "model",
    "model file",
    "generation",
    "orphan file",
]
PROBLEMS: tuple[Problem, ...] = get_args(Problem)
FORGET = "forget it"
LEASE_SECONDS = 600.0
"""A lease whose owner has been silent for longer, while no campaign runs, is stuck."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Parameters
    ----------
    problem
        What kind of record or file is concerned.
    key
        Which one.
    text
        What is wrong with it.
    repair
        What a repair would do, "" when only a person can decide.
    """

    problem: Problem
    key: str
    text: str
    repair: str = ""


def check_records(
    store: Store, *, running: bool, progress: Callable[[str], None] = lambda _: None
) -> list[Finding]:
    """Return what is wrong with the records of a campaign.

    Parameters
    ----------
    store
        The campaign's records.
    running
        Whether a process runs the campaign, so that its leases are alive.
    progress
        Is told what is being looked at.
    """
    raw = RawRecords(store.connection, store.campaign_id)
    contents = raw.contents()
    checks: dict[str, Callable[[RawRecords, Contents], Iterator[Finding]]] = {
        "campaign": _campaign,
        "structures": _structures,
        "labels": _labels,
        "candidates": _candidates,
        "training sets": _training_sets,
        "models": _models,
    }
    findings = list(_damaged(store))
    for name, check in checks.items():
        progress(name)
        findings.extend(check(raw, contents))
    if not running:
        findings.extend(_leases(store))
    return findings


def _damaged(store: Store) -> Iterator[Finding]:
    """Name the documents whose bytes changed on disk, under their own kind where that is known."""
    for each in Damage(store.connection).documents():
        kinds = {name.replace(" ", "_"): name for name in PROBLEMS}
        known = each.key and not each.lost
        text = "cannot be read any more" if each.lost else "has other bytes than were written"
        yield Finding(
            problem=kinds.get(each.collection, "record") if known else "record",
            key=each.key or str(each.serial),
            text=f"its document in {each.collection!r} {text}",
            repair=FORGET if each.lost else "",
        )


def _campaign(raw: RawRecords, contents: Contents) -> Iterator[Finding]:
    """Check the campaign's own record and its levels of theory."""
    for record in raw.each(CampaignRecord, "config", "config_hash"):
        if _hash(record["config"]) != record["config_hash"]:
            yield Finding(
                problem="campaign",
                key=raw.campaign,
                text="its configuration is not the one that was hashed",
            )
    for record in raw.each(FidelityRecord, "key", "name", "code", "settings"):
        level = {name: record[name] for name in ("name", "code")}
        if _hash({**level, "settings": record.get("settings", {})}) != record["key"]:
            yield Finding(
                problem="fidelity",
                key=record["key"],
                text=f"the settings of {record['name']!r} are not those it was named after",
            )


def _structures(raw: RawRecords, contents: Contents) -> Iterator[Finding]:
    """Recompute the key of every structure."""
    for record in raw.each(StructureRecord, "key", "frame", "frame_file", "num_atoms"):
        content = raw.blob(record, "frame")
        try:
            (atoms,) = frames_from_bytes(content)
            key, number = structure_key(atoms), len(atoms)
        except Exception as error:  # damaged bytes fail in as many ways as there are
            text = f"its frame cannot be read ({type(error).__name__})"
        else:
            if key == record["key"] and number == record["num_atoms"]:
                continue
            text = f"its frame is that of structure {key}"
        yield Finding(problem="structure", key=record["key"], text=text)


def _labels(raw: RawRecords, contents: Contents) -> Iterator[Finding]:
    """Recompute the key of every label and look at its numbers."""
    for record in raw.each(LabelRecord):
        text = label_damage(raw, record)
        if text is None and record["structure"] not in contents.structures:
            text = f"its structure {record['structure']} is missing"
        if text is None and record["fidelity"] not in contents.fidelities:
            text = f"its level {record['fidelity_name']!r} ({record['fidelity']}) is missing"
        if text is not None:
            yield Finding(problem="label", key=record["key"], text=text)


def label_damage(raw: RawRecords, record: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a label's own numbers, None for nothing."""
    if label_key(record["structure"], record["fidelity"]) != record["key"]:
        return "its key is not that of its structure and level"
    if record["state"] != "labelled":
        return None
    energy = record.get("energy")
    if not isinstance(energy, float) or not math.isfinite(energy):
        return f"its energy is {energy!r}"
    content = raw.blob(record, "arrays")
    try:
        arrays = unpack_arrays(content)
        forces = np.asarray(arrays["forces"])
    except Exception as error:  # damaged bytes fail in as many ways as there are
        return f"its forces cannot be read ({type(error).__name__})"
    if forces.ndim != 2 or forces.shape[1] != 3 or not np.isfinite(forces).all():
        return f"its forces of shape {forces.shape} are not finite numbers of shape (atoms, 3)"
    return None


def _candidates(raw: RawRecords, contents: Contents) -> Iterator[Finding]:
    """Look for candidates without their structure, and for labelled ones without their label."""
    with_label = {contents.labels[key] for key in contents.labelled}
    for key, state in contents.candidates.items():
        if key not in contents.structures:
            yield Finding(problem="candidate", key=key, text="its structure is missing")
        elif state == "labelled" and key not in with_label:
            yield Finding(
                problem="candidate",
                key=key,
                text="it counts as labelled and has no label",
                repair="put it into the queue again",
            )


def _leases(store: Store) -> Iterator[Finding]:
    """Look for leases whose owner is gone."""
    oldest = now() - timedelta(seconds=LEASE_SECONDS)
    for candidate in store.candidates(state="running"):
        if candidate.heartbeat is None or candidate.heartbeat <= oldest:
            yield Finding(
                problem="lease",
                key=candidate.key,
                text=f"{candidate.owner or 'nobody'} holds it since {candidate.heartbeat} "
                "and no campaign runs",
                repair="put it into the queue again",
            )


def _training_sets(raw: RawRecords, contents: Contents) -> Iterator[Finding]:
    """Recompute the key of every training set and find its labels."""
    for record in raw.each(TrainingSetRecord):
        keys = unpacked_keys(raw.blob(record, "label_keys"))
        missing = [key for key in keys if key not in contents.labels]
        text = ""
        if len(keys) != record["count"] or training_set_key(keys) != record["key"]:
            text = "its labels are not those it was named after"
        elif missing:
            text = f"{len(missing)} of its {len(keys)} labels are missing, {missing[0]} first"
        if text:
            yield Finding(problem="training set", key=record["key"], text=text)


def _models(raw: RawRecords, contents: Contents) -> Iterator[Finding]:
    """Follow models to their training sets, and generations to their models."""
    for record in raw.each(ModelRecord, "key", "training_set"):
        if record["training_set"] not in contents.training_sets:
            text = f"its training set {record['training_set']} is missing"
            yield Finding(problem="model", key=record["key"], text=text)
    for record in raw.each(GenerationRecord, "number", "models"):
        for key in record.get("models", ()):
            if key not in contents.models:
                text = f"its model {key} is missing"
                yield Finding(problem="generation", key=str(record["number"]), text=text)


def _hash(content: Any) -> str:
    """Return the hash of content, "" where it cannot be hashed."""
    try:
        return content_hash(content)
    except (TypeError, ValueError, StoreError):
        return ""
