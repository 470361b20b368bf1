"""What `tace-al hessian` does and writes: hessian.json, modes, a trajectory and a figure.

`hessian.json` holds frequencies in 1/cm (imaginary ones negative) with the motions of the whole
projected out, and beside them, unprojected, all 3N as `ase.vibrations` gives them, whose zero-point
energy counts spurious rotations too. Energies are in eV, entropies in eV/K; spreads are standard
deviations among the members of a committee.
"""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tace_al.core.errors import SamplerError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from tace_al.analysis.normal_modes import NormalModes
    from tace_al.cli.potential_options import ChosenPotential

RELAXED = 0.02
"""eV/A: a structure with larger forces is no stationary point."""
MAX_STEPS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class HessianSettings:
    """What the options of the command say.

    Parameters
    ----------
    delta
        Angstrom of finite differences; None for 0.01, or models' analytic Hessian.
    relax
        Relax positions first.
    fmax
        eV/Angstrom at which relaxation ends.
    temperature, pressure
        K and Pa of the free energies.
    symmetry_number
        None to find it.
    """

    delta: float | None
    relax: bool
    fmax: float
    temperature: float
    pressure: float
    symmetry_number: int | None


def calculate_modes(
    folder: Path,
    atoms: "Atoms",
    chosen: "ChosenPotential",
    settings: HessianSettings,
    *,
    structure: Path,
) -> None:
    """Relax, differentiate and write; report on the console."""
    import numpy as np

    from tace_al.analysis.normal_modes import (
        DELTA,
        analytic_hessian,
        hessian_by_differences,
        normal_modes,
    )
    from tace_al.cli.calculation_files import write_summary
    from tace_al.data.frames import fixed_mask

    steps = 0
    if settings.relax:
        atoms, steps = _relaxed(atoms, chosen, settings.fmax)
    prediction = chosen.potential.predict([atoms])[0]
    free = ~fixed_mask(atoms)
    max_force = float(np.linalg.norm(prediction.forces[free], axis=1).max(initial=0.0))
    committee = chosen.committee if settings.delta is None else None
    delta = settings.delta or DELTA
    if committee is not None:
        hessians = analytic_hessian(committee, atoms)
    else:
        hessians = hessian_by_differences(chosen.potential, atoms, delta=delta)
    modes = normal_modes(atoms, hessians)
    results = {
        **modes_summary(modes),
        "stationary": max_force < RELAXED,
        "max_force_ev_a": max_force,
        "energy_ev": prediction.energy,
        "energy_spread_ev": prediction.energy_spread,
        "thermochemistry": thermo_summary(atoms, modes, settings, energy=prediction.energy),
        "moving_atoms": modes.moving,
        "fixed_atoms": np.flatnonzero(~free),
        "source": "differences" if committee is None else "analytic",
        "delta_a": delta if committee is None else None,
        "relaxation_steps": steps,
        "num_members": len(hessians),
        "warning": _warning(modes, max_force),
    }
    _write_files(folder, atoms, modes, hessians)
    inputs = {"structure": structure, "settings": asdict(settings), **chosen.description}
    _show(folder, write_summary(folder / "hessian.json", inputs=inputs, results=results))


def _relaxed(atoms: "Atoms", chosen: "ChosenPotential", fmax: float) -> "tuple[Atoms, int]":
    """Return the structure at its minimum and the steps it took."""
    from tace_al.engines.sampling.relax import relax

    found = relax(chosen.potential, atoms, fmax=fmax, max_steps=MAX_STEPS)
    if found.fmax > max(RELAXED, fmax):
        raise SamplerError(
            f"the structure does not relax: after {found.steps} steps its largest force is "
            f"{found.fmax:.2g} eV/A; start nearer to the minimum, or pass --no-relax for a "
            "structure that is stationary already"
        )
    final = atoms.copy()
    final.positions = found.final.positions
    return final, found.steps


def modes_summary(modes: "NormalModes") -> dict[str, Any]:
    """Return frequencies, zero-point energies and what the structure is."""
    from ase import units

    def zero_point(frequencies: "np.ndarray") -> Any:
        return 0.5 * units.invcm * frequencies.clip(min=0.0).sum(axis=-1)

    members = zero_point(modes.frequencies.members)
    return {
        "frequencies_cm1": modes.frequencies.value,
        "frequencies_spread_cm1": modes.frequencies.spread,
        "zero_point_energy_ev": float(zero_point(modes.frequencies.value)),
        "zero_point_energy_spread_ev": float(members.std()),
        "num_imaginary": modes.num_imaginary,
        "imaginary_frequencies_cm1": modes.frequencies.value[: modes.num_imaginary],
        "stationary_point": modes.point,
        "num_projected": modes.num_projected,
        "unprojected_frequencies_cm1": modes.unprojected.value,
        "unprojected_zero_point_energy_ev": float(zero_point(modes.unprojected.value)),
    }


