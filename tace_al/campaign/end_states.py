"""The first thing a campaign does: start states relaxed by the labeller, and seeds.

Start states are both ends of a reaction, and the starts of a channel without one. Every step of a
relaxation is a label and is kept. Around the relaxed states lie the seeds of the first training
set: rattled copies, of a reaction the interpolated path with a rattled copy of every image, of
other channels the seeds that they name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from ase import Atoms

from tace_al.campaign.config import Campaign, Reaction, Structure
from tace_al.campaign.labelling import Labelling
from tace_al.campaign.retrying import adopt_bundles, relaxation_retries
from tace_al.campaign.workplace import Workplace, failed_task, raise_if_hopeless
from tace_al.core.errors import LabellerError, StructureError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask, read_frames
from tace_al.dispatch.label_file import CRASH, label_path
from tace_al.dispatch.request import Envelope, Request
from tace_al.engines.labelling.isolated import isolated_atom
from tace_al.engines.sampling.band_path import comparable_ends, interpolated_path
from tace_al.selection.fidelities import evenly

ENDS = ("initial", "final")
SAME_STATE = 0.05
"""Angstrom; end states without an atom that moves further are one state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """One start state: its channel, its name there, and how far it may be relaxed."""

    channel: str
    end: str
    structure: Structure
    max_steps: int


@final
class EndStates:
    """Relaxed start states of every channel, once the labeller has made them."""

    def __init__(self, workplace: Workplace, labelling: Labelling) -> None:
        self.workplace, self.labelling = workplace, labelling
        self._states = _states_of(workplace.campaign)
        self._waiting: dict[str, list[_State]] = {}
        self._requests: dict[str, Request] = {}
        self._relaxed: dict[tuple[str, str], Atoms] = {}
        self._labels: dict[tuple[str, str], str] = {}

    @property
    def ready(self) -> bool:
        """Whether every start state is relaxed."""
        return len(self._relaxed) == len(self._states)

    def of(self, channel: str) -> tuple[Atoms, Atoms]:
        """Return initial and final state of a reaction."""
        return self._relaxed[channel, "initial"], self._relaxed[channel, "final"]

    def starts(self, channel: str) -> list[Atoms]:
        """Return every relaxed start state of a channel, in order."""
        ends = [state.end for state in self._states if state.channel == channel]
        return [self._relaxed[channel, end] for end in ends]

    def anchor(self, channel: str) -> str:
        """Return the key of the label of a channel's first start state."""
        first = next(state for state in self._states if state.channel == channel)
        return self._labels[channel, first.end]

    def start(self) -> None:
        """Submit all relaxations; those a former run finished are found on disk."""
        task = "relax" if self.workplace.cheap is None else "relax_levels"
        for state in self._states:
            again = relaxation_retries(self.workplace.store, state.channel)
            payload = {
                **self.workplace.labeller_payload(),
                **self._cheap_payload(),
                "frames": self.workplace.frame_file([state.structure.to_atoms()]),
                "fmax": self.workplace.campaign.exploration.relax_fmax,
                "max_steps": state.max_steps,
            }
            if again:  # at a user's word; it makes another request than the one that failed
                payload = with_retries(payload, again, self.workplace.target.name)
            limit = self.workplace.target.choice.max_seconds * (state.max_steps + 1)
            request = self.workplace.submit(task, payload, timeout_s=limit)
            # channels may share a state: one relaxation then serves them all
            self._waiting.setdefault(request.key, []).append(state)
            self._requests[request.key] = request

    def _cheap_payload(self) -> dict[str, Any]:
        """Return what a relaxation needs to take its steps on the cheaper of two levels."""
        cheap = self.workplace.cheap
        if cheap is None:
            return {}
        return {
            "name": self.workplace.target.name,
            "cheap": {**self.workplace.labeller_payload(cheap), "name": cheap.name},
            "cycles": self.workplace.campaign.expensive.relax_cycles,
        }

    def receive(self, envelope: Envelope) -> None:
        """Keep a relaxation's labels for every channel that begins or ends there.

        A labeller that crashes gets a second chance: without end states there is no campaign.
        """
        raise_if_hopeless(envelope)
        request = self._requests.pop(envelope.key, None)
        if envelope.error_kind == CRASH and request is not None:
            self.workplace.store.log(
                "warning", f"an end state is relaxed once more: {envelope.error_message}"
            )
            self.workplace.dispatcher.submit(request)
            return
        for state in self._waiting.pop(envelope.key):
            self._keep(state, envelope)

    def _keep(self, state: _State, envelope: Envelope) -> None:
        """Keep a relaxation's labels; queue the seeds when a channel has all its states."""
        channel, end = state.channel, state.end
        if envelope.error_kind == CRASH:
            raise self._labeller_fails(state, envelope.error_message)
        if not envelope.ok or envelope.result is None:
            raise failed_task(envelope, f"the {end} state of '{channel}' has no label")
        result = envelope.result
        if result["failure"]:
            raise self._labeller_fails(state, result["failure"])
        frames = read_frames(Path(envelope.folder) / result["frames_file"])
        for step, (atoms, entry) in enumerate(zip(frames, result["labels"], strict=True)):
            last = entry["structure"] == result["labels"][-1]["structure"]
            origin = {"kind": "end_state" if last else "relax", "end": end, "step": step}
            key = self.workplace.store.add_structure(atoms, channel=channel, origin=origin)
            path = label_path(self.workplace.labels_dir, entry["label_key"])
            level = self.workplace.levels[entry.get("level", self.workplace.target.name)]
            self.labelling.keep(key, path, role="train", generation=0, level=level)
        if not result["converged"] and state.max_steps:
            self.workplace.store.log(
                "warning",
                f"the {end} state of '{channel}' is not relaxed to "
                f"{self.workplace.campaign.exploration.relax_fmax} eV/A after {len(frames)} labels",
            )
        self._relaxed[channel, end] = bare_copy(frames[-1])
        self._labels[channel, end] = result["labels"][-1]["label_key"]
        states = [other for other in self._states if other.channel == channel]
        if all((channel, other.end) in self._relaxed for other in states):
            self._queue_seeds(channel, [other.end for other in states])

    def _labeller_fails(self, state: _State, why: str) -> LabellerError:
        """Return the error that ends a campaign before it has begun; keep what failed."""
        levels = {name: level.fidelity for name, level in self.workplace.levels.items()}
        adopt_bundles(self.workplace.store, levels, state.channel)
        return LabellerError(
            f"the labeller fails on the {state.end} state of '{state.channel}': {why}; "
            f"see `tace-al failures {self.workplace.directory}`"
        )

    def _queue_seeds(self, channel: str, ends: Sequence[str]) -> None:
        """Queue the labels of the first training set of a channel."""
        campaign = self.workplace.campaign
        states = self.starts(channel)
        extra = [
            seed.to_atoms()
            for other in campaign.structures
            if other.name == channel
            for seed in other.seeds
        ]
        symbols = {symbol for atoms in (*states, *extra) for symbol in atoms.symbols}
        for symbol in sorted(symbols):
            self._queue(isolated_atom(symbol), channel, {"kind": "isolated"})
        for end, state in zip(ends, states, strict=True):
            generator = random_generator(campaign.seed, "rattle", channel, end)
            for copy in range(campaign.exploration.num_rattled):
                origin: dict[str, str | int] = {"kind": "rattle", "end": end, "copy": copy}
                atoms = rattled(state, campaign.exploration.rattle, generator)
                self._queue(atoms, channel, origin)
        for index, atoms in enumerate(extra):
            self._queue(atoms, channel, {"kind": "seed", "copy": index})
        for reaction in campaign.reactions:
            if reaction.name == channel:
                self._queue_path(reaction)

    def _queue_path(self, reaction: Reaction) -> None:
        """Queue the labels along the interpolated path of a reaction."""
        campaign = self.workplace.campaign
        initial, final = self.of(reaction.name)
        last = comparable_ends(initial, final)
        largest = float(np.linalg.norm(last - initial.positions, axis=1).max())
        if largest < SAME_STATE:
            raise StructureError(
                f"the end states of '{reaction.name}' relax to the same structure (no atom of one "
                f"lies more than {largest:.3f} A from its place in the other); start the one that "
                "moved over nearer to its own minimum"
            )
        path = interpolated_path(initial, last, reaction.num_images)
        both = evenly(reaction.num_images - 2, campaign.expensive.first)
        for image, positions in enumerate(path[1:-1], start=1):
            atoms = bare_copy(initial)
            atoms.set_positions(positions, apply_constraint=False)
            levels = list(self.workplace.levels) if image - 1 in both else []
            self._queue(atoms, reaction.name, {"kind": "path", "image": image}, levels)
            generator = random_generator(campaign.seed, "rattle", reaction.name, image)
            atoms = rattled(atoms, campaign.exploration.rattle, generator)
            self._queue(atoms, reaction.name, {"kind": "rattle", "image": image})

    def _queue(
        self,
        atoms: Atoms,
        channel: str,
        origin: Mapping[str, str | int],
        levels: Sequence[str] = (),
    ) -> None:
        """Put a seed into the queue of labels, at these levels of theory where there are two."""
        store = self.workplace.store
        key = store.add_structure(atoms, channel=channel, origin=origin)
        store.add_candidate(key, kind="seed", channel=channel, generation=0, state="queued")
        if levels and self.workplace.cheap is not None:
            store.move_candidate(key, source="queued", target="queued", levels=list(levels))


