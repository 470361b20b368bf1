"""Path-integral dynamics on a committee through i-PI: explore what quantum nuclei reach.

A ring polymer of P beads samples exp(-beta H) of quantum nuclei at temperature T as P coupled
classical copies at P T (Parrinello, Rahman, 10.1063/1.446740). i-PI moves the beads
(`ipi_input.py` lists the ensembles), this process is its driver: one call of the potential a step
for all beads, in which uncertain ones are noticed.

All beads of a step look alike, so at most `beads_per_step` of them become candidates: the most
uncertain first, then whichever is furthest from those taken (farthest-point search on the largest
displacement of an atom), as long as that is more than `bead_distance`.

Who may die: the server may, and another goes on from its newest whole checkpoint; this process may,
and the server ends in the same instant (`ipi_server.py`), for whoever ordered the chunk to order it
again. There is no third process.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from ase import Atoms

from tace_al.core.errors import ConfigError, LabelFailed, SamplerError, StructureError
from tace_al.core.random_generators import random_generator, random_seed
from tace_al.engines.sampling.ipi_address import unix_address
from tace_al.engines.sampling.ipi_driver import Driver, DriverSettings, Served
from tace_al.engines.sampling.ipi_input import (
    PROPERTIES,
    Ensemble,
    PimdSettings,
    StartState,
    Thermostat,
    continued_input,
    num_beads_of,
    own_input,
    pimd_input,
    timestep_fs_of,
)
from tace_al.engines.sampling.ipi_server import OUTPUT_FILE, IpiServer
from tace_al.engines.sampling.ipi_state import BeadState
from tace_al.engines.sampling.physical_checks import broken_reason
from tace_al.engines.sampling.pimd_coordinates import (
    Coordinate,
    check_coordinates,
    coordinate_values,
)
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Chunk, Outcome, Sampler, Thresholds, predicted_frame
from tace_al.engines.sampling.walkers import moving_copy
from tace_al.model.prediction import Prediction

MAX_RESTARTS = 3
CALM_FORCE = 25.0
"""eV/A. Overlaps and fragments are looked for in one bead a step, in turn, and in every bead with a
larger force: beads of one polymer are close, and the look costs as much as a small network."""
START_S, SILENT_S = 60.0, 300.0
"""How long a server may take to listen, and to ask for the next step."""


@final
@dataclass(frozen=True, slots=True)
class PimdSampler(Sampler):
    """One chunk of path-integral (or, with one bead, classical) dynamics.

    Parameters
    ----------
    potential, thresholds
        What drives the beads, and which of them are worth a label.
    temperature, beads, steps, timestep_fs, ensemble
        See `PimdSettings`.
    thermostat, thermostat_fs, pressure_gpa, fix_centre
        See there too.
    input_file
        An i-PI input of the user's own: its ensemble, thermostats, time step and number of beads
        hold instead of those above; `temperature` still draws the first momenta.
    coordinates
        What is measured on every bead each `observe_every` steps: [i, j] a distance, [i, j, k] the
        difference of the distances i-j and j-k, both in A.
    equilibration
        Steps of a new ring polymer before it is measured: it starts as a point.
    record_every
        Keep one bead of a known step this often, for audits; 0 keeps none.
    gap, max_uncertain
        Least number of steps between two that give uncertain frames; enough of those end the chunk.
    beads_per_step, bead_distance
        How many beads of one step may become frames, and how far apart, in A.
    max_separation
        A fragment further than this from the rest, in A, breaks the frame.
    folder
        Where i-PI's files are kept; a temporary folder by default.
    socket
        Where i-PI listens, /tmp/ipi_NAME or a path, so that others can look; private by default.
    seed
        Of momenta and thermostats.
    """

    potential: Potential
    thresholds: Thresholds
    _: KW_ONLY
    temperature: float = 300.0
    beads: int = 16
    steps: int = 200
    timestep_fs: float = 0.5
    ensemble: Ensemble = "nvt"
    thermostat: Thermostat = "pile_l"
    thermostat_fs: float = 50.0
    pressure_gpa: float = 0.0
    fix_centre: bool = True
    input_file: str | None = None
    coordinates: tuple[Coordinate, ...] = ()
    observe_every: int = 5
    equilibration: int = 100
    record_every: int = 50
    gap: int = 10
    max_uncertain: int = 10
    beads_per_step: int = 2
    bead_distance: float = 0.1
    max_separation: float = 8.0
    folder: str | None = None
    socket: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings out of range, and an input that cannot be used."""
        for name in ("gap", "max_uncertain", "beads_per_step", "observe_every", "max_separation"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"`{name}` is {getattr(self, name)}; give a positive number")
        self.settings()

    def settings(self) -> PimdSettings:
        """Return the settings of the run, with what the user's input decides."""
        beads, timestep_fs = self.beads, self.timestep_fs
        if self.input_file is not None:
            text = self._own_text()
            beads, timestep_fs = num_beads_of(text), timestep_fs_of(text)
        return PimdSettings(
            temperature=self.temperature,
            beads=beads,
            steps=self.steps,
            timestep_fs=timestep_fs,
            ensemble=self.ensemble,
            thermostat=self.thermostat,
            thermostat_fs=self.thermostat_fs,
            pressure_gpa=self.pressure_gpa,
            fix_centre=self.fix_centre,
        )

    def run(self, atoms: Atoms) -> Chunk:
        """Return one chunk that starts with all beads in one place."""
        beads = self.settings().beads
        positions = np.repeat(atoms.positions[None], beads, axis=0)
        return self._run(atoms, positions, None, equilibration=self.equilibration)

    def go_on(self, atoms: Atoms, state: Mapping[str, np.ndarray]) -> Chunk:
        """Return the chunk that takes up a ring polymer where it was."""
        positions = state.get("bead_positions")
        if positions is None or positions.shape != (self.settings().beads, len(atoms), 3):
            return self.run(atoms)
        atoms = moving_copy(atoms)
        if atoms.pbc.any():
            atoms.set_cell(state["cell"])
        return self._run(atoms, positions, state["bead_momenta"], equilibration=0)

    def _run(
        self, atoms: Atoms, positions: np.ndarray, momenta: np.ndarray | None, *, equilibration: int
    ) -> Chunk:
        settings = self.settings()
        check_coordinates(self.coordinates, num_atoms=len(atoms))
        start = StartState(
            atoms=atoms,
            positions=positions,
            momenta=momenta,
            seed=random_seed(self.seed, "pimd"),
        )
        gathered = _Gathered(
            sampler=self,
            settings=settings,
            rng=random_generator(self.seed, "audit"),
            equilibration=equilibration,
        )
        with self._workplace() as name:
            folder = Path(name).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            server = IpiServer(
                folder,
                address=None if self.socket is None else unix_address(self.socket),
                temporary=self.folder is None,
            )
            try:
                server.start(self._input(settings, start, server.address.path))
                reason = self._supervise(server, atoms, gathered)
                server.stop()
                state = server.newest_state()
                averages = _averages(folder / OUTPUT_FILE, skip=equilibration)
            finally:
                server.close()
        return gathered.chunk(atoms, reason, state=state, averages=averages)

    def _workplace(self) -> AbstractContextManager[str]:
        """Return the folder of i-PI's files, which goes at the end unless one was named."""
        if self.folder is not None:
            return nullcontext(self.folder)
        return tempfile.TemporaryDirectory(prefix="tace-al-pimd-")

    def _supervise(self, server: IpiServer, atoms: Atoms, gathered: "_Gathered") -> str:
        """Drive servers until the steps are done or a reason to stop is found; return that."""
        for restarts in range(MAX_RESTARTS + 1):
            server.wait_until_listening(START_S)
            driver = Driver(
                self.potential,
                atoms,
                server.address,
                settings=DriverSettings(
                    connections=1, max_connections=1, wait_s=START_S, idle_s=SILENT_S, extras="none"
                ),
                observe=gathered.take,
            )
            try:
                served = driver.serve()
            except (StructureError, LabelFailed) as error:
                gathered.broken = True
                return str(error).partition(";")[0]
            if served.ended == "stopped":
                return served.reason
            if served.ended == "exit":
                return self._ending(server)
            if restarts < MAX_RESTARTS:
                self._restart(server, gathered, served)
        raise SamplerError(
            f"i-PI died {MAX_RESTARTS + 1} times ({server.last_words()}); look for what kills it "
            "(memory, time limits), then run the same again"
        )

    def _ending(self, server: IpiServer) -> str:
        """Say how a server ended that ended by itself."""
        server.wait()
        state = server.newest_state()
        done = 0 if state is None else state.step
        if done >= self.steps:
            return "all steps done"
        return f"i-PI ended by itself after {done} of {self.steps} steps"

    def _restart(self, server: IpiServer, gathered: "_Gathered", served: Served) -> None:
        """Go on from the newest whole state of a dead or silent server."""
        server.stop()
        state = server.newest_state()
        if state is None:
            raise SamplerError(
                f"i-PI ended before its first checkpoint ({served.reason}; "
                f"{server.last_words()}); look for what killed it, then run the same again"
            )
        gathered.go_back(state.step)
        server.start(continued_input(state.text, socket=server.address.path), fresh=False)

    def _input(self, settings: PimdSettings, start: StartState, socket: Path) -> str:
        """Return the server's input."""
        if self.input_file is None:
            return pimd_input(settings, start, socket=socket)
        return own_input(
            self._own_text(),
            start,
            steps=self.steps,
            checkpoint_every=settings.checkpoint_every,
            socket=socket,
            temperature=self.temperature,
        )

    def _own_text(self) -> str:
        """Read the user's input."""
        assert self.input_file is not None
        try:
            return Path(self.input_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the i-PI input {self.input_file} cannot be read ({error}); give its path"
            ) from error


