"""What `tace-al phonons` does and writes: phonons.json, figures, the unit cell and phonopy's file.

`phonons.json` holds frequencies in THz (imaginary ones negative), each with the spread of the
committee (one standard deviation of its members, 0 for one potential), and thermal properties in
kJ/mol and J/(K mol) of primitive cells. A campaign's committee has a calibration: error bar =
`error_bar_scale` times spread.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tace_al.cli.phonon_options import PhononSettings
from tace_al.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms
    from phonopy import Phonopy

    from tace_al.analysis.crystal_relaxation import CrystalRelaxation
    from tace_al.analysis.force_constants import ForceConstants
    from tace_al.analysis.phonons import Phonons
    from tace_al.cli.potential_options import ChosenPotential

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhononSource:
    """Where forces come from: a potential, or a file of them.

    Parameters
    ----------
    structure
        File of the unit cell.
    born
        BORN file, or None.
    chosen
        What computes forces.
    forces, forces_key
        Otherwise the file that has them, and their column's name.
    """

    structure: Path
    born: Path | None = None
    chosen: "ChosenPotential | None" = None
    forces: Path | None = None
    forces_key: str = "REF_forces"

    @property
    def scale(self) -> float:
        """Error bars are this many spreads."""
        return 1.0 if self.chosen is None else self.chosen.force_scale

    @property
    def description(self) -> dict[str, Any]:
        """What the numbers come from, plain enough for JSON."""
        described = {} if self.chosen is None else self.chosen.description
        if self.forces is not None:
            described = {"forces": str(self.forces), "forces_key": self.forces_key}
        return {"structure": str(self.structure), "born": self.born, **described}

    def frames(self) -> "list[Atoms]":
        """Return the supercells of the file of forces, none without one."""
        from tace_al.data.extxyz import LabelKeys, normalised_labels, read_structures

        if self.forces is None:
            return []
        frames = read_structures(self.forces)
        if not any(self.forces_key in atoms.arrays or atoms.calc is not None for atoms in frames):
            arrays = sorted({name for atoms in frames for name in atoms.arrays})
            raise DataError(
                f"{self.forces} has no forces under '{self.forces_key}'; its columns are "
                f"{', '.join(arrays)}. Name the right one with --forces-key"
            )
        return normalised_labels(frames, LabelKeys(forces=self.forces_key), source=str(self.forces))


def calculate_phonons(
    folder: Path, atoms: "Atoms", source: PhononSource, settings: PhononSettings
) -> None:
    """Relax, compute and write; report on the console."""
    from tace_al.analysis.phonons import phonons, read_born
    from tace_al.analysis.supercell_forces import from_supercell_forces, supercell_of_frames
    from tace_al.analysis.supercells import (
        ase_cell,
        crystal_lattice,
        default_mesh,
        default_supercell,
    )

    unit_cell, relaxation = _unit_cell(atoms, source, settings)
    frames = source.frames()
    supercell = settings.supercell or (
        supercell_of_frames(unit_cell, frames) if frames else default_supercell(unit_cell)
    )
    lattice = crystal_lattice(unit_cell, supercell, primitive=settings.primitive)
    if frames:
        constants = from_supercell_forces(lattice, frames, symmetrise=settings.symmetrise)
    else:
        constants = _force_constants(lattice, unit_cell, source, settings)
    if source.born is not None:
        read_born(lattice, source.born)
    result = phonons(
        lattice,
        constants,
        mesh=settings.mesh or default_mesh(ase_cell(lattice.primitive)),
        gamma_centred=settings.gamma_centred,
        q_points=settings.q_points,
    )
    _write_figures(folder, unit_cell, lattice, result, source.scale)
    _write_summary(folder, source, settings, (lattice, constants, result, relaxation))
    _show(folder, result, lattice, constants, scale=source.scale)


def _unit_cell(
    atoms: "Atoms", source: PhononSource, settings: PhononSettings
) -> "tuple[Atoms, CrystalRelaxation | None]":
    """Return the unit cell whose phonons are wanted, relaxed where wanted."""
    from tace_al.analysis.crystal_relaxation import relax_crystal
    from tace_al.analysis.supercells import crystal_lattice

    crystal_lattice(atoms, (1, 1, 1))  # says what is wrong with the structure before relaxing it
    if source.chosen is None or not settings.relax:
        return atoms, None
    relaxation = relax_crystal(source.chosen.potential, atoms)
    return relaxation.atoms, relaxation


def _force_constants(
    lattice: "Phonopy", unit_cell: "Atoms", source: PhononSource, settings: PhononSettings
) -> "ForceConstants":
    """Return the members' force constants in the way that was asked for."""
    from tace_al.analysis import force_constants

    assert source.chosen is not None
    committee = source.chosen.committee
    if settings.hessian:
        if committee is None:
            raise ConfigError(
                "--hessian is for models, a calculator has no analytic one; leave it out"
            )
        return force_constants.from_hessian(
            lattice, unit_cell, committee, symmetrise=settings.symmetrise
        )
    exact = committee is not None and committee.members[0].config.dtype == "float64"
    usual = force_constants.MODEL_DISPLACEMENT if exact else force_constants.CALCULATOR_DISPLACEMENT
    return force_constants.from_displacements(
        lattice,
        unit_cell,
        source.chosen.potential,
        displacement=settings.displacement or usual,
        both_ways=settings.both_ways,
        symmetrise=settings.symmetrise,
    )


