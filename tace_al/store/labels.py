"""Labels: one result, or one failure, for each structure and fidelity; never computed twice."""

from collections.abc import Iterable
from typing import Any, final

from ase import Atoms

from tace_al.core.errors import StoreError
from tace_al.core.labels import Fidelity, Label, label_key
from tace_al.store import attempts
from tace_al.store.blobs import blob_fields, discard_blob, pack_arrays, read_blob, unpack_arrays
from tace_al.store.border import guarded
from tace_al.store.campaigns import next_number
from tace_al.store.connection import Connection
from tace_al.store.records import FidelityRecord, LabelRecord
from tace_al.store.structures import Structures
from tace_al.store.table import Table, now

ENERGY = "REF_energy"
FORCES = "REF_forces"
STRESS = "REF_stress"


@final
class Labels:
    """The labels of one campaign."""

    def __init__(self, connection: Connection, campaign: str) -> None:
        self.connection = connection
        self._campaign = campaign
        self._records = Table(LabelRecord, connection, campaign)
        self._fidelities = Table(FidelityRecord, connection, campaign)
        self._structures = Structures(connection, campaign)

    @guarded
    def add_fidelity(self, fidelity: Fidelity) -> str:
        """Store a level of theory unless it is there; return its key."""
        self._fidelities.insert(
            key=fidelity.key,
            name=fidelity.name,
            code=fidelity.code,
            settings=dict(fidelity.settings),
        )
        return fidelity.key

    @guarded
    def fidelities(self) -> list[FidelityRecord]:
        """Return all levels of theory."""
        return list(self._fidelities.objects)

    @guarded
    def add(
        self, label: Label, *, fidelity_name: str, role: str, generation: int, worker: str = ""
    ) -> bool:
        """Store a result; False when the structure has one at this fidelity.

        An earlier failure of the same calculation gives way. Labels are numbered in the order of
        arrival (`sequence`).

        Parameters
        ----------
        label
            Energy, forces and what else there is.
        fidelity_name
            Name of the level, also of the model's head.
        role
            "train", or "calibration" for those the members never train on.
        generation
            Generation that asked for it.
        worker
            Where it was computed.
        """
        arrays = pack_arrays(
            {"forces": label.forces, "stress": label.stress, "dipole": label.dipole}
        )
        return self._put(
            label.structure_key,
            label.fidelity_key,
            state="labelled",
            fidelity_name=fidelity_name,
            energy=float(label.energy),
            seconds=float(label.seconds),
            role=role,
            generation=generation,
            worker=worker,
            failure_kind=None,
            message=None,
            bundle=None,
            **blob_fields(self.connection, "arrays", arrays),
        )

    @guarded
    def add_failure(
        self,
        structure_key: str,
        fidelity: Fidelity,
        *,
        kind: str,
        message: str,
        bundle: str = "",
        generation: int,
        worker: str = "",
        attempts: int = 1,
    ) -> bool:
        """Store that a calculation failed; False when it has a result by now.

        Parameters
        ----------
        structure_key, fidelity
            What was tried.
        kind, message
            Machine-readable reason and sentence of the `LabelFailed`.
        bundle
            Path of the folder that reproduces it.
        generation, worker
            Who asked and who tried.
        attempts
            How often, in how many ways.
        """
        return self._put(
            structure_key,
            fidelity.key,
            state="failed",
            fidelity_name=fidelity.name,
            failure_kind=kind,
            message=message,
            bundle=bundle,
            generation=generation,
            worker=worker,
            attempts=attempts,
        )

    @guarded
    def has(self, structure_key: str, fidelity_key: str) -> bool:
        """Tell whether a result exists (failures do not count)."""
        key = label_key(structure_key, fidelity_key)
        return self._records.identity(key=key, state="labelled") is not None

    @guarded
    def records(
        self,
        fidelity_name: str | None = None,
        role: str | None = None,
        state: str | None = "labelled",
    ) -> list[LabelRecord]:
        """Return labels in order of arrival; None means any."""
        where = {"fidelity_name": fidelity_name, "role": role, "state": state}
        wanted = {name: value for name, value in where.items() if value is not None}
        return list(self._records.objects.filter(**wanted).order_by("sequence"))

    @guarded
    def of_structure(self, structure_key: str) -> list[LabelRecord]:
        """Return the labels and failures of one structure."""
        return list(self._records.objects.filter(structure=structure_key).order_by("sequence"))

    @guarded
    def arrays(self, record: LabelRecord) -> dict[str, Any]:
        """Return forces (eV/A), and stress (eV/A^3) and dipole (e A) where there are any."""
        content = read_blob(self.connection, record.arrays, record.arrays_file)
        return {} if content is None else unpack_arrays(content)

    @guarded
    def frames(
        self,
        fidelity_name: str,
        role: str | None = None,
        keys: Iterable[str] | None = None,
    ) -> list[Atoms]:
        """Return labelled structures in order of arrival.

        Each carries `info["REF_energy"]` (eV), `arrays["REF_forces"]` (eV/A), `info["REF_stress"]`
        (3, 3; eV/A^3) if any, `info["structure_key"]`, `info["label_key"]`, `info["channel"]`, and
        charge and multiplicity.

        Parameters
        ----------
        fidelity_name
            Level of theory.
        role
            "train" or "calibration"; None for both.
        keys
            Label keys to restrict to.
        """
        wanted = None if keys is None else set(keys)
        records = [
            record
            for record in self.records(fidelity_name, role)
            if wanted is None or record.key in wanted
        ]
        if wanted is not None and len(records) < len(wanted):
            raise StoreError(
                f"{len(wanted) - len(records)} of {len(wanted)} label keys are no "
                f"{role or 'labelled'} labels at {fidelity_name!r}; take the keys from `labels()`"
            )
        found = self._structures.frames_and_channels([record.structure for record in records])
        frames = []
        for record in records:
            original, channel = found[record.structure]
            atoms = original.copy()
            arrays = self.arrays(record)
            atoms.info[ENERGY] = float(record.energy)
            atoms.set_array(FORCES, arrays["forces"])
            if "stress" in arrays:
                atoms.info[STRESS] = arrays["stress"]
            atoms.info.update(structure_key=record.structure, label_key=record.key, channel=channel)
            frames.append(atoms)
        return frames

    def _put(self, structure_key: str, fidelity_key: str, **fields: Any) -> bool:
        """Insert a record, or put it in the place of a failure."""
        key = label_key(structure_key, fidelity_key)
        existing = self._records.objects.filter(key=key).first()
        if existing is not None and existing.state == "labelled":
            discard_blob(self.connection, fields)
            return attempts.made_here(existing.id) or attempts.made_here(existing.sequence)
        fields["sequence"] = next_number(self.connection, self._campaign, "label")
        attempts.note(fields["sequence"])
        fields["created"] = now()
        if existing is None:
            return self._records.insert(
                key=key, structure=structure_key, fidelity=fidelity_key, **fields
            )
        return self._records.change({"key": key, "state": "failed"}, fields) == 1