@final
@dataclass(kw_only=True, slots=True)
class _Gathered:
    """What a chunk has gathered so far; `take` looks at every step."""

    sampler: PimdSampler
    settings: PimdSettings
    rng: np.random.Generator
    equilibration: int
    frames: list[Atoms] = field(default_factory=list)
    step: int = -1
    last_uncertain: int | None = None
    num_uncertain: int = 0
    max_uncertainty: float = 0.0
    broken: bool = False
    samples: list[list[list[float]]] = field(default_factory=list)
    deviations: list[list[float]] = field(default_factory=list)
    sample_steps: list[int] = field(default_factory=list)

    def take(self, frames: Sequence[Atoms], predictions: Sequence[Prediction]) -> str | None:
        """Judge the beads of a step, keep those worth it; return why to stop, or None."""
        self.step += 1
        sampler = self.sampler
        bars = np.array([sampler.thresholds.uncertainty(one) for one in predictions])
        self.max_uncertainty = float(np.fmax(self.max_uncertainty, bars.max()))
        for bead, (prediction, bar) in enumerate(zip(predictions, bars, strict=True)):
            reason = None
            if sampler.thresholds.outcome(bar) == "broken":
                reason = f"the force error bar of {bar:.2f} eV/A is above the reject level"
            elif bead == self.step % len(frames) or not _is_calm(prediction):
                reason = broken_reason(
                    frames[bead],
                    prediction,
                    temperature=sampler.temperature,
                    max_separation=sampler.max_separation,
                )
            if reason is not None:
                self.broken = True
                return f"{reason} in a bead at step {self.step}"
        self._measure(frames, predictions)
        uncertain = [sampler.thresholds.outcome(bar) == "uncertain" for bar in bars]
        if any(uncertain):
            return self._take_uncertain(frames, predictions, np.where(uncertain, bars, -1.0))
        every = sampler.record_every
        if every > 0 and self.step > 0 and self.step % every == 0:
            bead = int(self.rng.integers(len(frames)))
            self.frames.append(self._frame(frames[bead], predictions[bead], bead, "known"))
        return None

    def go_back(self, step: int) -> None:
        """Forget what was measured from a step on that a new server goes on from."""
        keep = sum(one < step for one in self.sample_steps)
        for measured in (self.samples, self.deviations, self.sample_steps):
            del measured[keep:]
        self.step = step - 1

    def chunk(
        self, atoms: Atoms, reason: str, *, state: BeadState | None, averages: dict[str, float]
    ) -> Chunk:
        """Return the finished chunk."""
        outcome: Outcome = "uncertain" if self.num_uncertain else "known"
        last = moving_copy(atoms)
        kept: dict[str, np.ndarray] = {}
        if state is not None:
            last.set_positions(state.positions.mean(axis=0), apply_constraint=False)
            last.set_momenta(state.momenta.mean(axis=0), apply_constraint=False)
            if last.pbc.any():
                last.set_cell(state.cell)
            kept = {
                "bead_positions": state.positions,
                "bead_momenta": state.momenta,
                "cell": state.cell,
            }
        return Chunk(
            frames=tuple(self.frames),
            outcome="broken" if self.broken else outcome,
            reason=reason,
            steps=0 if state is None else state.step,
            final=last,
            max_uncertainty=self.max_uncertainty,
            observables={
                "beads": self.settings.beads,
                "temperature_k": self.sampler.temperature,
                "coordinates": [list(one) for one in self.sampler.coordinates],
                "samples": self.samples,
                "energy_deviations_ev": self.deviations,
                **averages,
            },
            state=kept,
        )

    def _measure(self, frames: Sequence[Atoms], predictions: Sequence[Prediction]) -> None:
        """Note the coordinates of all beads, and how the members' energies differ from the mean."""
        if self.step % self.sampler.observe_every or self.step < self.equilibration:
            return
        if not self.sampler.coordinates:
            return
        values = coordinate_values(frames, self.sampler.coordinates)
        self.samples.append(np.round(values, 4).tolist())
        energies = np.mean([one.member_energies for one in predictions], axis=0)
        self.deviations.append(np.round(energies - energies.mean(), 7).tolist())
        self.sample_steps.append(self.step)

    def _take_uncertain(
        self, frames: Sequence[Atoms], predictions: Sequence[Prediction], bars: np.ndarray
    ) -> str | None:
        """Keep diverse uncertain beads unless some were kept a moment ago."""
        sampler = self.sampler
        if self.last_uncertain is not None and self.step - self.last_uncertain < sampler.gap:
            return None
        positions = np.array([atoms.positions for atoms in frames])
        left = sampler.max_uncertain - self.num_uncertain
        chosen = diverse_beads(
            positions,
            bars,
            count=min(sampler.beads_per_step, left),
            distance=sampler.bead_distance,
        )
        for bead in chosen:
            self.frames.append(self._frame(frames[bead], predictions[bead], bead, "uncertain"))
        self.num_uncertain += len(chosen)
        self.last_uncertain = self.step
        if self.num_uncertain >= sampler.max_uncertain:
            return f"{self.num_uncertain} uncertain frames gathered"
        return None

    def _frame(self, atoms: Atoms, prediction: Prediction, bead: int, verdict: Outcome) -> Atoms:
        """Return a bead as a frame to keep."""
        frame = predicted_frame(atoms, prediction, self.sampler.thresholds)
        frame.info["step"] = self.step
        frame.info["time_fs"] = self.step * self.settings.timestep_fs
        frame.info["temperature"] = self.sampler.temperature
        frame.info["bead"] = bead
        frame.info["verdict"] = verdict
        return frame


