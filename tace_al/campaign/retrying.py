"""Failed labels of a campaign, and how they go back to the queue at a user's word.

A retry is an event in the Store that names the structure and the options of the labeller to try it
with; the candidate then waits in the queue like any other, and `tace-al run` labels it. The options
may lead another way to the number (more iterations, gentler mixing) and never to another number:
that would be another level of theory. A relaxation of a start state, which the queue knows nothing
of, is tried again as a whole.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tace_al.campaign.config import LabellerChoice
from tace_al.core.errors import ConfigError, DataError, nearest_names
from tace_al.core.labels import Fidelity, Label, Setting, label_key
from tace_al.data.extxyz import read_structures
from tace_al.data.frames import structure_key
from tace_al.dispatch.bundle import BUNDLES, bundle_folder, write_bundle
from tace_al.dispatch.label_file import LabelFailure, label_path
from tace_al.dispatch.tasks.label import stored_label
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.labeller import Labeller
from tace_al.store.store import Store

RETRY = "retry"
"""Kind of the events that this module writes and reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedLabel:
    """One label that could not be made.

    Parameters
    ----------
    structure, formula, channel
        What was to be labelled, and the reaction it belongs to.
    fidelity, fidelity_key
        Level of theory, by name and by content.
    kind, message, attempts
        As in `LabelFailed`.
    generation
        Generation that asked for it.
    bundle
        Folder that repeats it, "" where there is none.
    state
        State of the candidate by now: "failed", or "queued" when it is to be tried again.
    """

    structure: str
    formula: str
    channel: str
    fidelity: str
    fidelity_key: str
    kind: str
    message: str
    attempts: int
    generation: int
    bundle: str
    state: str


def failed_labels(store: Store, kind: str | None = None) -> list[FailedLabel]:
    """Return the failed labels of a campaign, those of one kind where it is named.

    Raises
    ------
    DataError
        No label has failed with that kind, but some with others.
    """
    records = store.labels(state="failed")
    kinds = sorted({str(record.failure_kind) for record in records})
    if kind is not None and kinds and kind not in kinds:
        raise DataError(
            f"no label failed with '{kind}'.{nearest_names(kind, kinds)} "
            "`tace-al failures DIR` lists them"
        )
    chosen = [record for record in records if kind in (None, record.failure_kind)]
    states = {record.key: str(record.state) for record in store.candidates()}
    frames = store.structures([record.structure for record in chosen])
    return [
        FailedLabel(
            structure=record.structure,
            formula=atoms.get_chemical_formula(),
            channel=str(store.structure_record(record.structure).channel),
            fidelity=record.fidelity_name,
            fidelity_key=record.fidelity,
            kind=str(record.failure_kind),
            message=str(record.message),
            attempts=int(record.attempts or 1),
            generation=int(record.generation),
            bundle=str(store.directory / record.bundle) if record.bundle else "",
            state=states.get(record.structure, "failed"),
        )
        for record, atoms in zip(chosen, frames, strict=True)
    ]


def requeue(
    store: Store, failures: Sequence[FailedLabel], options: Mapping[str, Setting]
) -> list[FailedLabel]:
    """Put failed labels back into the queue; return those that were not there already.

    Parameters
    ----------
    failures
        From `failed_labels`.
    options
        Options of the labeller to try them with, besides the campaign's.

    Raises
    ------
    ConfigError
        An option is unknown, or would be another level of theory.
    """
    for fidelity_key in sorted({failure.fidelity_key for failure in failures}):
        labeller_of(store, fidelity_key, options)
    moved = []
    for failure in failures:
        if failure.state != "failed":
            continue
        number = len(_events(store, failure.structure)) + 1
        store.log(
            RETRY,
            f"{failure.formula} is tried again after '{failure.kind}'",
            structure=failure.structure,
            number=number,
            options=dict(options),
            channel=failure.channel,
            fidelity=failure.fidelity,
        )
        # what the file says is the last word to a worker
        key = label_key(failure.structure, failure.fidelity_key)
        label_path(store.directory / "labels", key).unlink(missing_ok=True)
        if store.move_candidate(failure.structure, source="failed", target="queued"):
            moved.append(failure)
    return moved


def label_now(
    store: Store, failures: Sequence[FailedLabel], options: Mapping[str, Setting]
) -> Iterator[tuple[FailedLabel, str]]:
    """Label requeued structures in this process; yield each with "" or why it failed again.

    The label lies in its file then, under its key, as a worker would have left it: the next
    `tace-al run` takes it from there without computing anything.
    """
    for failure in failures:
        labeller, ceiling = labeller_of(store, failure.fidelity_key, options)
        outcome = stored_label(
            labeller,
            store.structure(failure.structure),
            labels_dir=store.directory / "labels",
            force_ceiling=ceiling,
        )
        yield failure, "" if isinstance(outcome, Label) else f"{outcome.kind}: {outcome.message}"


