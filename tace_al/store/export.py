"""Frames that leave a campaign, each with where it comes from.

Labels stand where training looks for them (`REF_energy` in eV, `REF_forces` in eV/A, `REF_stress`
in eV/A^3, `REF_dipole` in e A); beside them, in `info`:

    campaign, structure_key, label_key      what leads back with `tace-al lineage`
    fidelity, fidelity_key, code            level of theory, its hash, program and version
    channel, generation, role, sequence     what for, who asked, train or calibration, order
    origin, walker, step, chunk             kind of source, trajectory and place in it
    candidate, state, uncertainty           why and how it was chosen, error bar then (eV/A)
    worker, seconds, code_version           who made the label and how long, release of tace-al

Frames of several levels also carry `head`, by which training tells them apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from tace_al.core.errors import DataError, nearest_names
from tace_al.data.frames import frames_from_bytes
from tace_al.store.blobs import unpack_arrays
from tace_al.store.labels import ENERGY, FORCES, STRESS
from tace_al.store.raw_records import RawRecords
from tace_al.store.records import (
    CANDIDATE_STATES,
    LABEL_ROLES,
    CandidateRecord,
    FidelityRecord,
    LabelRecord,
    StructureRecord,
)
from tace_al.store.store import Store
from tace_al.store.structures import chunked

DIPOLE = "REF_dipole"
HEAD = "head"
Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which frames; None and () mean any.

    Parameters
    ----------
    fidelities
        Names of levels of theory; () is the only one there is.
    channel, generation, role
        Reaction channel, generation that asked for the label, "train" or "calibration".
    state
        "labelled", or a state of candidates: then frames have no labels.
    """

    fidelities: Sequence[str] = ()
    channel: str | None = None
    generation: int | None = None
    role: str | None = None
    state: str = "labelled"

    def __post_init__(self) -> None:
        """Refuse words that select nothing."""
        for word, value, valid in (
            ("role", self.role, LABEL_ROLES),
            ("state", self.state, CANDIDATE_STATES),
        ):
            if value is not None and value not in valid:
                raise DataError(f"{value!r} is no {word}.{nearest_names(value, valid)}")
        if self.state != "labelled" and (self.fidelities or self.role):
            raise DataError(
                f"frames that are {self.state} have no label; leave --fidelity and --role out"
            )


def exported_frames(store: Store, selection: Selection) -> list[Atoms]:
    """Return the selected frames with their provenance, in order of arrival.

    Raises
    ------
    DataError
        Nothing fits, or labels of several levels would be mixed without being told apart.
    """
    raw = RawRecords(store.connection, store.campaign_id)
    if selection.state == "labelled":
        records = _labels(raw, selection, store)
    else:
        records = _candidates(raw, selection)
    if selection.channel is not None:
        # A label does not know its channel; its structure does.
        channels = {each["key"]: each["channel"] for each in raw.keys(StructureRecord, "channel")}
        known = sorted(set(channels.values()))
        if selection.channel not in known:
            raise DataError(
                f"{store.directory} has no channel {selection.channel!r}."
                f"{nearest_names(selection.channel, known)}"
            )
        records = [each for each in records if channels[each["structure"]] == selection.channel]
    if not records:
        raise DataError(
            f"no frames in {store.directory} fit the selection; `tace-al status` shows what there "
            "is"
        )
    version = store.campaign().code_version
    return _frames(raw, records, several=len(selection.fidelities) > 1, code_version=version)


def _labels(raw: RawRecords, selection: Selection, store: Store) -> list[dict[str, Any]]:
    """Return the selected label documents in order of arrival."""
    small = ("fidelity_name", "state", "role", "generation", "sequence")
    labels = [each for each in raw.keys(LabelRecord, *small) if each["state"] == "labelled"]
    names = sorted({str(each["fidelity_name"]) for each in labels})
    wanted = list(selection.fidelities)
    if not names:
        raise DataError(f"{store.directory} has no such labels yet; there is nothing to write")
    if unknown := [name for name in wanted if name not in names]:
        raise DataError(f"{store.directory} has labels of {', '.join(names)}, not of {unknown[0]}")
    if not wanted and len(names) > 1:
        raise DataError(
            f"{store.directory} has labels of {', '.join(names)}; they must not be mixed, choose "
            "one with --fidelity (or several: their frames then carry head=NAME)"
        )
    chosen = [
        each
        for each in labels
        if each["fidelity_name"] in (wanted or names)
        and selection.role in (None, each.get("role"))
        and selection.generation in (None, each["generation"])
    ]
    chosen.sort(key=lambda each: each["sequence"])
    found: dict[str, dict[str, Any]] = {}
    for portion in chunked([each["key"] for each in chosen]):
        for record in raw.found(LabelRecord._meta["collection"], {"key": {"$in": portion}}, None):
            found[record["key"]] = record
    return [found[each["key"]] for each in chosen]


