"""The records of one kind in one campaign.

mongoengine binds a document class to one connection for the whole process; a `Table` binds it to
one Store instead (query sets and inserts on that Store's database), so that several Stores can be
open at once. It also closes the record: unknown fields, odd dictionary keys and values of numpy are
dealt with here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, final

import numpy as np
from bson import ObjectId
from mongoengine import Document
from mongoengine.queryset import QuerySet
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from tace_al.core.errors import RecordNotFound, StoreError, nearest_names
from tace_al.store import attempts
from tace_al.store.blobs import discard_blob
from tace_al.store.connection import Connection

Record = TypeVar("Record", bound=Document)


@final
class Table(Generic[Record]):
    """Records of one class that belong to one campaign.

    Parameters
    ----------
    record
        The class.
    connection
        The database.
    campaign
        Identifier of the campaign.
    """

    def __init__(self, record: type[Record], connection: Connection, campaign: str) -> None:
        self._record = record
        self._connection = connection
        self._campaign = campaign

    @property
    def objects(self) -> Any:
        """A fresh mongoengine query set over this campaign's records."""
        return QuerySet(self._record, self.collection).filter(campaign=self._campaign)

    @property
    def collection(self) -> Collection[dict[str, Any]]:
        """The driver's collection, for bulk reads."""
        return self._connection.documents[self._record._meta["collection"]]

    def insert(self, **fields: Any) -> bool:
        """Store a new record; False when one with its unique key exists."""
        fields = self.checked(fields)
        record = self._record(campaign=self._campaign, **fields)
        record.validate()
        identity = attempts.identifier()
        try:
            self.collection.insert_one({"_id": identity, **record.to_mongo()})
        except DuplicateKeyError:
            discard_blob(self._connection, fields)
            return attempts.tried_before() and bool(self.collection.find_one({"_id": identity}))
        return True

    def identity(self, **where: Any) -> ObjectId | None:
        """Return the `_id` of the record with exactly these values, None without one."""
        found = self.collection.find_one({"campaign": self._campaign, **where}, {"_id": 1})
        return None if found is None else found["_id"]

    def change(self, where: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
        """Set fields of every record that fits `where`; return how many there were."""
        updates = {f"set__{name}": value for name, value in self.checked(fields).items()}
        return int(self.objects.filter(**where).update(**updates))

    def move(
        self, where: Mapping[str, Any], sources: tuple[str, ...], fields: Mapping[str, Any]
    ) -> bool:
        """Change a record's fields, its `state` among them, if its state is one of `sources`.

        When a lost connection has this tried again, a record that is in the wanted state by then
        counts as moved.
        """
        if self.change({**where, "state__in": sources}, fields) == 1:
            return True
        arrived = self.objects.filter(**where, state=fields["state"])
        return attempts.tried_before() and bool(arrived.count())

    def one(self, **where: Any) -> Record:
        """Return the one record that fits.

        Raises
        ------
        RecordNotFound
            There is none.
        """
        found: Record | None = self.objects.filter(**where).first()
        if found is None:
            wanted = ", ".join(f"{name} {value!r}" for name, value in where.items())
            raise RecordNotFound(
                f"the campaign has no {self._record._meta['collection']} with {wanted}; "
                "`tace-al status` lists what it has"
            )
        return found

    def checked(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields as plain values.

        Raises
        ------
        StoreError
            A field is unknown, or a dictionary key could not be stored safely.
        """
        for name in fields:
            if name not in self._record._fields or name in ("id", "campaign"):
                valid = set(self._record._fields) - {"id", "campaign"}
                raise StoreError(
                    f"{self._record.__name__} has no field {name!r}.{nearest_names(name, valid)}"
                )
        values = {name: plain(value, name) for name, value in fields.items()}
        for name, value in values.items():
            if value is not None:
                # An update would otherwise skip the choices and limits that an insert checks.
                self._record._fields[name]._validate(value)
        return values

    def create_indexes(self) -> None:
        """Make the indexes that the record class declares."""
        for spec in self._record._meta["index_specs"]:
            options = {name: value for name, value in spec.items() if name != "fields"}
            self.collection.create_index(spec["fields"], **options)


def plain(value: Any, where: str) -> Any:
    """Return a value with numpy scalars, tuples and mappings as plain ones.

    Raises
    ------
    StoreError
        A dictionary key begins with `$`, contains `.` or a null character, or is no string.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key.startswith("$") or "." in key or "\x00" in key:
                raise StoreError(
                    f"key {key!r} in {where!r} cannot be stored; use text that neither begins with "
                    "'$' nor contains '.'"
                )
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    return value


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)
