"""Trained members, what they were trained on, and the generations they form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from tace_al.core.errors import StoreError, nearest_names
from tace_al.core.hashing import KEY_LENGTH, content_hash
from tace_al.store.blobs import blob_fields, read_blob
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.model_files import file_digest
from tace_al.store.records import (
    GENERATION_STATES,
    GenerationRecord,
    ModelRecord,
    TrainingSetRecord,
)
from tace_al.store.table import Table, now

_KEY_BYTES = KEY_LENGTH // 2


@final
class Models:
    """The models, training sets and generations of one campaign."""

    def __init__(
        self, connection: Connection, campaign: str, directory: Path | None = None
    ) -> None:
        self.connection = connection
        self._directory = directory
        self._models = Table(ModelRecord, connection, campaign)
        self._training_sets = Table(TrainingSetRecord, connection, campaign)
        self._generations = Table(GenerationRecord, connection, campaign)

    @guarded
    def add_training_set(self, label_keys: Sequence[str]) -> str:
        """Store the ordered labels of a training; return their common key."""
        keys = list(label_keys)
        key = training_set_key(keys)
        if not self._training_sets.objects.filter(key=key).count():
            packed = b"".join(bytes.fromhex(each) for each in keys)
            self._training_sets.insert(
                key=key,
                count=len(keys),
                created=now(),
                **blob_fields(self.connection, "label_keys", packed),
            )
        return key

    @guarded
    def training_set(self, key: str) -> list[str]:
        """Return the label keys of a training set in order."""
        return self.label_keys(self._training_sets.one(key=key))

    @guarded
    def training_sets(self) -> list[TrainingSetRecord]:
        """Return all training sets in order of creation."""
        return list(self._training_sets.objects.order_by("id"))

    @guarded
    def label_keys(self, record: TrainingSetRecord) -> list[str]:
        """Return the label keys that a training set's record holds."""
        packed = read_blob(self.connection, record.label_keys, record.label_keys_file) or b""
        return unpacked_keys(packed)

    @guarded
    def add(self, key: str, **fields: Any) -> bool:
        """Store a trained member (fields of `ModelRecord`); False when it is there.

        The digest of its file is kept, so that `tace-al db check` sees when the file changes.
        """
        if self._directory is not None and "path" in fields:
            fields.setdefault("digest", file_digest(self._directory / str(fields["path"])))
        return self._models.insert(key=key, **{"created": now(), **fields})

    @guarded
    def models(self, generation: int | None = None) -> list[ModelRecord]:
        """Return the models of one generation, or all, by generation and member."""
        where = {} if generation is None else {"generation": generation}
        return list(self._models.objects.filter(**where).order_by("generation", "member"))

    @guarded
    def model(self, key: str) -> ModelRecord:
        """Return one model."""
        return self._models.one(key=key)

    @guarded
    def trained_on(self, training_set: str) -> list[ModelRecord]:
        """Return the models trained on a training set."""
        found = self._models.objects.filter(training_set=training_set)
        return list(found.order_by("generation", "member"))

    @guarded
    def add_generation(self, number: int, **fields: Any) -> bool:
        """Store a generation (fields of `GenerationRecord`); False when the number is taken."""
        return self._generations.insert(number=number, **{"started": now(), **fields})

    @guarded
    def move_generation(
        self, number: int, *, source: str | tuple[str, ...], target: str, **fields: Any
    ) -> bool:
        """Move a generation from a state (or one of several) to another; False if not there."""
        sources = (source,) if isinstance(source, str) else tuple(source)
        for state in (*sources, target):
            if state not in GENERATION_STATES:
                raise StoreError(
                    f"{state!r} is no state of a generation."
                    f"{nearest_names(state, GENERATION_STATES)}"
                )
        return self._generations.move({"number": number}, sources, {**fields, "state": target})

    @guarded
    def update_generation(self, number: int, **fields: Any) -> None:
        """Set fields of a generation."""
        if not self._generations.change({"number": number}, fields):
            self._generations.one(number=number)  # raises RecordNotFound

    @guarded
    def generation(self, number: int) -> GenerationRecord:
        """Return one generation."""
        return self._generations.one(number=number)

    @guarded
    def generations(self) -> list[GenerationRecord]:
        """Return all generations by number."""
        return list(self._generations.objects.order_by("number"))

    @guarded
    def serving(self) -> GenerationRecord | None:
        """Return the newest generation that serves, None before the first."""
        found = self._generations.objects.filter(state="serving").order_by("-number").first()
        return found if isinstance(found, GenerationRecord) else None


def unpacked_keys(packed: bytes) -> list[str]:
    """Return the label keys that lie end to end in a training set's record."""
    starts = range(0, len(packed), _KEY_BYTES)
    return [packed[start : start + _KEY_BYTES].hex() for start in starts]


def training_set_key(label_keys: Sequence[str]) -> str:
    """Return the content hash of ordered label keys."""
    for key in label_keys:
        if len(key) != KEY_LENGTH or not set(key) <= set("0123456789abcdef"):
            raise StoreError(f"{key!r} is no label key; take the keys from `labels()`")
    return content_hash(list(label_keys))
