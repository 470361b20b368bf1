"""The first thing a campaign does: end states relaxed by the labeller, and the frames around them.

Every step of a relaxation is a label and is kept. Around the relaxed states lie the seeds of the
first training set: rattled copies, and the interpolated path with a rattled copy of every image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from ase import Atoms

from tace_al.campaign.config import Reaction
from tace_al.campaign.labelling import Labelling
from tace_al.campaign.workplace import Workplace, failed_task, raise_if_hopeless
from tace_al.core.errors import LabellerError, StructureError
from tace_al.core.random_generators import random_generator
from tace_al.data.frames import bare_copy, fixed_mask, read_frames
from tace_al.dispatch.label_file import CRASH, label_path
from tace_al.dispatch.request import Envelope, Request
from tace_al.engines.labelling.isolated import isolated_atom
from tace_al.engines.sampling.band_path import comparable_ends, interpolated_path

ENDS = ("initial", "final")
SAME_STATE = 0.05
"""Angstrom; end states without an atom that moves further are one state."""


@final
class EndStates:
    """Relaxed end states of every channel, once the labeller has made them."""

    def __init__(self, workplace: Workplace, labelling: Labelling) -> None:
        self.workplace, self.labelling = workplace, labelling
        self._waiting: dict[str, list[tuple[Reaction, str]]] = {}
        self._requests: dict[str, Request] = {}
        self._relaxed: dict[tuple[str, str], Atoms] = {}
        self._labels: dict[tuple[str, str], str] = {}

    @property
    def ready(self) -> bool:
        """Whether every end state is relaxed."""
        return len(self._relaxed) == 2 * len(self.workplace.campaign.reactions)

    def of(self, channel: str) -> tuple[Atoms, Atoms]:
        """Return initial and final state of a channel."""
        return self._relaxed[channel, "initial"], self._relaxed[channel, "final"]

    def label_key(self, channel: str, end: str) -> str:
        """Return the key of a relaxed end state's label."""
        return self._labels[channel, end]

    def start(self) -> None:
        """Submit all relaxations; those a former run finished are found on disk."""
        exploration = self.workplace.campaign.exploration
        for reaction in self.workplace.campaign.reactions:
            for end in ENDS:
                structure = reaction.initial if end == "initial" else reaction.final
                payload = {
                    **self.workplace.labeller_payload(),
                    "frames": self.workplace.frame_file([structure.to_atoms()]),
                    "fmax": exploration.relax_fmax,
                    "max_steps": exploration.relax_steps,
                }
                request = self.workplace.submit("relax", payload)
                # channels may share a state: one relaxation then serves them all
                self._waiting.setdefault(request.key, []).append((reaction, end))
                self._requests[request.key] = request

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
        for reaction, end in self._waiting.pop(envelope.key):
            self._keep(reaction, end, envelope)

    def _keep(self, reaction: Reaction, end: str, envelope: Envelope) -> None:
        """Keep a relaxation's labels; queue the seeds when a channel has both its ends."""
        if envelope.error_kind == CRASH:
            raise _labeller_fails(reaction, end, envelope.error_message)
        if not envelope.ok or envelope.result is None:
            raise failed_task(envelope, f"the {end} state of '{reaction.name}' has no label")
        result = envelope.result
        if result["failure"]:
            raise _labeller_fails(reaction, end, result["failure"])
        frames = read_frames(Path(envelope.folder) / result["frames_file"])
        for step, (atoms, entry) in enumerate(zip(frames, result["labels"], strict=True)):
            last = step == len(frames) - 1
            origin = {"kind": "end_state" if last else "relax", "end": end, "step": step}
            key = self.workplace.store.add_structure(atoms, channel=reaction.name, origin=origin)
            path = label_path(self.workplace.labels_dir, entry["label_key"])
            self.labelling.keep(key, path, role="train", generation=0)
        if not result["converged"]:
            self.workplace.store.log(
                "warning",
                f"the {end} state of '{reaction.name}' is not relaxed to "
                f"{self.workplace.campaign.exploration.relax_fmax} eV/A after {len(frames)} labels",
            )
        self._relaxed[reaction.name, end] = bare_copy(frames[-1])
        self._labels[reaction.name, end] = result["labels"][-1]["label_key"]
        if all((reaction.name, other) in self._relaxed for other in ENDS):
            self._queue_seeds(reaction)

    def _queue_seeds(self, reaction: Reaction) -> None:
        """Queue the labels of the first training set of a channel."""
        campaign = self.workplace.campaign
        initial, final = self.of(reaction.name)
        for symbol in sorted(set(initial.get_chemical_symbols())):
            self._queue(isolated_atom(symbol), reaction.name, {"kind": "isolated"})
        for end, state in zip(ENDS, (initial, final), strict=True):
            generator = random_generator(campaign.seed, "rattle", reaction.name, end)
            for copy in range(campaign.exploration.num_rattled):
                origin: dict[str, str | int] = {"kind": "rattle", "end": end, "copy": copy}
                atoms = rattled(state, campaign.exploration.rattle, generator)
                self._queue(atoms, reaction.name, origin)
        last = comparable_ends(initial, final)
        largest = float(np.linalg.norm(last - initial.positions, axis=1).max())
        if largest < SAME_STATE:
            raise StructureError(
                f"the end states of '{reaction.name}' relax to the same structure (no atom of one "
                f"lies more than {largest:.3f} A from its place in the other); start the one that "
                "moved over nearer to its own minimum"
            )
        path = interpolated_path(initial, last, reaction.num_images)
        for image, positions in enumerate(path[1:-1], start=1):
            atoms = bare_copy(initial)
            atoms.set_positions(positions, apply_constraint=False)
            self._queue(atoms, reaction.name, {"kind": "path", "image": image})
            generator = random_generator(campaign.seed, "rattle", reaction.name, image)
            atoms = rattled(atoms, campaign.exploration.rattle, generator)
            self._queue(atoms, reaction.name, {"kind": "rattle", "image": image})

    def _queue(self, atoms: Atoms, channel: str, origin: Mapping[str, str | int]) -> None:
        """Put a seed into the queue of labels."""
        store = self.workplace.store
        key = store.add_structure(atoms, channel=channel, origin=origin)
        store.add_candidate(key, kind="seed", channel=channel, generation=0, state="queued")


def _labeller_fails(reaction: Reaction, end: str, why: str) -> LabellerError:
    """Return the error that ends a campaign before it has begun."""
    return LabellerError(f"the labeller fails on the {end} state of '{reaction.name}': {why}")


def rattled(atoms: Atoms, width: float, generator: np.random.Generator) -> Atoms:
    """Return a copy whose free atoms are displaced by a normal deviate of `width` Angstrom."""
    copy = bare_copy(atoms)
    displacement = generator.normal(scale=width, size=(len(atoms), 3))
    displacement[fixed_mask(atoms)] = 0.0
    copy.positions = copy.positions + displacement
    return copy