def thermo_summary(
    atoms: "Atoms", modes: "NormalModes", settings: HessianSettings, *, energy: float
) -> dict[str, Any]:
    """Return harmonic free energies, and the ideal gas of a free molecule."""
    import numpy as np

    from tace_al.analysis.thermochemistry import harmonic, ideal_gas, rotational_symmetry_number
    from tace_al.data.frames import spin_multiplicity

    kelvin = settings.temperature
    found = harmonic(modes.frequencies.value, kelvin)
    members = [harmonic(member, kelvin).free_energy for member in modes.frequencies.members]
    summary: dict[str, Any] = {
        "temperature_k": kelvin,
        "harmonic": {
            "internal_energy_ev": found.internal_energy,
            "entropy_ev_k": found.entropy,
            "free_energy_ev": found.free_energy,
            "free_energy_spread_ev": float(np.std(members)),
            "total_free_energy_ev": energy + found.free_energy,
        },
        "ideal_gas": None,
    }
    if atoms.pbc.any() or len(modes.moving) < len(atoms) or not (kelvin and settings.pressure):
        return summary
    sigma = settings.symmetry_number or rotational_symmetry_number(atoms)
    gas = ideal_gas(
        atoms,
        modes.frequencies.value,
        temperature=kelvin,
        pressure=settings.pressure,
        symmetry_number=sigma,
        multiplicity=spin_multiplicity(atoms),
    )
    summary["ideal_gas"] = {
        "pressure_pa": settings.pressure,
        "symmetry_number": sigma,
        "linear": gas.linear,
        "enthalpy_ev": gas.enthalpy,
        "entropy_ev_k": gas.entropy,
        "gibbs_energy_ev": gas.gibbs_energy,
        "total_gibbs_energy_ev": energy + gas.gibbs_energy,
    }
    return summary


def mode_trajectory(
    atoms: "Atoms", direction: "np.ndarray", *, amplitude: float = 0.5, num_frames: int = 24
) -> "list[Atoms]":
    """Return one period of a mode; `amplitude` Angstrom is the length of the displacement."""
    import numpy as np

    frames = []
    for phase in np.linspace(0.0, 2.0 * np.pi, num_frames, endpoint=False):
        frame = atoms.copy()
        frame.positions += amplitude * np.sin(phase) * direction
        frames.append(frame)
    return frames


def _write_files(
    folder: Path, atoms: "Atoms", modes: "NormalModes", hessians: "np.ndarray"
) -> None:
    """Write the structure, its modes, the trajectory of the lowest, Hessians and the figure."""
    import numpy as np

    from tace_al.core.atomic_write import write_bytes
    from tace_al.data.extxyz import write_structures
    from tace_al.report.vibration_figure import frequency_figure

    write_structures(folder / "structure.xyz", [atoms])
    frames = []
    for number, direction in enumerate(modes.displacements):
        frame = atoms.copy()
        frame.set_array("mode", direction)
        frame.info["frequency_cm1"] = float(modes.frequencies.value[number])
        frames.append(frame)
    if frames:
        write_structures(folder / "modes.xyz", frames)
        write_structures(folder / "lowest_mode.xyz", mode_trajectory(atoms, modes.displacements[0]))
    stream = io.BytesIO()
    np.savez_compressed(stream, member_hessians=hessians, moving=modes.moving)
    write_bytes(folder / "hessian.npz", stream.getvalue())
    frequency_figure(modes, folder / "frequencies.png", title=atoms.get_chemical_formula())


def _warning(modes: "NormalModes", max_force: float) -> str | None:
    """Return what to be careful about, None when nothing."""
    if max_force >= RELAXED:
        return (
            f"the largest force is {max_force:.3f} eV/A: this is no stationary point, and its "
            "frequencies mean little; relax it, or converge the saddle point"
        )
    if modes.num_imaginary > 1:
        return (
            f"{modes.num_imaginary} imaginary modes: neither a minimum nor a transition state; "
            "follow lowest_mode.xyz downhill"
        )
    return None


def _show(folder: Path, summary: dict[str, Any]) -> None:
    """Say the result in a few lines."""
    from rich.console import Console

    spread = summary["zero_point_energy_spread_ev"]
    bar = f" ± {spread:.4f}" if summary["num_members"] > 1 else ""
    shown = " ".join(f"{value:.1f}" for value in summary["frequencies_cm1"])
    thermo = summary["thermochemistry"]
    kelvin = thermo["temperature_k"]
    lines = [
        f"{summary['stationary_point']}, imaginary modes: {summary['num_imaginary']}",
        f"frequencies {shown} 1/cm",
        f"zero-point energy {summary['zero_point_energy_ev']:.4f}{bar} eV",
        f"harmonic free energy {thermo['harmonic']['free_energy_ev']:.4f} eV at {kelvin:g} K",
    ]
    if thermo["ideal_gas"] is not None:
        gas = thermo["ideal_gas"]
        lines.append(
            f"ideal gas: G - E = {gas['gibbs_energy_ev']:.4f} eV at {gas['pressure_pa']:g} Pa, "
            f"symmetry number {gas['symmetry_number']}"
        )
    if summary["warning"]:
        lines.append(f"[bold]warning:[/bold] {summary['warning']}")
    console = Console()
    for line in [*lines, f"{folder}: hessian.json, modes.xyz, lowest_mode.xyz, frequencies.png"]:
        console.print(line, highlight=False, soft_wrap=True)
