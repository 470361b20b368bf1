"""Generations: one committee after another, trained, calibrated, and put to serve if no worse.

training -> calibrated -> serving -> retired, or -> rejected when the frozen probe set says that the
new committee lost. Members differ by their seed and by the tenth of the labels they keep aside
(bootstrap without replacement). Labels with role "calibration" are seen by no member: they size the
error bars, and the first of them are the probe set.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from ase import Atoms

from tace_al.campaign.workplace import HEAD, Workplace, failed_task, raise_if_hopeless
from tace_al.core.errors import TrainingError
from tace_al.core.random_generators import random_generator, random_seed
from tace_al.dispatch.request import Envelope
from tace_al.model.config import preset_config
from tace_al.selection.calibration import Calibration, energy_differences, fit_calibration
from tace_al.selection.fidelities import repeated
from tace_al.selection.probe import not_worse

PROBE_SIZE = 64
MINIMUM_PROBE = 6
LARGEST_ATTEMPT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """The committee that answers now: its number, checkpoints and calibration."""

    number: int
    models: tuple[Path, ...]
    calibration: Calibration


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """One member in training."""

    index: int
    attempt: int
    payload: dict[str, Any]
    training_set: str


@final
class Generations:
    """Trains committees and decides which one serves."""

    def __init__(self, workplace: Workplace, anchors: dict[str, str]) -> None:
        self.workplace, self.anchors = workplace, anchors
        self.number = 0
        self.serving: Serving | None = None
        self._members: dict[str, _Member] = {}
        self._done: dict[int, tuple[str, Path]] = {}
        self._calibration_keys: list[str] = []
        self._assessing = ""

    @property
    def training(self) -> bool:
        """Whether a generation is on its way."""
        return bool(self._members or self._assessing)

    @property
    def num_labels_seen(self) -> int:
        """Labels that the newest generation was trained on."""
        return self.workplace.store.generation(self.number).num_labels if self.number else 0

    def resume(self) -> None:
        """Take up where a former run was: the serving committee, and one left in training."""
        store = self.workplace.store
        for record in store.generations():
            self.number = max(self.number, record.number)
            if record.state == "serving":
                calibration = Calibration(**record.audit["calibration"])
                paths = tuple(self.workplace.path(store.model(key).path) for key in record.models)
                self.serving = Serving(number=record.number, models=paths, calibration=calibration)
        for record in store.generations():
            if record.state in ("training", "calibrated"):
                self._submit_members(record.number, record.audit)

    def start(self) -> None:
        """Begin the next generation with every label there is."""
        store = self.workplace.store
        keys = [record.key for record in store.labels(role="train")]
        rejected = self.number and store.generation(self.number).state == "rejected"
        plan = {
            "training_set": store.add_training_set(keys),
            "parent": self.serving.number if self.serving and not rejected else 0,
        }
        self.number += 1
        store.add_generation(self.number, state="training", num_labels=len(keys), audit=plan)
        self._submit_members(self.number, plan)

    def _submit_members(self, number: int, plan: dict[str, Any]) -> None:
        """Submit every member's training; the same plan gives the same requests."""
        workplace, campaign = self.workplace, self.workplace.campaign
        store, choice = workplace.store, campaign.model
        label_keys = store.training_set(plan["training_set"])
        frames = workplace.labelled_frames(label_keys)
        frame_file = workplace.frame_file(frames)
        movable = [i for i, atoms in enumerate(frames) if len(atoms) > 1]
        parents = store.models(plan["parent"]) if plan["parent"] else []
        shape: dict[str, Any] = {"elements": campaign.elements, **choice.options}
        if workplace.cheap is not None:
            shape["heads"] = tuple(workplace.levels)
        config = preset_config(choice.preset, **shape)
        self._done = {}
        for index in range(choice.members):
            seed = random_seed(campaign.seed, "member", number, index)
            validation = self._kept_aside(index, {i: label_keys[i] for i in movable})
            training = [i for i in range(len(frames)) if i not in set(validation)]
            parent = next((model for model in parents if model.member == index), None)
            order = [label_keys[i] for i in (*training, *validation)]
            training_set = store.add_training_set(order)
            payload = {
                "frames": frame_file,
                **self._lessons(frames, training, validation),
                "config": config.to_dict(),
                "options": self._options(warm=parent is not None, seed=seed),
                "start": workplace.path(parent.path) if parent is not None else None,
                "metadata": {
                    "campaign": store.campaign_id,
                    "generation": number,
                    "member": index,
                    "seed": seed,
                    "training_set": training_set,
                    "parents": [parent.key] if parent is not None else [],
                    "fidelity": workplace.fidelity.name,
                    "code_version": store.campaign().code_version,
                },
            }
            self._submit(
                _Member(index=index, attempt=0, payload=payload, training_set=training_set)
            )

    def _lessons(
        self, frames: list[Atoms], training: list[int], validation: list[int]
    ) -> dict[str, Any]:
        """Return which frames a member learns from, and is held to.

        With two levels the trunk and the cheap head are trained first, on labels that are many; the
        expensive head begins as a copy of the cheap one and sees its few labels more than once.
        """
        lessons: dict[str, Any] = {"training": training, "validation": validation}
        cheap, choice = self.workplace.cheap, self.workplace.campaign.model
        if cheap is None:
            return lessons
        expensive = [i for i, atoms in enumerate(frames) if atoms.info[HEAD] != cheap.name]
        lessons["training"] = repeated(
            training, expensive, most=self.workplace.campaign.expensive.repeats
        )
        lessons["trunk"] = {
            "head": cheap.name,
            "training": [i for i in training if i not in expensive],
            "validation": [i for i in validation if i not in expensive],
            "epochs": choice.first_epochs,
            "learning_rate": choice.learning_rate,
        }
        return lessons

    def _kept_aside(self, member: int, label_keys: dict[int, str]) -> list[int]:
        """Return the places of the labels that a member validates on, at least one of three.

        Each label draws its lot once and for all: a warm-started member must not be judged on
        labels that its parent was trained on.
        """
        campaign = self.workplace.campaign
        lots = {
            place: float(random_generator(campaign.seed, "bootstrap", member, key).random())
            for place, key in label_keys.items()
        }
        share = campaign.model.validation_share
        kept = [place for place, lot in lots.items() if lot < share]
        if share > 0 and len(lots) >= 3 and not 0 < len(kept) < len(lots):
            kept = [min(lots, key=lambda place: lots[place])]
        return sorted(kept)

    def _options(self, *, warm: bool, seed: int) -> dict[str, Any]:
        """Return the training options of a cold or warm start; with two levels a trunk is there."""
        choice = self.workplace.campaign.model
        warm = warm or self.workplace.cheap is not None
        return {
            "epochs": choice.epochs if warm else choice.first_epochs,
            "time_limit_s": choice.seconds,
            "batch_size": choice.batch_size,
            "optimizer": "adam",
            "learning_rate": choice.warm_learning_rate if warm else choice.learning_rate,
            "energy_weight": choice.energy_weight,
            "energy_gain": choice.energy_gain,
            "keep_last": True,
            "seed": seed,
        }

    def _submit(self, member: _Member) -> None:
        """Submit one member's training."""
        request = self.workplace.submit("train", member.payload)
        self._members[request.key] = member

    def receive_member(self, envelope: Envelope) -> None:
        """Keep a trained member; a failed one is tried again, cold and with another seed."""
        member = self._members.pop(envelope.key)
        raise_if_hopeless(envelope)
        store = self.workplace.store
        if not envelope.ok or envelope.result is None:
            store.log("warning", f"member {member.index} failed: {envelope.error_message}")
            if member.attempt >= LARGEST_ATTEMPT:
                raise TrainingError(str(failed_task(envelope, "its committee cannot serve")))
            seed = random_seed(member.payload["options"]["seed"], "again")
            payload = {
                **member.payload,
                "start": None,
                "options": self._options(warm=False, seed=seed),
                "metadata": {**member.payload["metadata"], "seed": seed, "parents": []},
            }
            self._submit(replace(member, attempt=member.attempt + 1, payload=payload))
            return
        result, metadata = envelope.result, member.payload["metadata"]
        path = Path(envelope.folder) / result["model_file"]
        store.add_model(
            envelope.key,
            generation=self.number,
            member=member.index,
            path=self.workplace.kept_path(path),
            parents=metadata["parents"],
            training_set=member.training_set,
            seed=metadata["seed"],
            config={**member.payload["config"], "options": member.payload["options"]},
            code_version=metadata["code_version"],
            metrics={**result["metrics"], "epochs": result["epochs"]},
            preset=self.workplace.campaign.model.preset,
            num_parameters=result["num_parameters"],
        )
        self._done[member.index] = (envelope.key, path)
        if not self._members:
            self._assess()

    def _assess(self) -> None:
        """Predict the calibration labels and the anchors of their energies."""
        store = self.workplace.store
        records = store.labels(self.workplace.target.name, role="calibration")
        self._calibration_keys = [record.key for record in records]
        keys = [*self._calibration_keys, *self.anchors.values()]
        payload = {
            "models": [path for _, path in self._done.values()],
            "frames": self.workplace.frame_file(self.workplace.labelled_frames(keys)),
            **self.workplace.head,
        }
        self._assessing = self.workplace.submit("assess", payload).key

    def expects(self, key: str) -> bool:
        """Whether an assessment belongs to the generation on its way."""
        return key == self._assessing

    def receive_assessment(self, envelope: Envelope) -> None:
        """Calibrate the new committee and let it serve, unless the probe set says it lost."""
        raise_if_hopeless(envelope)
        if not envelope.ok or envelope.result is None:
            raise failed_task(envelope, "the new committee cannot be calibrated")
        self._assessing = ""
        store = self.workplace.store
        with np.load(Path(envelope.folder) / envelope.result["assessment_file"]) as content:
            arrays = {name: content[name] for name in content.files}
        spreads, errors = self._scatter(arrays)
        calibration = self._calibrate(arrays, spreads, errors)
        probe = {
            key: float(np.sqrt(np.mean(error**2)))
            for key, error in zip(self._calibration_keys[:PROBE_SIZE], errors, strict=False)
        }
        record = store.generation(self.number)
        audit = {**record.audit, "calibration": asdict(calibration), "probe": probe}
        models = [key for _, (key, _) in sorted(self._done.items())]
        accepted = self._no_worse_than_serving(probe)
        fields = {
            "models": models,
            "scale": calibration.scale,
            "coverage": calibration.coverage,
            "target_coverage": calibration.target_coverage,
            "num_calibration": calibration.num_structures,
            "probe_error": float(np.mean(list(probe.values()))) if probe else None,
            "errors": envelope.result["errors"],
            "audit": audit,
        }
        store.log(
            "calibration",
            f"generation {self.number} calibrated on {calibration.num_structures} structures",
            generation=self.number,
            spread=np.concatenate([np.zeros(0), *spreads]).tolist(),
            error=np.concatenate([np.zeros(0), *errors]).tolist(),
        )
        store.move_generation(
            self.number, source=("training", "calibrated"), target="calibrated", **fields
        )
        if not accepted:
            store.move_generation(self.number, source="calibrated", target="rejected")
            store.log("rejected", f"generation {self.number} lost on the probe set")
            self._choose_again()
            return
        if self.serving is not None:
            store.move_generation(self.serving.number, source="serving", target="retired")
        store.move_generation(self.number, source="calibrated", target="serving")
        self.serving = Serving(
            number=self.number,
            models=tuple(path for _, (_, path) in sorted(self._done.items())),
            calibration=calibration,
        )

    def _choose_again(self) -> None:
        """Let the serving generation choose more frames: the same labels would lose again."""
        if self.serving is not None:
            store = self.workplace.store
            audit = dict(store.generation(self.serving.number).audit)
            audit.pop("chosen", None)
            store.update_generation(self.serving.number, audit=audit)

    def _scatter(self, arrays: dict[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return spreads and errors of each calibration structure, anchors left out."""
        bounds = np.cumsum(arrays["counts"])[:-1]
        number = len(self._calibration_keys)
        spreads = np.split(arrays["force_spread"], bounds)[:number]
        errors = np.split(arrays["force_error"], bounds)[:number]
        return spreads, errors

    def _calibrate(
        self, arrays: dict[str, Any], spreads: list[np.ndarray], errors: list[np.ndarray]
    ) -> Calibration:
        """Fit the conformal scales of forces, and of energies above each channel's reactant."""
        store, number = self.workplace.store, len(self._calibration_keys)
        labels = {record.key: record for record in store.labels()}
        energies, channels = arrays["member_energies"], list(self.anchors)
        anchor_place = {channel: number + i for i, channel in enumerate(channels)}
        places, owners = self._comparable(labels)
        energy_spreads, energy_errors = np.zeros(0), np.zeros(0)
        if places:
            energy_spreads, energy_errors = energy_differences(
                energies[places],
                np.array([labels[self._calibration_keys[place]].energy for place in places]),
                energies[[anchor_place[channel] for channel in owners]],
                np.array([labels[self.anchors[channel]].energy for channel in owners]),
            )
        return fit_calibration(
            spreads,
            errors,
            target_coverage=self.workplace.campaign.acquisition.target_coverage,
            force_floor=self.workplace.campaign.acquisition.force_floor,
            energy_spreads=energy_spreads,
            energy_errors=energy_errors,
        )

    def _comparable(self, labels: Mapping[str, Any]) -> tuple[list[int], list[str]]:
        """Return the places and channels of calibration labels of the same atoms as the anchor."""
        store = self.workplace.store
        formulas = {
            channel: store.structure_record(labels[key].structure).formula
            for channel, key in self.anchors.items()
        }
        places, owners = [], []
        for place, key in enumerate(self._calibration_keys):
            record = store.structure_record(labels[key].structure)
            if formulas[record.channel] == record.formula:
                places.append(place)
                owners.append(record.channel)
        return places, owners

    def _no_worse_than_serving(self, probe: dict[str, float]) -> bool:
        """Compare with the serving committee on the probe structures both have seen."""
        if self.serving is None:
            return True
        former = self.workplace.store.generation(self.serving.number).audit.get("probe", {})
        shared = [key for key in probe if key in former]
        if len(shared) < MINIMUM_PROBE:
            return True
        return not_worse(
            np.array([probe[key] for key in shared]), np.array([former[key] for key in shared])
        )
