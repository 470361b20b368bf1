"""Geometries by content: added once, read back bit for bit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from ase import Atoms
from ase.constraints import FixAtoms

from tace_al.core.errors import RecordNotFound
from tace_al.data.frames import (
    CHARGE,
    MULTIPLICITY,
    fixed_mask,
    frames_from_bytes,
    frames_to_bytes,
    spin_multiplicity,
    structure_key,
    total_charge,
)
from tace_al.store.blobs import blob_fields, read_blob
from tace_al.store.border import guarded
from tace_al.store.connection import Connection
from tace_al.store.records import MAX_MET, StructureRecord
from tace_al.store.table import Table, now

CHUNK = 500
_KEPT_ARRAYS = ("tags", "initial_magmoms", "initial_charges")


@final
class Structures:
    """The structures of one campaign."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self._campaign = campaign
        self._records = Table(StructureRecord, connection, campaign)

    @guarded
    def add(self, atoms: Atoms, *, channel: str, origin: Mapping[str, Any]) -> str:
        """Store a geometry unless it is there; return its key.

        A walker that meets a known one is remembered beside the first origin.

        Parameters
        ----------
        atoms
            Kept: geometry, cell, charge, multiplicity, fixed atoms, tags, initial moments.
        channel
            Reaction channel it belongs to.
        origin
            Where it comes from: kind, walker, generation, step, ...
        """
        key = structure_key(atoms)
        where = {"campaign": self._campaign, "key": key}
        known = self._records.collection.find_one(where, {"origin": 1, "met": 1})
        if known is not None:
            self._meet(known, origin)
            return key
        frame = packed_frame(atoms)
        self._records.insert(
            key=key,
            formula=atoms.get_chemical_formula(),
            num_atoms=len(atoms),
            charge=total_charge(atoms),
            multiplicity=spin_multiplicity(atoms),
            channel=channel,
            origin=origin,
            created=now(),
            **blob_fields(self.connection, "frame", frame),
        )
        return key

    @guarded
    def record(self, key: str) -> StructureRecord:
        """Return the record of a structure."""
        return self._records.one(key=key)

    @guarded
    def frame(self, key: str) -> Atoms:
        """Return one structure."""
        return self._read([key])[key][0]

    @guarded
    def frames(self, keys: Iterable[str]) -> list[Atoms]:
        """Return structures in the order of their keys."""
        keys = list(keys)
        found = self._read(keys)
        return [found[key][0].copy() for key in keys]

    @guarded
    def frames_and_channels(self, keys: Sequence[str]) -> dict[str, tuple[Atoms, str]]:
        """Return structure and channel by key."""
        return self._read(keys)

    def _meet(self, known: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
        """Remember that a walker came by a known structure."""
        origin = self._records.checked({"origin": origin})["origin"]
        met = known.get("met", [])
        if "walker" not in origin or origin in (known.get("origin"), *met) or len(met) >= MAX_MET:
            return
        self._records.collection.update_one({"_id": known["_id"]}, {"$addToSet": {"met": origin}})

    def _read(self, keys: Sequence[str]) -> dict[str, tuple[Atoms, str]]:
        """Return structures and their channels by key.

        Raises
        ------
        RecordNotFound
            A key is unknown.
        """
        found: dict[str, tuple[Atoms, str]] = {}
        for chunk in chunked(list(dict.fromkeys(keys))):
            where = {"campaign": self._campaign, "key": {"$in": chunk}}
            for record in self._records.collection.find(where):
                content = read_blob(self.connection, record.get("frame"), record.get("frame_file"))
                assert content is not None
                found[record["key"]] = (frames_from_bytes(content)[0], record["channel"])
        missing = [key for key in keys if key not in found]
        if missing:
            raise RecordNotFound(
                f"the campaign has no structure with key {missing[0]!r}"
                + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
                + "; add it first"
            )
        return found


def packed_frame(atoms: Atoms) -> bytes:
    """Return what the Store keeps of a geometry, as the bytes of one frame."""
    return frames_to_bytes([_essential(atoms)])


def chunked(keys: Sequence[str]) -> Iterator[list[str]]:
    """Give keys in portions that suit one query."""
    for start in range(0, len(keys), CHUNK):
        yield list(keys[start : start + CHUNK])


def _essential(atoms: Atoms) -> Atoms:
    """Return what a later calculation needs, without results and velocities."""
    essential = Atoms(
        numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc
    )
    for name in _KEPT_ARRAYS:
        if name in atoms.arrays:
            essential.set_array(name, atoms.arrays[name])
    essential.info[CHARGE] = total_charge(atoms)
    essential.info[MULTIPLICITY] = spin_multiplicity(atoms)
    fixed = fixed_mask(atoms)
    if fixed.any():
        essential.set_constraint(FixAtoms(mask=fixed))
    return essential
