"""The history of a model, a file or a frame as plain data, ready for tables and JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelNode:
    """One model: how it was made, and the keys of the models it started from."""

    key: str
    generation: int
    member: int
    path: str
    parents: tuple[str, ...]
    training_set: str
    num_labels: int
    seed: int
    code_version: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    created: datetime
    digest: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileNode:
    """One checkpoint made outside a campaign (`tace-al train`), as its header tells it.

    `digest` is that of the file, None where the header of a descendant does not say. `model` is
    the key of the campaign's model that this very file is, None for any other. `labels` are the
    keys of the labels it was trained on, as far as it says.
    """

    file: str
    digest: str | None
    metadata: Mapping[str, Any]
    model: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SightNode:
    """Whether a checkpoint saw a structure.

    `through` is the file or model that was trained on it, of those the checkpoint goes on from, the
    nearest one, or the checkpoint's own name; None when none was, as far as their headers say.
    """

    file: str
    digest: str
    through: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelNode:
    """One label or failure; energy in eV."""

    key: str
    structure: str
    fidelity: str
    fidelity_name: str
    code: str
    state: str
    energy: float | None
    role: str | None
    generation: int
    sequence: int
    worker: str | None
    failure_kind: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkNode:
    """The stretch of a trajectory that a frame was met in; temperature in K."""

    key: str
    walker: str
    kind: str
    index: int
    state: str
    generation: int
    attempt: int
    temperature: float | None
    frames_path: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureNode:
    """One structure; the `flagged_*` and candidate fields are None if it never was a candidate.

    `origin` tells who brought it first, `met` who met it when it was flagged, if that was another.
    """

    key: str
    formula: str
    charge: int
    multiplicity: int
    channel: str
    origin: Mapping[str, Any]
    candidate_kind: str | None
    candidate_state: str | None
    flagged_by_generation: int | None
    uncertainty: float | None
    reason: str | None = None
    attempts: int | None = None
    flagged_by_models: tuple[str, ...] = ()
    chunk: ChunkNode | None = None
    met: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """The history of one model, file or structure.

    Parameters
    ----------
    kind
        What was asked for.
    key
        Its full key; for a file its digest.
    models
        For a model: itself, then all its ancestors, nearest first. For a file: the campaign's
        models among its ancestors. For a structure: every model that was trained on one of its
        labels.
    labels
        For a model or file: the labels it was trained on, in that order. For a structure: its
        labels.
    structure
        The structure; None for a model or file.
    calibrated
        For a structure: the models whose error bars were fitted to one of its labels, and which
        never trained on it.
    files
        For a file: itself, then the files it goes on from, nearest first.
    sights
        For a structure: the checkpoints that were asked about.
    unknown
        Keys of ancestors and labels that are named and not in this campaign.
    """

    kind: Literal["model", "structure", "file"]
    key: str
    models: tuple[ModelNode, ...]
    labels: tuple[LabelNode, ...]
    structure: StructureNode | None = None
    calibrated: tuple[ModelNode, ...] = ()
    files: tuple[FileNode, ...] = ()
    sights: tuple[SightNode, ...] = ()
    unknown: tuple[str, ...] = ()
