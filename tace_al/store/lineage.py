"""Where a model comes from, and what became of a structure.

A model leads to its ancestors through any number of generations, and to the labels it saw; a
structure leads to its labels and to every model that saw one of them. The result is plain data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, final

from tace_al.core.errors import RecordNotFound
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.models import Models
from tace_al.store.records import (
    CandidateRecord,
    FidelityRecord,
    LabelRecord,
    ModelRecord,
    StructureRecord,
    TrainingSetRecord,
)
from tace_al.store.structures import chunked
from tace_al.store.table import Table

_MAX_NAMED = 5


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


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureNode:
    """One structure; the `flagged_*` and candidate fields are None if it never was a candidate."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """The history of one model or structure.

    Parameters
    ----------
    kind
        What was asked for.
    key
        Its full key.
    models
        For a model: itself, then all its ancestors, nearest first. For a structure: every model
        that was trained on one of its labels.
    labels
        For a model: the labels it was trained on, in that order. For a structure: its labels.
    structure
        The structure; None for a model.
    """

    kind: Literal["model", "structure"]
    key: str
    models: tuple[ModelNode, ...]
    labels: tuple[LabelNode, ...]
    structure: StructureNode | None = None


@final
class Lineages:
    """Histories within one campaign."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self._campaign = campaign
        self._models = Models(connection, campaign)
        self._model_records = Table(ModelRecord, connection, campaign)
        self._training_sets = Table(TrainingSetRecord, connection, campaign)
        self._structures = Table(StructureRecord, connection, campaign)
        self._labels = Table(LabelRecord, connection, campaign)
        self._candidates = Table(CandidateRecord, connection, campaign)
        self._fidelities = Table(FidelityRecord, connection, campaign)

    @guarded
    def lineage(self, identifier: str) -> Lineage:
        """Return the history of the model, structure or label whose key begins with `identifier`.

        Raises
        ------
        RecordNotFound
            No key, or more than one, begins so.
        """
        kind, key = self._resolve(identifier)
        if kind == "label":
            kind, key = "structure", self._labels.one(key=key).structure
        if kind == "structure":
            return self._of_structure(key)
        return self._of_model(key)

    def _resolve(self, identifier: str) -> tuple[str, str]:
        """Return kind and full key."""
        if not identifier or not set(identifier) <= set("0123456789abcdef"):
            raise RecordNotFound(
                f"{identifier!r} is no identifier; give the first digits of a key (0-9, a-f)"
            )
        tables: dict[str, Table[Any]] = {
            "model": self._model_records,
            "structure": self._structures,
            "label": self._labels,
        }
        # "g" follows "f": the range of keys that begin with the identifier.
        between = {"$gte": identifier, "$lt": identifier + "g"}
        where = {"campaign": self._campaign, "key": between}
        found = [
            (kind, record["key"])
            for kind, table in tables.items()
            for record in table.collection.find(where, {"key": 1}).limit(_MAX_NAMED)
        ]
        if len(found) == 1:
            return found[0]
        if not found:
            raise RecordNotFound(
                f"no model, structure or label has a key that begins with {identifier!r}; "
                "`tace-al status` and the report name the models"
            )
        named = ", ".join(f"{kind} {key}" for kind, key in found[:_MAX_NAMED])
        raise RecordNotFound(f"{identifier!r} is ambiguous ({named}, ...); give more digits")

    def _of_model(self, key: str) -> Lineage:
        """Return a model's ancestors and labels."""
        nodes: dict[str, ModelNode] = {}
        waiting = [key]
        while waiting:
            # Breadth first, each model once: committees share parents.
            following: list[str] = []
            for each in waiting:
                if each not in nodes:
                    nodes[each] = self._node(self._models.model(each))
                    following.extend(nodes[each].parents)
            waiting = following
        label_keys = self._models.training_set(nodes[key].training_set)
        return Lineage(
            kind="model", key=key, models=tuple(nodes.values()), labels=self._by_key(label_keys)
        )

    def _of_structure(self, key: str) -> Lineage:
        """Return a structure's labels and the models that saw it."""
        record = self._structures.one(key=key)
        candidate = self._candidates.objects.filter(key=key).first()
        labels = self._nodes(self._labels.objects.filter(structure=key).order_by("sequence"))
        own = {label.key for label in labels}
        models = [
            self._node(model)
            for training_set in self._models.training_sets()
            if own & set(self._models.label_keys(training_set))
            for model in self._models.trained_on(training_set.key)
        ]
        models.sort(key=lambda node: (node.generation, node.member))
        node = StructureNode(
            key=key,
            formula=record.formula,
            charge=record.charge,
            multiplicity=record.multiplicity,
            channel=record.channel,
            origin=dict(record.origin),
            candidate_kind=candidate and candidate.kind,
            candidate_state=candidate and candidate.state,
            flagged_by_generation=candidate and candidate.generation,
            uncertainty=candidate and candidate.uncertainty,
        )
        return Lineage(
            kind="structure", key=key, models=tuple(models), labels=labels, structure=node
        )

    def _node(self, record: ModelRecord) -> ModelNode:
        """Return a model's record as plain data."""
        return ModelNode(
            key=record.key,
            generation=record.generation,
            member=record.member,
            path=record.path,
            parents=tuple(record.parents),
            training_set=record.training_set,
            num_labels=self._training_sets.one(key=record.training_set).count,
            seed=record.seed,
            code_version=record.code_version,
            config=dict(record.config),
            metrics=dict(record.metrics),
            created=record.created,
        )

    def _by_key(self, keys: list[str]) -> tuple[LabelNode, ...]:
        """Return labels in the order of their keys."""
        found = {
            node.key: node
            for chunk in chunked(keys)
            for node in self._nodes(self._labels.objects.filter(key__in=chunk))
        }
        return tuple(found[key] for key in keys if key in found)

    def _nodes(self, records: Iterable[LabelRecord]) -> tuple[LabelNode, ...]:
        """Return label records as plain data."""
        codes = {record.key: record.code for record in self._fidelities.objects}
        return tuple(
            LabelNode(
                key=record.key,
                structure=record.structure,
                fidelity=record.fidelity,
                fidelity_name=record.fidelity_name,
                code=codes.get(record.fidelity, ""),
                state=record.state,
                energy=record.energy,
                role=record.role,
                generation=record.generation,
                sequence=record.sequence,
                worker=record.worker,
            )
            for record in records
        )
