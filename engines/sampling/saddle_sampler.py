"""Saddle searches as a sampler: a campaign's walkers that look for ways out of where they are."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

from ase import Atoms

from tace_al.engines.sampling.bond_events import BondTracker
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.saddle_search import SearchResult, SearchSettings, search_saddle
from tace_al.engines.sampling.sampler import Chunk, Outcome, Sampler, Thresholds


@final
@dataclass(frozen=True, slots=True)
class SaddleSampler(Sampler):
    """One search a chunk, in a random direction; uncertain frames on the way come home.

    Parameters
    ----------
    potential, thresholds
        What is climbed, and which frames are worth a label.
    active
        Atoms that the first direction moves; empty for all that are free.
    fmax, max_steps, push
        As in `SearchSettings`.
    gap
        Least number of steps between two uncertain frames.
    record_every
        Keep one known frame this often, for audits.
    seed
        Of the direction.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    active: tuple[int, ...] = ()
    fmax: float = 0.05
    max_steps: int = 200
    push: float = 0.05
    gap: int = 5
    record_every: int = 20
    seed: int = 0

    def run(self, atoms: Atoms) -> Chunk:
        """Return one search from `atoms`; the next starts from there again."""
        settings = SearchSettings(
            fmax=self.fmax, max_steps=self.max_steps, push=self.push, seed=self.seed
        )
        found = search_saddle(
            self.potential,
            atoms,
            settings=settings,
            active=self.active or None,
            thresholds=self.thresholds,
        )
        frames = self._kept(atoms, found)
        uncertain = any(frame.info["verdict"] == "uncertain" for frame in frames)
        known: Outcome = "uncertain" if uncertain else "known"
        return Chunk(
            frames=frames,
            outcome="broken" if found.outcome == "broken" else known,
            reason=found.reason,
            steps=found.steps,
            final=atoms.copy(),
            max_uncertainty=max(frame.info["uncertainty"] for frame in found.frames),
            observables=observed(found),
        )

    def _kept(self, start: Atoms, found: SearchResult) -> tuple[Atoms, ...]:
        """Return the uncertain frames apart from each other, and some known ones."""
        tracker, frames = BondTracker(start), []
        last = -self.gap
        for step, frame in enumerate(found.frames):
            verdict = self.thresholds.outcome(frame.info["uncertainty"])
            due = verdict == "uncertain" and step - last >= self.gap
            if due:
                last = step
            if due or (verdict == "known" and step and step % self.record_every == 0):
                frame.info |= {"verdict": verdict, "time_fs": 0.0, "temperature": 0.0}
                tracker.look(frame).store(frame)
                frames.append(frame)
        return tuple(frames)


def observed(found: SearchResult) -> Mapping[str, Any]:
    """Return what a search found, as plain data."""
    return {
        "converged": found.converged,
        "rise_ev": found.saddle.info["energy"] - found.frames[0].info["energy"],
        "curvature_ev_per_a2": found.mode.curvature,
        "num_products": found.mode.num_products,
    }
