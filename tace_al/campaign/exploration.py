"""Exploration with the serving committee: elastic bands of reactions, walkers of every channel.

Walkers are those of the campaign's samplers, or the Langevin walkers of its `exploration`.

What they bring home becomes candidates: frames between the two thresholds, a random share of known
ones for audit, and the saddle point of every band, whose label checks the barrier itself.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ase import Atoms

from tace_al.campaign.config import Campaign, Reaction
from tace_al.campaign.end_states import EndStates
from tace_al.campaign.generations import Serving
from tace_al.campaign.sampling import SamplerChoice
from tace_al.campaign.workplace import Workplace, failed_task, raise_if_hopeless
from tace_al.core.random_generators import random_generator, random_seed
from tace_al.data.frames import bare_copy, read_frames
from tace_al.dispatch.request import Envelope, Request
from tace_al.selection.acquisition import is_audit
from tace_al.selection.calibration import PRIOR_SCALE

EXTRA_CHUNKS = 4
"""Further chunks a walker may run while the next generation trains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walker:
    """One walker; without a sampler it is one of the Langevin walkers of `exploration`."""

    name: str
    channel: str
    sampler: SamplerChoice | None = None


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
        self._walkers = _walkers_of(workplace.campaign)

    def start(self, serving: Serving) -> None:
        """Submit the band and the first chunk of every walker, those a former run left included."""
        store = self.workplace.store
        known = {(chunk.walker, chunk.index) for chunk in store.chunks()}
        for reaction in self.workplace.campaign.reactions:
            name = f"{reaction.name}-band"
            if (name, serving.number) not in known:
                self._submit_band(reaction, name, serving)
        for walker in self._walkers:
            index = serving.number * (1 + EXTRA_CHUNKS)
            if (walker.name, index) not in known:
                self._submit_walker(walker, index, serving)
        for chunk in store.chunks(state="running"):
            if chunk.key not in self._running:
                task = chunk.summary["task"]
                request = self.workplace.submit(task, chunk.summary["payload"])
                self._running[request.key] = chunk.walker

    def extend(self, serving: Serving) -> None:
        """Give an idle worker one more chunk of some walker."""
        chunks = self.workplace.store.chunks(kind="md")
        busy = set(self._running.values())
        for walker in self._walkers:
            if walker.name in busy:
                continue
            last = max((c.index for c in chunks if c.walker == walker.name), default=-1)
            if last + 1 < (serving.number + 1) * (1 + EXTRA_CHUNKS):
                index = max(last + 1, serving.number * (1 + EXTRA_CHUNKS))
                self._submit_walker(walker, index, serving)
                return

    def finished(self, serving: Serving) -> bool:
        """Whether the bands and the first chunks of this generation are all in."""
        chunks = self.workplace.store.chunks()
        first = [
            chunk
            for chunk in chunks
            if (chunk.kind == "neb" and chunk.index == serving.number)
            or (chunk.kind == "md" and chunk.index == serving.number * (1 + EXTRA_CHUNKS))
        ]
        expected = len(self.workplace.campaign.reactions) + len(self._walkers)
        return len(first) == expected and all(chunk.state != "running" for chunk in first)

    def observables(self, serving: Serving) -> dict[str, list[dict[str, Any]]]:
        """Return what the first chunks of this generation observed, by channel."""
        found: dict[str, list[dict[str, Any]]] = {}
        for chunk in first_chunks(self.workplace.store.chunks(kind="md"), serving.number):
            result = chunk.summary.get("result")
            if result and result.get("observables"):
                told = {"walker": chunk.walker, "outcome": chunk.state}
                told["sampler"] = chunk.summary["payload"]["sampler"]
                found.setdefault(chunk.channel, []).append({**result["observables"], **told})
        return found

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
            self._queue_known_saddle(key)
            self.on_saddle(key)

    def _queue_known_saddle(self, key: str) -> None:
        """Queue a saddle point that is a candidate already, at both of two levels of theory."""
        store = self.workplace.store
        waiting: tuple[str, ...] = ("flagged", "rejected", "expired")
        wanted: dict[str, Any] = {"priority": 1e6}
        if self.workplace.cheap is not None:
            waiting = (*waiting, "queued", "labelled")  # perhaps at the cheap level alone
            wanted["levels"] = list(self.workplace.levels)
            store.move_candidate(key, source="running", target="running", **wanted)
        store.move_candidate(key, source=waiting, target="queued", **wanted)

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
        if "sampler" in chunk.summary["payload"]:
            origin["sampler"] = chunk.summary["payload"]["sampler"]
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
        self._submit("band", payload, walker=walker, channel=reaction.name, index=serving.number)

    def _submit_walker(self, walker: _Walker, index: int, serving: Serving) -> None:
        """Submit one chunk: on from where the walker is, or from a new place if that was unsafe."""
        if walker.sampler is None:
            self._submit_langevin(walker, index, serving)
            return
        start, state = self._start(walker, index)
        payload = {
            "sampler": walker.sampler.name,
            "options": walker.sampler.options_at(serving.number),
            "models": list(serving.models),
            "start": start,
            "state": state,
            "thresholds": self._thresholds(serving),
            "seed": random_seed(self.workplace.campaign.seed, "walker", walker.name, index),
        }
        self._submit("sample", payload, walker=walker.name, channel=walker.channel, index=index)

    def _submit_langevin(self, walker: _Walker, index: int, serving: Serving) -> None:
        """Submit one chunk of the Langevin walkers that `exploration` describes."""
        workplace, exploration = self.workplace, self.workplace.campaign.exploration
        ladder = exploration.temperatures
        rung = min(serving.number - 1, len(ladder) - 1)
        payload = {
            "models": list(serving.models),
            "start": self._start(walker, index)[0],
            "thresholds": self._thresholds(serving),
            "temperature": ladder[max(rung - 1, 0)],
            "temperature_end": ladder[rung],
            "steps": exploration.steps,
            "timestep_fs": exploration.timestep_fs,
            "friction_per_fs": exploration.friction_per_fs,
            "seed": random_seed(workplace.campaign.seed, "walker", walker.name, index),
        }
        self._submit("langevin", payload, walker=walker.name, channel=walker.channel, index=index)

    def _start(self, walker: _Walker, index: int) -> tuple[Path, Path | None]:
        """Return the frame file a chunk starts from, and that of the state it takes up."""
        store = self.workplace.store
        former = [chunk for chunk in store.chunks(walker=walker.name) if chunk.index < index]
        latest = max(former, key=lambda chunk: chunk.index) if former else None
        if latest is not None and latest.state == "known":
            folder = self.workplace.path(latest.summary["folder"])
            result = latest.summary["result"]
            state = result.get("state_file")
            return folder / str(result["final_file"]), folder / str(state) if state else None
        starts = self.end_states.starts(walker.channel)
        bands = [
            chunk
            for chunk in store.chunks(walker=f"{walker.channel}-band")
            if chunk.frames_path and chunk.state != "broken"
        ]
        if bands:
            path = max(bands, key=lambda chunk: chunk.index).frames_path
            starts += read_frames(self.workplace.path(path))[1:-1]
        generator = random_generator(self.workplace.campaign.seed, "start", walker.name, index)
        chosen = starts[int(generator.integers(len(starts)))]
        return self.workplace.frame_file([bare_copy(chosen)]), None

    def _submit(
        self, task: str, payload: dict[str, Any], *, walker: str, channel: str, index: int
    ) -> None:
        """Submit a chunk and remember it as running."""
        payload = {**payload, **self.workplace.head}
        request: Request = self.workplace.request(task, payload)
        self.workplace.store.add_chunk(
            request.key,
            walker=walker,
            kind="neb" if task == "band" else "md",
            channel=channel,
            index=index,
            state="running",
            generation=self._generation_of(task, index),
            temperature=_temperature(payload),
            summary={"task": task, "payload": dict(request.payload)},
        )
        self._running[request.key] = walker
        self.workplace.dispatcher.submit(request)

    def _generation_of(self, task: str, index: int) -> int:
        """Return the generation whose committee drives a chunk."""
        return index if task == "band" else index // (1 + EXTRA_CHUNKS)


