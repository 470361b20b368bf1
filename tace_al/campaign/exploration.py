"""Exploration with the serving committee: an elastic band and Langevin walkers for every channel.

What they bring home becomes candidates: frames between the two thresholds, a random share of known
ones for audit, and the saddle point of every band, whose label checks the barrier itself.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from ase import Atoms

from tace_al.campaign.config import Reaction
from tace_al.campaign.end_states import EndStates
from tace_al.campaign.generations import Serving
from tace_al.campaign.workplace import Workplace, failed_task, raise_if_hopeless
from tace_al.core.random_generators import random_generator, random_seed
from tace_al.data.frames import bare_copy, read_frames
from tace_al.dispatch.request import Envelope, Request
from tace_al.selection.acquisition import is_audit
from tace_al.selection.calibration import PRIOR_SCALE

EXTRA_CHUNKS = 4
"""Further chunks a walker may run while the next generation trains."""


@final
class Exploration:
    """Bands and walkers of the serving generation.

    `on_saddle` is called with the key of a saddle point that may have its label already.
    """

    def __init__(
        self, workplace: Workplace, end_states: EndStates, on_saddle: Callable[[str], None]
    ) -> None:
        self.workplace, self.end_states, self.on_saddle = workplace, end_states, on_saddle
        self._running: dict[str, str] = {}

    def start(self, serving: Serving) -> None:
        """Submit the band and the first chunk of every walker, those a former run left included."""
        store = self.workplace.store
        known = {(chunk.walker, chunk.index): chunk for chunk in store.chunks()}
        for reaction in self.workplace.campaign.reactions:
            walker = f"{reaction.name}-band"
            if (walker, serving.number) not in known:
                self._submit_band(reaction, walker, serving)
            for number in range(self.workplace.campaign.exploration.walkers):
                walker = f"{reaction.name}-{number}"
                index = serving.number * (1 + EXTRA_CHUNKS)
                if (walker, index) not in known:
                    self._submit_walker(reaction, walker, index, serving)
        for chunk in store.chunks(state="running"):
            if chunk.key not in self._running:
                task = chunk.summary["task"]
                request = self.workplace.submit(task, chunk.summary["payload"])
                self._running[request.key] = chunk.walker

    def extend(self, serving: Serving) -> None:
        """Give an idle worker one more chunk of some walker."""
        chunks = self.workplace.store.chunks(kind="md")
        busy = set(self._running.values())
        for reaction in self.workplace.campaign.reactions:
            for number in range(self.workplace.campaign.exploration.walkers):
                walker = f"{reaction.name}-{number}"
                if walker in busy:
                    continue
                last = max((c.index for c in chunks if c.walker == walker), default=-1)
                if last + 1 < (serving.number + 1) * (1 + EXTRA_CHUNKS):
                    index = max(last + 1, serving.number * (1 + EXTRA_CHUNKS))
                    self._submit_walker(reaction, walker, index, serving)
                    return

    def finished(self, serving: Serving) -> bool:
        """Whether the band and the first chunks of this generation are all in."""
        chunks = self.workplace.store.chunks()
        first = [
            chunk
            for chunk in chunks
            if (chunk.kind == "neb" and chunk.index == serving.number)
            or (chunk.kind == "md" and chunk.index == serving.number * (1 + EXTRA_CHUNKS))
        ]
        channels = len(self.workplace.campaign.reactions)
        expected = channels * (1 + self.workplace.campaign.exploration.walkers)
        return len(first) == expected and all(chunk.state != "running" for chunk in first)

    def expects(self, key: str) -> bool:
        """Whether an envelope belongs to a band or a walker."""
        return key in self._running

    def receive(self, envelope: Envelope) -> None:
        """Turn what a band or a walker brought into candidates."""
        walker = self._running.pop(envelope.key)
        raise_if_hopeless(envelope)
        store = self.workplace.store
        chunk = store.chunk(envelope.key)
        if not envelope.ok or envelope.result is None:
            store.log("warning", f"{walker} failed: {envelope.error_message}")
            others = [other for other in store.chunks() if other.key != envelope.key]
            if not any(other.frames_path or other.state == "running" for other in others):
                raise failed_task(envelope, "nothing can be explored")
            failure = {**chunk.summary, "failure": envelope.error_message}
            store.move_chunk(envelope.key, source="running", target="broken", summary=failure)
            return
        result = envelope.result
        folder = Path(envelope.folder)
        if chunk.kind == "neb":
            self._receive_band(chunk, folder, result)
        else:
            for atoms in read_frames(folder / result["frames_file"]):
                self._consider(atoms, chunk)
        store.move_chunk(
            envelope.key,
            source="running",
            target=result["outcome"],
            steps=result["steps"],
            max_uncertainty=result["max_uncertainty"],
            frames_path=self.workplace.kept_path(folder / result["frames_file"]),
            summary={
                **chunk.summary,
                "result": result,
                "folder": self.workplace.kept_path(folder),
            },
        )

    def _receive_band(self, chunk: Any, folder: Path, result: dict[str, Any]) -> None:
        """Keep a band's barrier, its uncertain images and its saddle point."""
        store = self.workplace.store
        images = read_frames(folder / result["frames_file"])
        barrier = dict(result["barrier"])
        barrier["saddle_label"] = None
        barrier["labels"] = store.generation(chunk.generation).num_labels
        saddle = bare_copy(images[result["saddle_image"]])
        origin = {"kind": "saddle", "generation": chunk.generation, "walker": chunk.walker}
        key = store.add_structure(saddle, channel=chunk.channel, origin=origin)
        barrier["saddle"] = key
        for image in images[1:-1]:  # after the saddle point, whose origin is the one to remember
            self._consider(image, chunk)
        generation = store.generation(chunk.generation)
        store.update_generation(
            chunk.generation, barriers={**generation.barriers, chunk.channel: barrier}
        )
        added = store.add_candidate(
            key,
            kind="saddle",
            channel=chunk.channel,
            generation=chunk.generation,
            uncertainty=result["saddle_uncertainty"],
            priority=1e6,
            state="queued",
        )
        if not added:  # the very frame is a candidate already: its label counts as the saddle's too
            waiting = ("flagged", "rejected", "expired")
            store.move_candidate(key, source=waiting, target="queued", priority=1e6)
            self.on_saddle(key)

    def _consider(self, atoms: Atoms, chunk: Any) -> None:
        """Flag an uncertain frame; draw a lot for a known one."""
        store, acquisition = self.workplace.store, self.workplace.campaign.acquisition
        uncertainty = float(atoms.info["uncertainty"])
        origin = {
            "kind": chunk.kind,
            "walker": chunk.walker,
            "generation": chunk.generation,
            "index": chunk.index,
            "step": int(atoms.info.get("step", 0)),
        }
        frame = bare_copy(atoms)
        uncertain = uncertainty >= acquisition.low
        seed = self.workplace.campaign.seed
        key = store.add_structure(frame, channel=chunk.channel, origin=origin)
        audit = not uncertain and is_audit(key, share=acquisition.audit_share, seed=seed)
        if not uncertain and not audit:
            return
        store.add_candidate(
            key,
            kind="audit" if audit else "uncertain",
            channel=chunk.channel,
            generation=chunk.generation,
            uncertainty=uncertainty,
            priority=1e3 if audit else uncertainty,
            prediction={
                "energy": float(atoms.info["energy"]),
                "energy_spread": float(atoms.info["energy_spread"]),
                "forces": atoms.arrays["forces"],
                "force_spread": atoms.arrays["force_spread"],
            },
            state="queued" if audit else "flagged",
        )

    def _thresholds(self, serving: Serving) -> dict[str, float]:
        """Return the band of the serving committee for the workers.

        A scale read off two or three structures can be anything; until it is reliable the prior
        stands in for it, so that one outlier does not stop every walker at its first step.
        """
        acquisition, calibration = self.workplace.campaign.acquisition, serving.calibration
        return {
            "low": acquisition.low,
            "high": acquisition.high,
            "scale": calibration.scale if calibration.reliable else PRIOR_SCALE,
        }

    def _submit_band(self, reaction: Reaction, walker: str, serving: Serving) -> None:
        """Submit the band of a channel, starting from the last good one."""
        workplace, exploration = self.workplace, self.workplace.campaign.exploration
        initial, final = self.end_states.of(reaction.name)
        former = [
            chunk
            for chunk in workplace.store.chunks(walker=walker)
            if chunk.frames_path and chunk.state != "broken"
        ]
        latest = max(former, key=lambda chunk: chunk.index) if former else None
        payload = {
            "models": list(serving.models),
            "ends": workplace.frame_file([initial, final]),
            "path": workplace.path(latest.frames_path) if latest is not None else None,
            "num_images": reaction.num_images,
            "fmax": exploration.band_fmax,
            "max_steps": exploration.band_steps,
            "rattle": exploration.band_rattle if latest is None else 0.0,
            "seed": random_seed(workplace.campaign.seed, "band", reaction.name),
            "thresholds": self._thresholds(serving),
            "energy_scale": serving.calibration.energy_scale,
            "energy_floor": serving.calibration.energy_floor,
        }
        self._submit("band", payload, walker=walker, reaction=reaction, index=serving.number)

    def _submit_walker(self, reaction: Reaction, walker: str, index: int, serving: Serving) -> None:
        """Submit one chunk: on from where the walker is, or from a new place if that was unsafe."""
        workplace, exploration = self.workplace, self.workplace.campaign.exploration
        seed = workplace.campaign.seed
        ladder = exploration.temperatures
        rung = min(serving.number - 1, len(ladder) - 1)
        payload = {
            "models": list(serving.models),
            "start": self._start(reaction, walker, index),
            "thresholds": self._thresholds(serving),
            "temperature": ladder[max(rung - 1, 0)],
            "temperature_end": ladder[rung],
            "steps": exploration.steps,
            "timestep_fs": exploration.timestep_fs,
            "friction_per_fs": exploration.friction_per_fs,
            "seed": random_seed(seed, "walker", walker, index),
        }
        self._submit("langevin", payload, walker=walker, reaction=reaction, index=index)

    def _start(self, reaction: Reaction, walker: str, index: int) -> Path:
        """Return the frame file a chunk starts from."""
        store = self.workplace.store
        former = [chunk for chunk in store.chunks(walker=walker) if chunk.index < index]
        latest = max(former, key=lambda chunk: chunk.index) if former else None
        if latest is not None and latest.state == "known":
            folder = self.workplace.path(latest.summary["folder"])
            return folder / str(latest.summary["result"]["final_file"])
        starts = list(self.end_states.of(reaction.name))
        bands = [
            chunk
            for chunk in store.chunks(walker=f"{reaction.name}-band")
            if chunk.frames_path and chunk.state != "broken"
        ]
        if bands:
            path = max(bands, key=lambda chunk: chunk.index).frames_path
            starts += read_frames(self.workplace.path(path))[1:-1]
        generator = random_generator(self.workplace.campaign.seed, "start", walker, index)
        chosen = starts[int(generator.integers(len(starts)))]
        return self.workplace.frame_file([bare_copy(chosen)])

    def _submit(
        self, task: str, payload: dict[str, Any], *, walker: str, reaction: Reaction, index: int
    ) -> None:
        """Submit a chunk and remember it as running."""
        request: Request = self.workplace.request(task, payload)
        self.workplace.store.add_chunk(
            request.key,
            walker=walker,
            kind="neb" if task == "band" else "md",
            channel=reaction.name,
            index=index,
            state="running",
            generation=self._generation_of(task, index),
            temperature=payload.get("temperature_end"),
            summary={"task": task, "payload": dict(request.payload)},
        )
        self._running[request.key] = walker
        self.workplace.dispatcher.submit(request)

    def _generation_of(self, task: str, index: int) -> int:
        """Return the generation whose committee drives a chunk."""
        return index if task == "band" else index // (1 + EXTRA_CHUNKS)
