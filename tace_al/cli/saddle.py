"""`tace-al saddle`: climb to a saddle point, verify it, and tell what it connects.

The state of an unfinished search is `search.npz`: the structure and its direction. The same command
goes on from there.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.dynamics import PotentialSource, start_and_potential
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import ConfigError, SamplerError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from tace_al.cli.potential_options import ChosenPotential
    from tace_al.engines.sampling.saddle_search import SearchResult, SearchSettings

STATE, SAVE_SECONDS = "search.npz", 5.0

Active = Annotated[
    str | None,
    typer.Option("--active", metavar="I,J,...", help="Atoms to move first; default: softest way."),
]
Towards = Annotated[
    Path | None, typer.Option("--towards", metavar="FILE", help="Leave in this one's direction.")
]
Relax = Annotated[bool, typer.Option("--relax/--no-relax", help="Begin at the minimum.")]
MaxForce = Annotated[float, typer.Option("--fmax", min=1e-6, help="eV/Å, at the saddle point.")]
MaxSteps = Annotated[int, typer.Option("--max-steps", min=1, help="Steps of the search.")]
SearchSeed = Annotated[int, typer.Option("--seed", help="Another one may find another saddle.")]


def saddle(
    structure: Structure,
    models: Models = None,
    active: Active = None,
    towards: Towards = None,
    relax: Relax = True,
    fmax: MaxForce = 0.01,
    max_steps: MaxSteps = 500,
    seed: SearchSeed = 0,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    out: OutFolder = Path("saddle"),
) -> None:
    """Climb to a saddle point from a minimum, or from a guess with --no-relax.

    The Hessian's negative modes are counted, and both sides relaxed down to tell what is connected.
    Writes saddle.xyz, sides.xyz, search.xyz, saddle.json and saddle.png.
    Example: [bold]tace-al saddle slab.xyz m.tace --active 12 --out hop[/bold]
    """
    from tace_al.cli.calculation_files import prepare_folder, read_structure
    from tace_al.engines.sampling.saddle_search import SearchSettings

    settings = SearchSettings(fmax=fmax, max_steps=max_steps, seed=seed)
    source = PotentialSource(
        calculator=calculator, options=option, device=device, dtype=dtype, head=head
    )
    atoms, chosen = start_and_potential(
        structure, models, source, (charge, multiplicity), stress=False
    )
    target = None if towards is None else read_structure(towards)
    lead = (active_atoms(active), target)
    inputs = {"structure": structure, "active": active, "towards": towards, "relax": relax}
    inputs |= asdict(settings)
    folder = prepare_folder(out)
    _carry_out(chosen, atoms, settings, lead=lead, relaxing=relax, folder=folder, inputs=inputs)


def active_atoms(text: str | None) -> list[int] | None:
    """Return atom indices from "3,4,5".

    >>> active_atoms("3,4")
    [3, 4]
    """
    if text is None:
        return None
    parts = text.replace(" ", "").split(",")
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--active {text} is no list of atoms; write --active 3,4,5")
    return [int(part) for part in parts]


def _carry_out(
    chosen: "ChosenPotential",
    atoms: "Atoms",
    settings: "SearchSettings",
    *,
    lead: "tuple[list[int] | None, Atoms | None]",
    relaxing: bool,
    folder: Path,
    inputs: dict[str, Any],
) -> None:
    """Relax, search, verify, slide down, write everything."""
    from rich.console import Console

    from tace_al.cli.calculation_files import write_summary
    from tace_al.data.extxyz import write_structures
    from tace_al.engines.sampling.saddle_search import search_saddle

    key = _state_key(chosen, atoms, settings, lead=lead, relaxing=relaxing)
    start, here, direction = _beginning(chosen, atoms, folder / STATE, key, relaxing=relaxing)
    resumed = direction is not None
    if lead[1] is not None and not resumed:
        direction = _direction_to(start, lead[1])
    found = search_saddle(
        chosen.potential,
        here,
        settings=settings,
        active=lead[0],
        direction=direction,
        watch=_keeper(folder / STATE, key, start),
    )
    results = {"converged": found.converged, "reason": found.reason, "steps": found.steps}
    results |= {"fmax_ev_per_a": found.fmax, "resumed": resumed}
    if found.converged:
        results |= verified(chosen, start if relaxing else None, found, folder)
    _draw(found, folder, scale=chosen.force_scale)
    write_structures(folder / "search.xyz", list(found.frames))
    write_structures(folder / "saddle.xyz", [found.saddle])
    content = {**inputs, "potential": chosen.description}
    write_summary(folder / "saddle.json", inputs=content, results=results)
    if not found.converged:
        raise SamplerError(
            f"no saddle point was reached: {found.reason}; run it again with more --max-steps (it "
            "goes on where it was), or another --seed, --active or folder"
        )
    Console().print(_told(results, folder), highlight=False, soft_wrap=True)


def verified(
    chosen: "ChosenPotential", start: "Atoms | None", found: "SearchResult", folder: Path
) -> dict[str, Any]:
    """Return barriers, modes and what the saddle point connects; write both sides."""
    import numpy as np

    from tace_al.analysis.normal_modes import hessian_by_differences, normal_modes
    from tace_al.data.extxyz import write_structures
    from tace_al.engines.sampling.bond_events import BondTracker, bond_names
    from tace_al.engines.sampling.saddle_search import slide_down

    modes = normal_modes(found.saddle, hessian_by_differences(chosen.potential, found.saddle))
    sides = slide_down(chosen.potential, found.saddle, found.mode.direction, fmax=0.005)
    if start is not None and _distance(sides[1], start) < _distance(sides[0], start):
        sides = sides[1], sides[0]  # the side where the search began comes first
    write_structures(folder / "sides.xyz", list(sides))
    predictions = chosen.potential.predict([*sides, found.saddle])
    energies = np.stack([prediction.member_energies for prediction in predictions], axis=1)
    barriers = energies[:, 2] - energies[:, 0], energies[:, 2] - energies[:, 1]
    several = chosen.num_members > 1
    errors = [chosen.energy_scale * float(each.std()) if several else None for each in barriers]
    events = BondTracker(sides[0]).look(sides[1])
    back = None if start is None else _distance(sides[0], start) < 0.3
    return {
        "barrier_ev": float(barriers[0].mean()),
        "barrier_error_ev": errors[0],
        "reverse_barrier_ev": float(barriers[1].mean()),
        "reverse_barrier_error_ev": errors[1],
        "reaction_energy_ev": float((energies[:, 1] - energies[:, 0]).mean()),
        "curvature_ev_per_a2": found.mode.curvature,
        "num_negative_modes": modes.num_imaginary,
        "is_first_order_saddle": modes.num_imaginary == 1,
        "lowest_frequencies_cm": modes.frequencies.value[:6],
        "connects_to_start": back,
        "distance_between_sides_a": _distance(*sides),
        "bonds_formed": bond_names(sides[0], events.formed),
        "bonds_broken": bond_names(sides[0], events.broken),
        "force_error_bar_ev_per_a": chosen.force_scale * found.saddle.info["uncertainty"],
    }


def _told(results: dict[str, Any], folder: Path) -> str:
    """Return the result in one line."""
    bar = results["barrier_error_ev"]
    error = "" if bar is None else f" ± {bar:.3f}"
    order = results["num_negative_modes"]
    kind = "first-order saddle point" if order == 1 else f"{order} negative modes: no simple saddle"
    where = "" if results["connects_to_start"] in (None, True) else ", not next to the start"
    return (
        f"{kind}{where}: barrier {results['barrier_ev']:.3f}{error} eV, reverse "
        f"{results['reverse_barrier_ev']:.3f} eV, {results['steps']} steps; files in {folder}"
    )


def _distance(first: "Atoms", second: "Atoms") -> float:
    """Return the largest displacement of an atom between two structures, in A."""
    import numpy as np

    from tace_al.engines.sampling.band_path import comparable_ends

    moved = comparable_ends(second, first) - second.positions
    return float(np.linalg.norm(moved, axis=1).max())


def _direction_to(atoms: "Atoms", target: "Atoms") -> "np.ndarray":
    """Return (atoms, 3) from a structure to another."""
    from tace_al.engines.sampling.band_path import comparable_ends

    direction: np.ndarray = comparable_ends(atoms, target) - atoms.positions
    return direction


def _beginning(
    chosen: "ChosenPotential", atoms: "Atoms", path: Path, key: str, *, relaxing: bool
) -> "tuple[Atoms, Atoms, np.ndarray | None]":
    """Return where all began, where the search is, and its direction if it goes on."""
    from tace_al.data.frames import read_frames
    from tace_al.engines.sampling.relax import relax

    if path.exists():
        start, here = read_frames(path)
        if start.info.get("search") != key:
            raise ConfigError(
                f"{path} is of another search; name another folder with --out, or remove it to "
                "begin anew"
            )
        return start, here, here.arrays["direction"]
    if relaxing:
        found = relax(chosen.potential, atoms, fmax=0.01, max_steps=1000)
        if not found.converged:
            raise SamplerError(
                f"the start does not relax: {found.fmax:.3f} eV/A is left after {found.steps} "
                "steps; give a minimum, or a guess with --no-relax"
            )
        atoms = found.final
    return atoms, atoms, None


def _keeper(path: Path, key: str, start: "Atoms") -> "Callable[[Atoms, np.ndarray], None]":
    """Return what writes the state every few seconds."""
    from tace_al.data.frames import bare_copy, write_frames

    last = 0.0

    def keep(atoms: "Atoms", direction: "np.ndarray") -> None:
        nonlocal last
        if time.monotonic() - last < SAVE_SECONDS:
            return
        last = time.monotonic()
        first, here = bare_copy(start), bare_copy(atoms)
        first.info["search"] = key
        here.set_array("direction", direction)
        write_frames(path, [first, here])

    return keep


def _state_key(
    chosen: "ChosenPotential",
    atoms: "Atoms",
    settings: "SearchSettings",
    *,
    lead: "tuple[Sequence[int] | None, Atoms | None]",
    relaxing: bool,
) -> str:
    """Return what a state must agree with; steps and force may change."""
    from tace_al.cli.calculation_files import plain, run_settings, start_key
    from tace_al.core.hashing import content_hash

    own = {
        "active": list(lead[0] or ()),
        "towards": "" if lead[1] is None else start_key(lead[1]),
        "relaxing": relaxing,
        "seed": settings.seed,
    }
    return content_hash(plain(run_settings(own, atoms, chosen.description)))


def _draw(found: "SearchResult", folder: Path, *, scale: float) -> None:
    """Write the figure."""
    import numpy as np

    from tace_al.report.path_figures import search_figure

    frames = found.frames
    energies = np.array([frame.info["energy"] for frame in frames])
    search_figure(
        folder / "saddle.png",
        energies=energies - energies[0],
        curvatures=np.array([frame.info["curvature"] for frame in frames]),
        error_bars=scale * np.array([frame.info["uncertainty"] for frame in frames]),
    )