def first_chunks(chunks: Iterable[Any], generation: int) -> list[Any]:
    """Return the chunks that every walker runs with a generation, without the extra ones."""
    return [chunk for chunk in chunks if chunk.index == generation * (1 + EXTRA_CHUNKS)]


def _walkers_of(campaign: Campaign) -> tuple[_Walker, ...]:
    """Return the walkers that a campaign's settings describe, channel by channel."""
    walkers = []
    for channel in campaign.channels:
        if not campaign.samplers:
            numbers = range(campaign.exploration.walkers)
            walkers += [_Walker(name=f"{channel}-{number}", channel=channel) for number in numbers]
        for place, sampler in enumerate(campaign.samplers):
            if sampler.channels and channel not in sampler.channels:
                continue
            label = f"{channel}-{_plain_name(sampler.name)}{place}"
            walkers += [
                _Walker(name=f"{label}-{number}", channel=channel, sampler=sampler)
                for number in range(sampler.walkers)
            ]
    return tuple(walkers)


def _plain_name(name: str) -> str:
    """Return the last word of a sampler's name, which may be an import path."""
    return name.rpartition(":")[2]


def _temperature(payload: Mapping[str, Any]) -> float | None:
    """Return the temperature in K that a chunk ends at, where it has one."""
    options = payload.get("options", payload)
    value = options.get("temperature_end") or options.get("temperature")
    return float(value) if isinstance(value, int | float) else None