def _candidates(raw: RawRecords, selection: Selection) -> list[dict[str, Any]]:
    """Return the selected candidates as documents that name their structure."""
    return [
        {**each, "structure": each["key"]}
        for each in raw.keys(CandidateRecord, "state", "generation")
        if each["state"] == selection.state and selection.generation in (None, each["generation"])
    ]


def _frames(
    raw: RawRecords, records: Sequence[Fields], *, several: bool, code_version: str
) -> list[Atoms]:
    """Return the frames of label or candidate documents."""
    levels = {each["key"]: each for each in raw.each(FidelityRecord)}
    frames = []
    for portion in _portions(records):
        wanted = {"key": {"$in": list({each["structure"] for each in portion})}}
        structures = _by_key(raw.found(StructureRecord._meta["collection"], wanted, None))
        names = ("key", "kind", "state", "uncertainty", "generation", "reason")
        projection = dict.fromkeys(names, 1)
        candidates = _by_key(raw.found(CandidateRecord._meta["collection"], wanted, projection))
        for record in portion:
            structure = structures[record["structure"]]
            (atoms,) = frames_from_bytes(raw.blob(structure, "frame"))
            atoms.info.update(_origin(structure, candidates.get(record["structure"], {})))
            atoms.info.update(campaign=raw.campaign, code_version=code_version)
            if "fidelity" in record:
                _put_label(atoms, record, unpack_arrays(raw.blob(record, "arrays")))
                atoms.info["code"] = levels.get(record["fidelity"], {}).get("code", "")
                if several:
                    atoms.info[HEAD] = record["fidelity_name"]
            atoms.info = {name: value for name, value in atoms.info.items() if value is not None}
            frames.append(atoms)
    return frames


def _origin(structure: Fields, candidate: Fields) -> dict[str, Any]:
    """Return where a frame was met, and why and how it was chosen."""
    origin = structure.get("origin", {})
    return {
        "structure_key": structure["key"],
        "channel": structure["channel"],
        "origin": origin.get("kind"),
        "walker": origin.get("walker"),
        "step": origin.get("step"),
        "chunk": origin.get("index"),
        "candidate": candidate.get("kind"),
        "state": candidate.get("state"),
        "reason": candidate.get("reason"),
        "generation": candidate.get("generation", origin.get("generation")),
        "uncertainty": candidate.get("uncertainty"),
    }


def _put_label(atoms: Atoms, record: Fields, arrays: Mapping[str, Any]) -> None:
    """Put a label and its own provenance onto a frame."""
    atoms.info[ENERGY] = float(record["energy"])
    atoms.set_array(FORCES, arrays["forces"])
    for name, place in (("stress", STRESS), ("dipole", DIPOLE)):
        if name in arrays:
            atoms.info[place] = arrays[name]
    # The candidate may be called rejected, because the frame had its label by then.
    atoms.info.update(
        state=record["state"],
        reason=None,
        label_key=record["key"],
        fidelity=record["fidelity_name"],
        fidelity_key=record["fidelity"],
        role=record.get("role"),
        generation=record["generation"],
        sequence=record["sequence"],
        seconds=record.get("seconds"),
        worker=record.get("worker") or None,
    )


def _by_key(documents: Iterable[Fields]) -> dict[str, Fields]:
    """Return documents by their key."""
    return {each["key"]: each for each in documents}


def _portions(records: Sequence[Fields]) -> Iterable[Sequence[Fields]]:
    """Give documents in portions that suit one query."""
    size = 500
    return (records[start : start + size] for start in range(0, len(records), size))