def _is_calm(prediction: Prediction) -> bool:
    """Whether no force is so large that its bead has to be looked at; NaN is not calm."""
    return bool((np.abs(prediction.forces) < CALM_FORCE).all())


def diverse_beads(
    positions: np.ndarray, scores: np.ndarray, *, count: int, distance: float
) -> list[int]:
    """Return at most `count` beads, the highest score first, each far from those before it.

    Parameters
    ----------
    positions
        (beads, atoms, 3) in A.
    scores
        (beads,); negative ones are never chosen.
    distance
        Least largest displacement of an atom between two chosen beads, in A.
    """
    chosen = [int(scores.argmax())]
    gaps = np.full(len(scores), np.inf)
    while len(chosen) < count:
        moved = np.linalg.norm(positions - positions[chosen[-1]], axis=2).max(axis=1)
        gaps = np.minimum(gaps, moved)
        candidates = np.where(scores >= 0.0, gaps, -1.0)
        best = int(candidates.argmax())
        if candidates[best] < distance:
            break
        chosen.append(best)
    return chosen


def _averages(path: Path, *, skip: int) -> dict[str, float]:
    """Return the means of i-PI's properties, without those of the first `skip` steps."""
    names = [name.partition("{")[0] for name in PROPERTIES]
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError):  # a user's own input writes what it likes
        return {}
    rows = rows[rows[:, 0] > skip] if rows.shape[1] == len(names) else rows[:0]
    if len(rows) == 0:
        return {}
    means = dict(zip(names, rows.mean(axis=0), strict=True))
    return {
        f"mean_{name}_{'k' if name == 'temperature' else 'ev'}": float(means[name])
        for name in names[2:]
    }