def labeller_of(
    store: Store, fidelity_key: str, options: Mapping[str, Setting]
) -> tuple[Labeller, float]:
    """Return the labeller of a level of theory with further options, and its force ceiling.

    Raises
    ------
    ConfigError
        The campaign has no such labeller now (a code was updated), or an option makes it another.
    """
    config = store.campaign().config
    for choice in config.get("fidelities") or [config["labeller"]]:
        plain = labeller_from_name(choice["name"], choice["options"])
        if plain.fidelity.key != fidelity_key:
            continue
        labeller = labeller_from_name(choice["name"], {**choice["options"], **options})
        if labeller.fidelity.key != fidelity_key:
            raise ConfigError(
                f"{_named(plain, labeller)} would be another level of theory than that of the "
                "campaign's labels; give only options that lead another way to the same number, "
                "such as max_iterations or mixing, or start a campaign of its own"
            )
        return labeller, float(choice["force_ceiling"])
    raise ConfigError(
        "the campaign's labeller is not the one these labels failed with, most likely because its "
        "code was updated; install the former version, or start a campaign of its own"
    )


def retries(store: Store, keys: Sequence[str]) -> dict[str, Any]:
    """Return, for structures that are tried again, how often they were and with which options."""
    found: dict[str, Any] = {}
    wanted = set(keys)
    for event in store.events(kind=RETRY):
        structure = event.data["structure"]
        if structure in wanted:
            found[structure] = {
                "number": event.data["number"],
                "options": dict(event.data["options"]),
            }
    return found


def relaxation_retries(store: Store, channel: str) -> dict[str, Any]:
    """Return how the start states of a channel are to be relaxed once more, {} where never asked.

    `number` of the last retry and, by name of the level of theory, further `options`.
    """
    relaxed = {record.key for record in store.candidates() if record.kind == "relax"}
    asked = [
        event
        for event in store.events(kind=RETRY)
        if event.data.get("channel") == channel and event.data["structure"] in relaxed
    ]
    options: dict[str, dict[str, Setting]] = {}
    for event in asked:
        options.setdefault(event.data["fidelity"], {}).update(event.data["options"])
    return {"number": len(asked), "options": options} if asked else {}


def adopt_bundles(store: Store, levels: Mapping[str, Fidelity], channel: str) -> None:
    """Record the failures that only bundles tell of: those that ended a relaxation.

    Parameters
    ----------
    levels
        Levels of theory of the campaign, by name.
    channel
        Channel whose start state was relaxed.
    """
    known = {str(record.key) for record in store.labels(state=None)}
    for path in sorted((store.directory / BUNDLES).glob("*/failure.json")):
        told = json.loads(path.read_text())
        structure, key = told["structure_key"], told["label_key"]
        level = next((f for f in levels.values() if label_key(structure, f.key) == key), None)
        atoms = read_structures(path.with_name("structure.xyz"))[0]
        if key in known or level is None or structure_key(atoms) != structure:
            continue
        store.add_structure(atoms, channel=channel, origin={"kind": "relax"})
        store.add_candidate(structure, kind="relax", channel=channel, generation=0, state="failed")
        store.add_failure(
            structure,
            level,
            kind=told["kind"],
            message=told["message"],
            bundle=str(path.parent.relative_to(store.directory)),
            generation=0,
            attempts=told["attempts"],
        )


@contextmanager
def standing_still(directory: Path) -> Iterator[None]:
    """Hold the lock of a campaign's folder, so that no run starts meanwhile.

    Raises
    ------
    ConfigError
        A run holds it.
    """
    with (directory / "run.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"the campaign in {directory} is running; leave --now out and it labels them "
                "itself, or wait for its end"
            ) from error
        yield


def kept_bundle(
    store: Store, failure: LabelFailure, fidelity: Fidelity, choice: LabellerChoice
) -> str:
    """Return the bundle of a failure from the campaign's folder; write it for a worker that died.

    Parameters
    ----------
    fidelity, choice
        Level of theory and labeller it failed at.
    """
    folder = bundle_folder(store.directory, failure.key)
    if not folder.exists():
        write_bundle(
            folder,
            store.structure(failure.structure_key),
            failure,
            labeller=choice.name,
            options=choice.options,
            fidelity=fidelity,
        )
    return str(folder.relative_to(store.directory)) if folder.exists() else ""


def _events(store: Store, structure: str) -> list[Any]:
    """Return the retries of a structure so far."""
    return [event for event in store.events(kind=RETRY) if event.data["structure"] == structure]


def _named(before: Labeller, after: Labeller) -> str:
    """Return the settings in which two levels of theory differ."""
    old, new = before.fidelity.settings, after.fidelity.settings
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name}={new.get(name)}" for name in sorted(changed)) or "another name"