def _states_of(campaign: Campaign) -> list[_State]:
    """Return the start states of every channel, reactions first."""
    steps = campaign.exploration.relax_steps
    states = [
        _State(
            channel=reaction.name,
            end=end,
            structure=reaction.initial if end == "initial" else reaction.final,
            max_steps=steps,
        )
        for reaction in campaign.reactions
        for end in ENDS
    ]
    return states + [
        _State(
            channel=channel.name,
            end=f"start_{index}",
            structure=structure,
            max_steps=steps if channel.relax else 0,
        )
        for channel in campaign.structures
        for index, structure in enumerate(channel.starts)
    ]


def with_retries(payload: Mapping[str, Any], again: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the payload of a relaxation with the options it is tried again with.

    Parameters
    ----------
    again
        See `relaxation_retries`.
    name
        Level of theory of the result; a cheaper one is in the payload's `cheap`.
    """
    changed = {**payload, "retry": again["number"]}
    changed["options"] = {**payload["options"], **again["options"].get(name, {})}
    if "cheap" in payload:
        cheap = payload["cheap"]
        options = {**cheap["options"], **again["options"].get(cheap["name"], {})}
        changed["cheap"] = {**cheap, "options": options}
    return changed


def rattled(atoms: Atoms, width: float, generator: np.random.Generator) -> Atoms:
    """Return a copy whose free atoms are displaced by a normal deviate of `width` Angstrom."""
    copy = bare_copy(atoms)
    displacement = generator.normal(scale=width, size=(len(atoms), 3))
    displacement[fixed_mask(atoms)] = 0.0
    copy.positions = copy.positions + displacement
    return copy
