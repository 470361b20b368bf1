"""Where a model comes from, and what became of a structure.

A model leads to its ancestors through any number of generations and fine-tunings, and to the labels
it saw; a structure leads to its labels, to the trajectory it was met in, and to every model that
saw one of its labels. A checkpoint that `tace-al train` made names the files it goes on from; where
one of those is a model of the campaign, the campaign's own record takes over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from tace_al.core.errors import RecordNotFound, StoreError
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.lineage_nodes import (
    ChunkNode,
    FileNode,
    LabelNode,
    Lineage,
    ModelNode,
    SightNode,
    StructureNode,
)
from tace_al.store.model_files import file_digest, label_keys_in, read_metadata
from tace_al.store.models import Models
from tace_al.store.records import (
    CandidateRecord,
    ChunkRecord,
    FidelityRecord,
    GenerationRecord,
    LabelRecord,
    ModelRecord,
    StructureRecord,
    TrainingSetRecord,
)
from tace_al.store.structures import chunked
from tace_al.store.table import Table

_MAX_NAMED = 5
_ORIGIN_FIELDS = ("campaign", "generation", "member", "seed")


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
        self._generations = Table(GenerationRecord, connection, campaign)
        self._chunks = Table(ChunkRecord, connection, campaign)

    @guarded
    def lineage(self, identifier: str, files: Sequence[Path] = ()) -> Lineage:
        """Return the history of the model, structure or label whose key begins with `identifier`.

        Parameters
        ----------
        identifier
            First digits of a key.
        files
            Checkpoints of `tace-al train`; of a structure it is told which of them saw it.

        Raises
        ------
        RecordNotFound
            No key, or more than one, begins so.
        """
        kind, key = self._resolve(identifier)
        if kind == "label":
            kind, key = "structure", self._labels.one(key=key).structure
        if kind == "structure":
            found = self._of_structure(key)
            return replace(found, sights=tuple(self._sight(found, path) for path in files))
        if files:
            raise StoreError(
                f"{identifier!r} is a model, and checkpoints are asked what structure they saw; "
                "give the key of a structure or label"
            )
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

    @guarded
    def of_file(self, path: Path) -> Lineage:
        """Return the history of a checkpoint, one of the campaign's or one made from them.

        Raises
        ------
        RecordNotFound
            The file is no checkpoint.
        """
        metadata, digest = read_metadata(path), file_digest(path)
        if metadata is None or digest is None:
            raise RecordNotFound(f"{path} is no .tace checkpoint; give the path of a model")
        record = self._record_of(digest, metadata)
        if record is not None:
            return self._of_model(record.key)
        keys = label_keys_in(metadata)
        own = FileNode(file=path.name, digest=digest, metadata=_brief(metadata), labels=tuple(keys))
        files = [own]
        models: dict[str, ModelNode] = {}
        unknown: list[str] = []
        for entry in (each for each in metadata.get("ancestors", ()) if isinstance(each, Mapping)):
            found = self._record_of(entry.get("digest"), entry)
            files.append(
                FileNode(
                    file=str(entry.get("file", "")),
                    digest=entry.get("digest"),
                    metadata=_brief(entry),
                    model=found and found.key,
                    labels=tuple(label_keys_in(entry)),
                )
            )
            if found is not None:
                nodes, lost = self._ancestors(found.key)
                models |= nodes
                unknown += lost
        labels = self._by_key(keys)
        known = {label.key for label in labels}
        return Lineage(
            kind="file",
            key=digest,
            files=tuple(files),
            models=tuple(models.values()),
            labels=labels,
            unknown=(*unknown, *(key for key in keys if key not in known)),
        )

    def _sight(self, structure: Lineage, path: Path) -> SightNode:
        """Return whether a checkpoint, or one it goes on from, was trained on a structure."""
        history = self.of_file(path)
        labels = {label.key for label in structure.labels}
        models = {model.key for model in structure.models}
        saw = [file.file for file in history.files if labels & set(file.labels)]
        saw += [f"model {model.key}" for model in history.models if model.key in models]
        digest = file_digest(path) or ""
        return SightNode(file=str(path), digest=digest, through=saw[0] if saw else None)

    def _record_of(self, digest: str | None, metadata: Mapping[str, Any]) -> ModelRecord | None:
        """Return the campaign's model that a checkpoint is: by digest, or by what it says."""
        found = digest and self._model_records.objects.filter(digest=digest).first()
        if isinstance(found, ModelRecord):
            return found
        own = {name: metadata.get(name) for name in _ORIGIN_FIELDS}
        told = own.pop("campaign") == self._campaign and None not in own.values()
        if not told or "ancestors" in metadata or metadata.get("parent"):
            return None
        found = self._model_records.objects.filter(**own, digest=None).first()
        return found if isinstance(found, ModelRecord) else None

    def _of_model(self, key: str) -> Lineage:
        """Return a model's ancestors and labels."""
        nodes, unknown = self._ancestors(key)
        label_keys = self._models.training_set(nodes[key].training_set)
        return Lineage(
            kind="model",
            key=key,
            models=tuple(nodes.values()),
            labels=self._by_key(label_keys),
            unknown=tuple(unknown),
        )

    def _ancestors(self, key: str) -> tuple[dict[str, ModelNode], list[str]]:
        """Return a model and its ancestors, nearest first, and the keys of unknown ones."""
        nodes: dict[str, ModelNode] = {}
        unknown: list[str] = []
        waiting = [key]
        while waiting:
            # Breadth first, each model once: committees share parents.
            following: list[str] = []
            for each in dict.fromkeys(waiting):
                if each in nodes or each in unknown:
                    continue
                try:
                    nodes[each] = self._node(self._models.model(each))
                except RecordNotFound:
                    if each == key:
                        raise
                    unknown.append(each)
                    continue
                following.extend(nodes[each].parents)
            waiting = following
        return nodes, unknown

    def _of_structure(self, key: str) -> Lineage:
        """Return a structure's labels, where it was met, and the models that saw it."""
        record = self._structures.one(key=key)
        labels = self._nodes(self._labels.objects.filter(structure=key).order_by("sequence"))
        own = {label.key for label in labels}
        models = [
            self._node(model)
            for training_set in self._models.training_sets()
            if own & set(self._models.label_keys(training_set))
            for model in self._models.trained_on(training_set.key)
        ]
        models.sort(key=lambda node: (node.generation, node.member))
        return Lineage(
            kind="structure",
            key=key,
            models=tuple(models),
            labels=labels,
            structure=self._structure_node(record),
            calibrated=tuple(self._calibrated_on(labels)),
        )

    def _structure_node(self, record: StructureRecord) -> StructureNode:
        """Return a structure with the candidate it was and the chunk it was met in."""
        candidate = self._candidates.objects.filter(key=record.key).first()
        origin = dict(record.origin)
        flagged = None if candidate is None else candidate.generation
        generation = self._generations.objects.filter(number=flagged).first()
        later = (dict(each) for each in record.met)
        met = next((each for each in later if each.get("generation") == flagged), {})
        if origin.get("generation") == flagged:
            met = {}
        walked = met or origin
        walks = walked.get("walker") is not None
        return StructureNode(
            key=record.key,
            formula=record.formula,
            charge=record.charge,
            multiplicity=record.multiplicity,
            channel=record.channel,
            origin=origin,
            candidate_kind=candidate and candidate.kind,
            candidate_state=candidate and candidate.state,
            flagged_by_generation=flagged,
            uncertainty=candidate and candidate.uncertainty,
            reason=candidate and candidate.reason,
            attempts=candidate and candidate.attempts,
            flagged_by_models=tuple(generation.models) if walks and generation else (),
            chunk=self._chunk_of(walked) if walks else None,
            met=met,
        )

    def _chunk_of(self, origin: Mapping[str, Any]) -> ChunkNode | None:
        """Return the chunk of the walker that met a frame."""
        # Bands have one chunk a generation, numbered so.
        index = origin.get("index", origin.get("generation"))
        where = {"walker": origin["walker"], "index": index}
        found = self._chunks.objects.filter(**where).order_by("-attempt").first()
        if found is None:
            return None
        return ChunkNode(
            key=found.key,
            walker=found.walker,
            kind=found.kind,
            index=found.index,
            state=found.state,
            generation=found.generation,
            attempt=found.attempt,
            temperature=found.temperature,
            frames_path=found.frames_path,
        )

    def _calibrated_on(self, labels: Iterable[LabelNode]) -> Iterable[ModelNode]:
        """Give the models of the generations whose error bars were fitted to one of the labels.

        A generation is calibrated on all calibration labels there are, in order of arrival, and
        remembers how many those were.
        """
        places = [
            self._labels.objects.filter(
                state="labelled",
                role="calibration",
                fidelity_name=label.fidelity_name,
                sequence__lt=label.sequence,
            ).count()
            for label in labels
            if label.role == "calibration" and label.state == "labelled"
        ]
        if not places:
            return
        for generation in self._generations.objects.order_by("number"):
            if (generation.num_calibration or 0) > min(places):
                for key in generation.models:
                    found = self._model_records.objects.filter(key=key).first()
                    if found is not None:
                        yield self._node(found)

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
            digest=record.digest,
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
                failure_kind=record.failure_kind,
                message=record.message,
            )
            for record in records
        )


def _brief(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a header says, without its long lists."""
    return {
        name: value for name, value in metadata.items() if name not in ("ancestors", "label_keys")
    }
