"""What a campaign remembers: one mongoengine document class per noun.

Every record carries the campaign it belongs to, because campaigns on a MongoDB server share a
database. Keys are content hashes (`tace_al.core.hashing`), unique within a campaign. Big arrays lie
beside their hash as npz or frame bytes, in GridFS from 1 MB on (`blobs.py`); no list in a record
grows with the number of labels, so that the 16 MB limit of a document is never near. Times are UTC.
Files in the campaign's folder are named from there, so that the folder can be moved.

The classes know no connection: `table.py` binds them to the database of one Store.
"""

from typing import Any, ClassVar

from mongoengine import (
    BinaryField,
    DateTimeField,
    DictField,
    Document,
    FloatField,
    IntField,
    ListField,
    ObjectIdField,
    StringField,
)

CAMPAIGN_STATES = ("running", "finished", "stopped", "failed")
CANDIDATE_KINDS = ("seed", "uncertain", "audit", "saddle", "end_state", "relax")
CANDIDATE_STATES = (
    "flagged",
    "queued",
    "running",
    "labelled",
    "failed",
    "rejected",
    "expired",
)
LABEL_STATES = ("labelled", "failed")
LABEL_ROLES = ("train", "calibration")
GENERATION_STATES = ("training", "calibrated", "serving", "retired", "rejected")
CHUNK_KINDS = ("md", "neb")
CHUNK_STATES = ("running", "known", "uncertain", "broken")
MAX_MEMBERS = 16
MAX_MET = 16


class CampaignRecord(Document):
    """One campaign: how it was set up and how it stands."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "campaign",
        "auto_create_index": False,
        "indexes": [{"fields": ["campaign"], "unique": True, "name": "campaign"}],
    }
    campaign = StringField(required=True)
    name = StringField(required=True)
    config = DictField()
    config_hash = StringField(required=True)
    seed = IntField(required=True)
    code_version = StringField(required=True)
    state = StringField(required=True, choices=CAMPAIGN_STATES)
    result = DictField()
    created = DateTimeField(required=True)
    updated = DateTimeField(required=True)


class CounterRecord(Document):
    """A number that only grows, handed out atomically."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "counter",
        "auto_create_index": False,
        "indexes": [{"fields": ["campaign", "name"], "unique": True, "name": "name"}],
    }
    campaign = StringField(required=True)
    name = StringField(required=True)
    value = IntField(required=True)


class StructureRecord(Document):
    """One geometry. `origin` tells where from: kind, walker, generation, step.

    `met` holds further origins of the same kind: walkers that came by later.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "structure",
        "auto_create_index": False,
        "indexes": [{"fields": ["campaign", "key"], "unique": True, "name": "key"}],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    formula = StringField(required=True)
    num_atoms = IntField(required=True, min_value=1)
    charge = IntField(required=True)
    multiplicity = IntField(required=True, min_value=1)
    channel = StringField(required=True)
    origin = DictField()
    met = ListField(DictField(), max_length=MAX_MET)
    frame = BinaryField()
    frame_file = ObjectIdField()
    created = DateTimeField(required=True)


class FidelityRecord(Document):
    """One level of theory."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "fidelity",
        "auto_create_index": False,
        "indexes": [{"fields": ["campaign", "key"], "unique": True, "name": "key"}],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    name = StringField(required=True)
    code = StringField(required=True)
    settings = DictField()


class LabelRecord(Document):
    """The result, or the failure, of one structure at one fidelity. Energy in eV."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "label",
        "auto_create_index": False,
        "indexes": [
            {"fields": ["campaign", "key"], "unique": True, "name": "key"},
            {"fields": ["campaign", "structure"], "name": "structure"},
            {"fields": ["campaign", "state", "sequence"], "name": "state"},
        ],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    structure = StringField(required=True)
    fidelity = StringField(required=True)
    fidelity_name = StringField(required=True)
    state = StringField(required=True, choices=LABEL_STATES)
    energy = FloatField()
    arrays = BinaryField()
    arrays_file = ObjectIdField()
    failure_kind = StringField()
    message = StringField()
    bundle = StringField()
    attempts = IntField(default=1)
    seconds = FloatField(default=0.0)
    worker = StringField()
    role = StringField(choices=LABEL_ROLES)
    sequence = IntField(required=True)
    generation = IntField(required=True)
    created = DateTimeField(required=True)


class CandidateRecord(Document):
    """A frame that may be worth a label. `key` is its structure's; uncertainty in eV/A.

    `levels` names the levels of theory to label it at, in order, where the campaign has two and the
    choice is not left to it.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "candidate",
        "auto_create_index": False,
        "indexes": [
            {"fields": ["campaign", "key"], "unique": True, "name": "key"},
            {"fields": ["campaign", "state", "-priority"], "name": "queue"},
        ],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    kind = StringField(required=True, choices=CANDIDATE_KINDS)
    state = StringField(required=True, choices=CANDIDATE_STATES)
    reason = StringField()
    channel = StringField(required=True)
    generation = IntField(required=True)
    uncertainty = FloatField()
    priority = FloatField(required=True, default=0.0)
    levels = ListField(StringField(), max_length=MAX_MEMBERS)
    prediction = BinaryField()
    prediction_file = ObjectIdField()
    owner = StringField()
    lease = StringField()
    heartbeat = DateTimeField()
    attempts = IntField(default=0)
    created = DateTimeField(required=True)
    updated = DateTimeField(required=True)