def _write_figures(
    folder: Path, unit_cell: "Atoms", lattice: "Phonopy", result: "Phonons", scale: float
) -> None:
    """Write the unit cell, phonopy's file and both figures."""
    from tace_al.core.atomic_write import write_bytes
    from tace_al.data.extxyz import write_structures
    from tace_al.report.phonon_figures import band_figure, thermal_figure

    write_structures(folder / "unit_cell.xyz", [unit_cell], exact=True)
    unfinished = folder / ".phonopy.yaml"
    lattice.save(unfinished, settings={"force_constants": True, "force_sets": False})
    write_bytes(folder / "phonopy.yaml", unfinished.read_bytes())
    unfinished.unlink()
    title = unit_cell.get_chemical_formula(empirical=True)
    band_figure(result, folder / "bands.png", title=title, scale=scale)
    thermal_figure(result.thermal, folder / "thermal.png", scale=scale)


def _write_summary(
    folder: Path,
    source: PhononSource,
    settings: PhononSettings,
    found: "tuple[Phonopy, ForceConstants, Phonons, CrystalRelaxation | None]",
) -> None:
    """Write phonons.json."""
    from tace_al.cli.calculation_files import write_summary

    lattice, constants, result, relaxation = found
    warning = _warning(result)
    if warning:
        logger.info(warning)
    results = {
        **frequencies_summary(result),
        "path": path_summary(result),
        "thermal": thermal_summary(result),
        "dos": {
            "frequencies_thz": result.dos.frequencies,
            "states_per_thz": result.dos.density.value,
            "states_per_thz_spread": result.dos.density.spread,
        },
        "has_imaginary_modes": result.has_imaginary_modes,
        "warning": warning,
        "error_bar_scale": source.scale,
        "source": constants.source,
        "num_members": len(constants.members),
        "num_structures": constants.num_structures,
        "displacement_a": constants.displacement,
        "sum_rule_violation_ev_a2": constants.drift,
        "supercell": lattice.supercell_matrix,
        "num_supercell_atoms": len(lattice.supercell),
        "unit_cell_a": lattice.unitcell.cell,
        "primitive_cell_a": lattice.primitive.cell,
        "primitive_matrix": lattice.primitive_matrix,
        "num_primitive_atoms": len(lattice.primitive),
        "space_group": lattice.symmetry.get_international_table(),
        "relaxation": None
        if relaxation is None
        else {
            "steps": relaxation.steps,
            "max_force_ev_a": relaxation.max_force,
            "max_stress_ev_a3": relaxation.max_stress,
        },
    }
    inputs = {**source.description, "settings": asdict(settings)}
    write_summary(folder / "phonons.json", inputs=inputs, results=results)


