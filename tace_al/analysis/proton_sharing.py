"""How a proton is shared between two atoms, by classical and by quantum nuclei, with error bars.

The coordinate is d = r(donor, proton) - r(proton, acceptor), zero where the proton is shared. Two
runs at the same temperature, one with one bead and one with many, give its density and its width
sqrt(<d^2>), their difference being what zero-point motion and tunnelling do.

What each member of the committee would have given follows from the mean's trajectory to first order
in the difference D_m of its energy from the mean (cumulant expansion: Imbalzano, Zhuang, Kapil,
Rossi, Engel, Grasselli, Ceriotti, 10.1063/5.0036522),

    <A>_m = <A> - beta (<A D_m> - <A> <D_m>),   D_m the average over the beads,

which stays stable where weights exp(-beta D_m) would rest on a few frames. The spread of members,
scaled by the calibration of energies, and the sampling error of blocks make the error bar.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tace_al.analysis.targets import TargetInputs
from tace_al.analysis.time_series import mean_and_error
from tace_al.core.errors import ConfigError, SamplerError
from tace_al.core.units import BOLTZMANN
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.pimd import PimdSampler
from tace_al.engines.sampling.sampler import Chunk, Thresholds

BINS = np.linspace(-1.6, 1.6, 65)
LEAST_SAMPLES = 40
CLASSICAL_STEPS = 4
"""One bead sees less a step and costs less: it runs so many times longer."""
EQUILIBRATION = 200
"""Steps before anything is measured: a new ring polymer starts as a point."""
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
    beads, temperature, timestep_fs
        Of the quantum run; the classical one has one bead.
    steps
        Of the quantum run; the classical one has `CLASSICAL_STEPS` times as many.
    symmetric
        See `sharing_density`.
    """
    if beads < 2 or steps <= EQUILIBRATION:
        raise ConfigError(
            f"target proton_sharing: beads = {beads} and steps = {steps} leave nothing to compare; "
            f"give two beads at least and more than {EQUILIBRATION} steps"
        )
    found: dict[str, dict[str, Any]] = {}
    for channel, starts in inputs.starts.items():
        before = f"{channel}_" if len(inputs.starts) > 1 else ""
        for kind, count, length in (
            ("classical", 1, CLASSICAL_STEPS * steps),
            ("quantum", beads, steps),
        ):
            sampler = PimdSampler(
                CommitteePotential(inputs.committee, skin=0.5),
                Thresholds(low=1e6, high=1e9),
                temperature=temperature,
                beads=count,
                steps=length,
                timestep_fs=timestep_fs,
                coordinates=(coordinate,),
                observe_every=_OBSERVE_EVERY,
                equilibration=EQUILIBRATION,
                record_every=0,
                seed=inputs.seed,
            )
            chunk = sampler.run(starts[0])
            density = _density(chunk, f"{kind} run of {channel}", inputs, symmetric=symmetric)
            found[f"{before}{kind}_width"] = _told(density, kind, steps=chunk.steps)
    return found


def _density(chunk: Chunk, name: str, inputs: TargetInputs, *, symmetric: bool) -> SharingDensity:
    """Return the density of a run, if it went far enough."""
    samples = np.array(chunk.observables["samples"])
    if len(samples) < LEAST_SAMPLES:
        raise SamplerError(
            f"the {name} ended after {chunk.steps} steps ({chunk.reason}): the committee does not "
            "hold the structure together yet; let the campaign go on"
        )
    return sharing_density(
        samples[:, 0],
        np.array(chunk.observables["energy_deviations_ev"]),
        temperature=float(chunk.observables["temperature_k"]),
        energy_scale=inputs.energy_scale,
        symmetric=symmetric,
    )


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
