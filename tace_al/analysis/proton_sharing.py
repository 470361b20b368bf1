"""How a proton is shared between two atoms, by classical and by quantum nuclei, with error bars.

The coordinate is d = r(donor, proton) - r(proton, acceptor), zero where the proton is shared.
Classical walkers (Langevin) and a ring polymer (i-PI) at the same temperature give its density and
its width sqrt(<d^2>), their difference being what zero-point motion and tunnelling do.

What each member of the committee would have given follows from the mean's trajectory to first order
in the difference D_m of its energy from the mean (cumulant expansion: Imbalzano, Zhuang, Kapil,
Rossi, Engel, Grasselli, Ceriotti, 10.1063/5.0036522),

    <A>_m = <A> - beta (<A D_m> - <A> <D_m>),   D_m the average over the beads,

which stays stable where weights exp(-beta D_m) would rest on a few frames. The spread of members,
scaled by the calibration of energies, and the sampling error of blocks make the error bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from ase import Atoms

from tace_al.analysis.targets import TargetInputs
from tace_al.analysis.time_series import mean_and_error
from tace_al.core.errors import ConfigError, SamplerError
from tace_al.core.random_generators import random_seed
from tace_al.core.units import BOLTZMANN
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.pimd import PimdSampler
from tace_al.engines.sampling.pimd_coordinates import check_coordinates, coordinate_values
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.engines.sampling.walkers import UncertaintyAbove, Unphysical, Walker
from tace_al.model.prediction import Prediction

BINS = np.linspace(-1.6, 1.6, 65)
LEAST_SAMPLES = 40
CLASSICAL_WALKERS = 8
"""Classical nuclei, in one call of the potential a step."""
EQUILIBRATION = 200
"""Steps before anything is measured: a new ring polymer starts as a point."""
UNKNOWN_FORCES = 3.0
"""eV/A: spread of a force over the members at which a classical walker ends: it is off all that
they know. Not calibrated, since a scale read off few labels can be many times too large."""
_OBSERVE_EVERY = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingDensity:
    """The distribution of the sharing coordinate.

    Parameters
    ----------
    centres, density
        (bins,) of the bins in A, and the mean potential's density in 1/A.
    member_densities
        (members, bins) of each member, as far as first order goes, never negative.
    width
        sqrt(<d^2>) in A.
    member_widths
        (members,) in A.
    sampling_error
        Standard error of the width in A.
    """

    centres: np.ndarray
    density: np.ndarray
    member_densities: np.ndarray
    width: float
    member_widths: np.ndarray
    sampling_error: float

    @property
    def error_bar(self) -> float:
        """Spread of the members and sampling error together, in A."""
        members = len(self.member_widths)
        spread = float(np.std(self.member_widths, ddof=1)) if members > 1 else 0.0
        return float(np.hypot(spread, self.sampling_error))


def sharing_density(
    samples: np.ndarray,
    deviations: np.ndarray,
    *,
    temperature: float,
    energy_scale: float = 1.0,
    symmetric: bool = True,
) -> SharingDensity:
    """Return the density of a coordinate and what each member would make of it.

    Parameters
    ----------
    samples
        (times, beads) in A.
    deviations
        (times, members) energy of each member less the mean, averaged over beads, in eV.
    temperature
        K.
    energy_scale
        Calibration: the members' deviations count so many times.
    symmetric
        Donor and acceptor are alike: d and -d are the same.
    """
    if symmetric:
        samples = np.concatenate([samples, -samples], axis=1)
    shifts = deviations - deviations.mean(axis=0)
    response = -energy_scale / (BOLTZMANN * temperature) * shifts / len(samples)  # (times, members)
    widths = np.diff(BINS)
    counts = np.array([np.histogram(row, BINS)[0] for row in samples]) / samples.shape[1] / widths
    density = counts.mean(axis=0)
    squares = (samples**2).mean(axis=1)
    mean_square, error = mean_and_error(squares)
    member_squares = mean_square + response.T @ squares
    width = float(np.sqrt(mean_square))
    return SharingDensity(
        centres=0.5 * (BINS[1:] + BINS[:-1]),
        density=density,
        member_densities=np.maximum(density + response.T @ counts, 0.0),
        width=width,
        member_widths=np.sqrt(np.maximum(member_squares, 0.0)),
        sampling_error=error / (2.0 * width),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingRun:
    """How a run samples the coordinate.

    Parameters
    ----------
    coordinate
        Indices of donor, proton and acceptor.
    temperature, steps, timestep_fs
        In K and fs; the first `EQUILIBRATION` steps are not measured.
    seed
        Of momenta and thermostats.
    """

    coordinate: tuple[int, int, int]
    temperature: float
    steps: int
    timestep_fs: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SharingSamples:
    """What a run has seen of the coordinate.

    Parameters
    ----------
    values
        (times, beads) in A.
    deviations
        (times, members) energy of each member less the mean, averaged over beads, in eV.
    steps, reason
        How far it went, and why no further.
    """

    values: np.ndarray
    deviations: np.ndarray
    steps: int
    reason: str


def classical_samples(potential: Potential, atoms: Atoms, run: SharingRun) -> SharingSamples:
    """Return the coordinate along `CLASSICAL_WALKERS` Langevin runs."""
    check_coordinates([run.coordinate], num_atoms=len(atoms))
    watched = _Watched(potential, run.coordinate)
    seeds = [random_seed(run.seed, index) for index in range(CLASSICAL_WALKERS)]
    stops = (UncertaintyAbove(limit=UNKNOWN_FORCES), Unphysical(every=10))
    walkers = [
        Walker(atoms, steps=run.steps, temperature=run.temperature, seed=seed, stops=stops)
        for seed in seeds
    ]
    walks = BatchedDynamics(watched, walkers, timestep_fs=run.timestep_fs).run()
    first = min(walks, key=lambda walk: walk.steps)
    return SharingSamples(
        values=np.array(watched.values).reshape(-1, 1),
        deviations=np.array(watched.deviations),
        steps=first.steps,
        reason=first.reason,
    )


@final
@dataclass(slots=True)
class _Watched(Potential):
    """A potential that notes the coordinate and the members' energies now and then."""

    potential: Potential
    coordinate: tuple[int, int, int]
    calls: int = 0
    values: list[float] = field(default_factory=list)
    deviations: list[np.ndarray] = field(default_factory=list)

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Ask the potential, take notes after equilibration."""
        predictions = self.potential.predict(frames)
        if self.calls >= EQUILIBRATION and self.calls % _OBSERVE_EVERY == 0:
            self.values += coordinate_values(frames, [self.coordinate])[0].tolist()
            self.deviations += [one.member_energies - one.energy for one in predictions]
        self.calls += 1
        return predictions


def quantum_samples(
    potential: Potential, atoms: Atoms, run: SharingRun, *, beads: int
) -> SharingSamples:
    """Return the coordinate on every bead of a ring polymer that i-PI moves."""
    sampler = PimdSampler(
        potential,
        Thresholds(low=1e6, high=1e9),
        temperature=run.temperature,
        beads=beads,
        steps=run.steps,
        timestep_fs=run.timestep_fs,
        coordinates=(run.coordinate,),
        observe_every=_OBSERVE_EVERY,
        equilibration=EQUILIBRATION,
        record_every=0,
        seed=run.seed,
    )
    chunk = sampler.run(atoms)
    return SharingSamples(
        values=np.array(chunk.observables["samples"]).reshape(-1, 1, beads)[:, 0],
        deviations=np.array(chunk.observables["energy_deviations_ev"]),
        steps=chunk.steps,
        reason=chunk.reason,
    )


def proton_sharing(
    inputs: TargetInputs,
    *,
    coordinate: tuple[int, int, int],
    beads: int = 16,
    temperature: float = 300.0,
    steps: int = 2000,
    timestep_fs: float = 0.5,
    symmetric: bool = True,
) -> dict[str, dict[str, Any]]:
    """Return the classical and the quantum width of the sharing coordinate, with their densities.

    Parameters
    ----------
    coordinate
        Indices of donor, proton and acceptor.
    beads
        Of the quantum run; beside it go `CLASSICAL_WALKERS` classical ones.
    temperature, steps, timestep_fs
        Of all runs.
    symmetric
        See `sharing_density`.
    """
    if beads < 2 or steps <= EQUILIBRATION:
        raise ConfigError(
            f"target proton_sharing: beads = {beads} and steps = {steps} leave nothing to compare; "
            f"give two beads at least and more than {EQUILIBRATION} steps"
        )
    run = SharingRun(
        coordinate=coordinate,
        temperature=temperature,
        steps=steps,
        timestep_fs=timestep_fs,
        seed=inputs.seed,
    )
    found: dict[str, dict[str, Any]] = {}
    for channel, starts in inputs.starts.items():
        before = f"{channel}_" if len(inputs.starts) > 1 else ""
        potential, atoms = CommitteePotential(inputs.committee, skin=0.5), starts[0]
        runs = {
            "classical": classical_samples(potential, atoms, run),
            "quantum": quantum_samples(potential, atoms, run, beads=beads),
        }
        for kind, samples in runs.items():
            if len(samples.deviations) < LEAST_SAMPLES:
                raise SamplerError(
                    f"the {kind} run of {channel} ended after {samples.steps} steps "
                    f"({samples.reason}): the committee does not hold the structure together yet; "
                    "let the campaign go on"
                )
            density = sharing_density(
                samples.values,
                samples.deviations,
                temperature=temperature,
                energy_scale=inputs.energy_scale,
                symmetric=symmetric,
            )
            found[f"{before}{kind}_width"] = _told(density, kind, steps=samples.steps)
    return found


def _told(density: SharingDensity, kind: str, *, steps: int) -> dict[str, Any]:
    """Return a density as plain data; the report draws `curve`."""
    return {
        "value": density.width,
        "error_bar": density.error_bar,
        "unit": "Å",
        "members": density.member_widths.tolist(),
        "sampling_error": density.sampling_error,
        "steps": steps,
        "curve": {
            "label": kind,
            "x": density.centres.tolist(),
            "y": density.density.tolist(),
            "members": density.member_densities.tolist(),
            "x_label": "proton-sharing coordinate (Å)",
            "y_label": "density (1/Å)",
        },
    }