def frequencies_summary(result: "Phonons") -> dict[str, Any]:
    """Return the frequencies on mesh, Gamma point and points asked for."""
    return {
        "mesh": result.mesh,
        "mesh_max_frequency_thz": float(result.mesh_max.value),
        "mesh_max_frequency_spread_thz": float(result.mesh_max.spread),
        "mesh_min_frequency_thz": float(result.mesh_min.value),
        "mesh_min_frequency_spread_thz": float(result.mesh_min.spread),
        "gamma_frequencies_thz": result.gamma.value,
        "gamma_frequencies_spread_thz": result.gamma.spread,
        "q_points": result.q_points,
        "q_point_frequencies_thz": result.q_frequencies.value,
        "q_point_frequencies_spread_thz": result.q_frequencies.spread,
    }


def path_summary(result: "Phonons") -> dict[str, Any]:
    """Return labels, q-points and frequencies of the path, segment by segment."""
    bands = result.bands
    return {
        "labels": bands.labels,
        "max_spread_thz": bands.max_spread,
        "rms_spread_thz": bands.rms_spread,
        "segments": [
            {
                "labels": [segment.start, segment.end],
                "q_points": segment.q_points,
                "distances_per_a": segment.distances,
                "frequencies_thz": values.value,
                "frequencies_spread_thz": values.spread,
            }
            for segment, values in zip(bands.segments, bands.frequencies, strict=True)
        ],
    }


def thermal_summary(result: "Phonons") -> dict[str, Any]:
    """Return thermal properties of one primitive cell."""
    heat = result.thermal
    return {
        "temperatures_k": heat.temperatures,
        "free_energy_kj_mol": heat.free_energy.value,
        "free_energy_spread_kj_mol": heat.free_energy.spread,
        "entropy_j_k_mol": heat.entropy.value,
        "entropy_spread_j_k_mol": heat.entropy.spread,
        "heat_capacity_j_k_mol": heat.heat_capacity.value,
        "heat_capacity_spread_j_k_mol": heat.heat_capacity.spread,
        "zero_point_energy_kj_mol": float(heat.zero_point_energy.value),
        "zero_point_energy_spread_kj_mol": float(heat.zero_point_energy.spread),
    }


def _warning(result: "Phonons") -> str | None:
    """Return what imaginary frequencies mean, None without any."""
    if not result.has_imaginary_modes:
        return None
    return (
        f"imaginary modes down to {result.lowest:.3f} THz: this crystal is not a minimum of the "
        "energy (or the supercell is too small, or the potential poor); thermal properties leave "
        "these modes out"
    )


def _show(
    folder: Path,
    result: "Phonons",
    lattice: "Phonopy",
    constants: "ForceConstants",
    *,
    scale: float,
) -> None:
    """Say the result in a few lines, with error bars of `scale` spreads."""
    console = Console()
    several = len(constants.members) > 1
    bar = f" ± {scale * float(result.mesh_max.spread):.4f}" if several else ""
    matrix = lattice.supercell_matrix
    size = " x ".join(str(int(matrix[i, i])) for i in range(3))
    many = "" if constants.num_structures == 1 else "s"
    gamma = result.gamma.value.round(4) + 0.0  # no minus before a zero
    lines = [
        f"{constants.num_structures} supercell{many} of {len(lattice.supercell)} atoms ({size}), "
        f"{lattice.symmetry.get_international_table()}",
        f"highest frequency {float(result.mesh_max.value):.4f}{bar} THz on the mesh "
        + " x ".join(map(str, result.mesh)),
        "Γ point " + " ".join(f"{value:.4f}" for value in gamma) + " THz",
    ]
    if several:
        bands = result.bands
        lines.append(
            f"error bars of the bands ({scale:.3g} spreads) {scale * bands.rms_spread:.4f} THz "
            f"rms, {scale * bands.max_spread:.4f} THz at most"
        )
    warning = _warning(result)
    if warning:
        lines.append(f"[bold]warning:[/bold] {warning}")
    for line in [*lines, f"{folder}: phonons.json, bands.png, thermal.png, phonopy.yaml"]:
        console.print(line, highlight=False, soft_wrap=True)