class ModelRecord(Document):
    """One trained member of a committee. `parents` are the models it started from.

    `digest` is that of the file at `path` when it was stored.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "model",
        "auto_create_index": False,
        "indexes": [
            {"fields": ["campaign", "key"], "unique": True, "name": "key"},
            {"fields": ["campaign", "generation"], "name": "generation"},
            {"fields": ["campaign", "training_set"], "name": "training_set"},
        ],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    generation = IntField(required=True)
    member = IntField(required=True)
    path = StringField(required=True)
    digest = StringField()
    parents = ListField(StringField(), max_length=MAX_MEMBERS)
    training_set = StringField(required=True)
    seed = IntField(required=True)
    config = DictField()
    code_version = StringField(required=True)
    metrics = DictField()
    preset = StringField()
    num_parameters = IntField()
    created = DateTimeField(required=True)


class TrainingSetRecord(Document):
    """The labels a model was trained on, in order: 16 bytes each, hashed to the key."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "training_set",
        "auto_create_index": False,
        "indexes": [{"fields": ["campaign", "key"], "unique": True, "name": "key"}],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    count = IntField(required=True)
    label_keys = BinaryField()
    label_keys_file = ObjectIdField()
    created = DateTimeField(required=True)


class GenerationRecord(Document):
    """One set of trained members, what it can do, and how far its error bars can be trusted.

    `scale` turns committee spread into an error bar, `coverage` is how often the truth lay inside.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "generation",
        "auto_create_index": False,
        "indexes": [
            {"fields": ["campaign", "number"], "unique": True, "name": "number"},
            {"fields": ["campaign", "state"], "name": "state"},
        ],
    }
    campaign = StringField(required=True)
    number = IntField(required=True)
    state = StringField(required=True, choices=GENERATION_STATES, default="training")
    models = ListField(StringField(), max_length=MAX_MEMBERS)
    scale = FloatField()
    coverage = FloatField()
    target_coverage = FloatField()
    num_calibration = IntField()
    probe_error = FloatField()
    errors = DictField()
    barriers = DictField()
    targets = DictField()
    num_labels = IntField()
    audit = DictField()
    started = DateTimeField(required=True)
    ended = DateTimeField()


class ChunkRecord(Document):
    """A stretch of one walker's way. `max_uncertainty` in eV/A, temperature in K."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "chunk",
        "auto_create_index": False,
        "indexes": [
            {"fields": ["campaign", "key"], "unique": True, "name": "key"},
            {"fields": ["campaign", "walker", "index"], "name": "walker"},
            {"fields": ["campaign", "state"], "name": "state"},
        ],
    }
    campaign = StringField(required=True)
    key = StringField(required=True)
    walker = StringField(required=True)
    kind = StringField(required=True, choices=CHUNK_KINDS)
    channel = StringField(required=True)
    index = IntField(required=True)
    state = StringField(required=True, choices=CHUNK_STATES, default="running")
    generation = IntField(required=True)
    attempt = IntField(default=0)
    temperature = FloatField()
    steps = IntField()
    max_uncertainty = FloatField()
    summary = DictField()
    frames_path = StringField()
    created = DateTimeField(required=True)
    updated = DateTimeField(required=True)


class EventRecord(Document):
    """Something that happened, for the report's time lines."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "event",
        "auto_create_index": False,
        "indexes": [{"fields": ["campaign", "kind", "time"], "name": "kind"}],
    }
    campaign = StringField(required=True)
    time = DateTimeField(required=True)
    kind = StringField(required=True)
    message = StringField(required=True)
    data = DictField()


RECORDS: tuple[type[Document], ...] = (
    CampaignRecord,
    CounterRecord,
    StructureRecord,
    FidelityRecord,
    LabelRecord,
    CandidateRecord,
    ModelRecord,
    TrainingSetRecord,
    GenerationRecord,
    ChunkRecord,
    EventRecord,
)
