"""`tace-al neb`: the lowest path between two states, its saddle point and its barrier.

The state of an unfinished band is `band.npz`: both relaxed ends and the images as they stand. The
same command goes on from there; end states are relaxed once.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder
from tace_al.cli.options import Device, OwnDtype
from tace_al.cli.potential_options import (
    CalculatorName,
    CalculatorOptions,
    Head,
    Models,
    choose_potential,
)
from tace_al.core.errors import ConfigError, SamplerError

if TYPE_CHECKING:
    from ase import Atoms

    from tace_al.cli.potential_options import ChosenPotential
    from tace_al.engines.sampling.neb import BandResult, BandSettings

logger = logging.getLogger(__name__)

STATE, SAVE_SECONDS = "band.npz", 5.0
ENDS_FMAX = 0.01
"""eV/A, to which end states are relaxed, or `--fmax` where that is less."""

Initial = Annotated[
    Path, typer.Argument(metavar="INITIAL", help="First state; anything ASE reads.")
]
Final = Annotated[
    Path, typer.Argument(metavar="FINAL", help="Last state: the same atoms in the same order.")
]
Images = Annotated[int, typer.Option("--images", min=3, help="Images, both ends included.")]
Relax = Annotated[bool, typer.Option("--relax/--no-relax", help="Relax both end states first.")]
MaxForce = Annotated[
    float, typer.Option("--fmax", min=1e-6, help="eV/Å, on the climbing image at convergence.")
]
MaxSteps = Annotated[int, typer.Option("--max-steps", min=1, help="Steps of the whole band.")]
Rattle = Annotated[
    float, typer.Option("--rattle", min=0.0, help="Å; takes a symmetric first path off a ridge.")
]
Match = Annotated[
    bool, typer.Option("--match", help="Reorder FINAL: each atom to the nearest of its element.")
]
Climb = Annotated[bool, typer.Option("--climb/--no-climb", help="Climb to the saddle point.")]


def neb(
    initial: Initial,
    final: Final,
    models: Models = None,
    images: Images = 9,
    relax: Relax = True,
    fmax: MaxForce = 0.02,
    max_steps: MaxSteps = 1000,
    climb: Climb = True,
    rattle: Rattle = 0.0,
    match: Match = False,
    calculator: CalculatorName = None,
    option: CalculatorOptions = None,
    device: Device = "cpu",
    dtype: OwnDtype = None,
    head: Head = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    out: OutFolder = Path("neb"),
) -> None:
    """Find the lowest path between two states with a climbing nudged elastic band.

    Writes band.xyz, saddle.xyz, neb.json (barrier_ev, reverse_barrier_ev, energies_ev, spreads,
    what forms and breaks) and neb.png. Fixed atoms of the files stay fixed.

    Example: [bold]tace-al neb reactant.xyz product.xyz --calculator gfn2 --images 11[/bold]
    """
    from tace_al.cli.calculation_files import prepare_folder, read_structure
    from tace_al.engines.sampling.neb import BandSettings

    settings = BandSettings(
        num_images=images, fmax=fmax, max_steps=max_steps, climb=climb, rattle=rattle
    )
    ends = matched(
        read_structure(initial, charge=charge, multiplicity=multiplicity),
        read_structure(final, charge=charge, multiplicity=multiplicity),
        reorder=match,
    )
    chosen = choose_potential(
        models, calculator, options=option, device=device, dtype=dtype, head=head
    )
    inputs = {"initial": initial, "final": final, "relax": relax, "match": match}
    inputs |= asdict(settings)
    _carry_out(chosen, ends, settings, relaxing=relax, folder=prepare_folder(out), inputs=inputs)


def matched(initial: "Atoms", final: "Atoms", *, reorder: bool) -> "tuple[Atoms, Atoms]":
    """Return both ends, the final one in a nearer order if asked for; else say if there is one."""
    import numpy as np

    from tace_al.engines.sampling.band_path import comparable_ends, nearest_order

    if not reorder:
        order = nearest_order(initial, comparable_ends(initial, final))
        others = np.flatnonzero(order != np.arange(len(order))).tolist()
        if others:
            logger.warning(
                "atoms %s of the final state are nearer to places of others of their element than "
                "to their own; give --match to reorder them, unless they are meant to change "
                "places",
                ", ".join(map(str, others)),
            )
        return initial, final
    free, told = initial.copy(), final.copy()
    free.set_constraint()  # held atoms may be ordered differently too
    told.set_constraint()
    if len(free) == len(told) and (np.sort(free.numbers) == np.sort(told.numbers)).all():
        order = np.empty(len(told), dtype=int)
        order[np.argsort(free.numbers, kind="stable")] = np.argsort(told.numbers, kind="stable")
        for _ in range(10):  # a molecule turns better with its atoms in a better order
            step = nearest_order(free, comparable_ends(free, told[order]))
            order = order[step]
            if (step == np.arange(len(step))).all():
                break
        final = final[order]
    return initial, final


def _carry_out(
    chosen: "ChosenPotential",
    ends: "tuple[Atoms, Atoms]",
    settings: "BandSettings",
    *,
    relaxing: bool,
    folder: Path,
    inputs: dict[str, Any],
) -> None:
    """Relax, find the path, write everything."""
    from rich.console import Console

    from tace_al.cli.calculation_files import write_summary
    from tace_al.data.extxyz import write_structures
    from tace_al.engines.sampling.neb import nudged_elastic_band

    key = _state_key(chosen, ends, settings, relaxing=relaxing)
    path = _earlier_images(folder / STATE, key)
    resumed = path is not None
    if path is None:
        path = [_relaxed(chosen, atoms, settings.fmax) if relaxing else atoms for atoms in ends]
    band = nudged_elastic_band(
        chosen.potential,
        path[0],
        path[-1],
        settings=replace(settings, rattle=0.0) if resumed else settings,
        path=path if resumed else None,
        watch=_keeper(folder / STATE, key),
    )
    _keep(folder / STATE, key, band.images)
    found = results(band, chosen)
    _draw(band, folder, scale=chosen.energy_scale)
    write_structures(folder / "saddle.xyz", [band.saddle])
    write_structures(folder / "band.xyz", list(band.images))
    content = {**inputs, "potential": chosen.description, "resumed": resumed}
    write_summary(folder / "neb.json", inputs=content, results=found)
    if not band.converged:
        raise SamplerError(
            f"the band has not converged: {band.fmax:.3f} eV/A is left after {band.steps} steps; "
            f"run it again with more --max-steps, it goes on from {folder / STATE}"
        )
    bar = found["barrier_error_ev"]
    error = "" if bar is None else f" ± {bar:.3f}"
    Console().print(
        f"barrier {band.barrier:.3f}{error} eV, reverse {band.reverse_barrier:.3f} eV, "
        f"{band.steps} steps; files in {folder}",
        highlight=False,
        soft_wrap=True,
    )


def results(band: "BandResult", chosen: "ChosenPotential") -> dict[str, Any]:
    """Return a band's numbers for the summary; energies are relative to the first image."""
    import numpy as np

    from tace_al.engines.sampling.bond_events import BondTracker, bond_names
    from tace_al.engines.sampling.path_barrier import highest_point

    relative = band.member_energies - band.member_energies[:, :1]
    pairs = zip(relative, band.member_tangential_forces, strict=True)
    barriers = [highest_point(band.reaction_coordinate, *pair) for pair in pairs]
    several = len(barriers) > 1
    events = BondTracker(band.images[0]).look(band.images[-1])
    return {
        "barrier_ev": band.barrier,
        "reverse_barrier_ev": band.reverse_barrier,
        "barrier_error_ev": chosen.energy_scale * float(np.std(barriers)) if several else None,
        "reaction_energy_ev": float(band.energies[-1] - band.energies[0]),
        "energies_ev": band.energies - band.energies[0],
        "energy_spreads_ev": chosen.energy_scale * relative.std(axis=0),
        "total_energy_initial_ev": float(band.energies[0]),
        "path_length_a": band.reaction_coordinate,
        "force_error_bars_ev_per_a": [
            chosen.force_scale * image.info["uncertainty"] for image in band.images
        ],
        "saddle_index": band.saddle_index,
        "converged": band.converged,
        "fmax_ev_per_a": band.fmax,
        "steps": band.steps,
        "bonds_formed": bond_names(band.images[0], events.formed),
        "bonds_broken": bond_names(band.images[0], events.broken),
    }


def _relaxed(chosen: "ChosenPotential", atoms: "Atoms", fmax: float) -> "Atoms":
    """Return an end state at its minimum."""
    from tace_al.engines.sampling.relax import relax

    found = relax(chosen.potential, atoms, fmax=min(fmax, ENDS_FMAX), max_steps=1000)
    if not found.converged:
        raise SamplerError(
            f"an end state does not relax: {found.fmax:.3f} eV/A is left after {found.steps} "
            "steps; look at it, or give end states that are relaxed and --no-relax"
        )
    return found.final


def _draw(band: "BandResult", folder: Path, *, scale: float) -> None:
    """Write the figure."""
    from tace_al.report.path_figures import band_figure

    relative = band.member_energies - band.member_energies[:, :1]
    band_figure(
        folder / "neb.png",
        coordinate=band.reaction_coordinate,
        energies=band.energies - band.energies[0],
        slopes=-band.tangential_forces,
        spreads=scale * relative.std(axis=0),
        barrier=band.barrier,
    )


def _state_key(
    chosen: "ChosenPotential",
    ends: "tuple[Atoms, Atoms]",
    settings: "BandSettings",
    *,
    relaxing: bool,
) -> str:
    """Return what a state must agree with; steps and force may change."""
    from tace_al.cli.calculation_files import plain, run_settings, start_key
    from tace_al.core.hashing import content_hash

    own = {
        "final": start_key(ends[1]),
        "relaxing": relaxing,
        "images": settings.num_images,
        "rattle": settings.rattle,
    }
    return content_hash(plain(run_settings(own, ends[0], chosen.description)))


def _earlier_images(path: Path, key: str) -> "list[Atoms] | None":
    """Return the images of an unfinished band, None without one.

    Raises
    ------
    ConfigError
        They are of another band.
    """
    from tace_al.data.frames import read_frames

    if not path.exists():
        return None
    images = read_frames(path)
    if images[0].info.get("band") != key:
        raise ConfigError(
            f"{path} is of another band (other states, images or potential); name another folder "
            "with --out, or remove it to begin anew"
        )
    return images


def _keeper(path: Path, key: str) -> "Callable[[Sequence[Atoms]], None]":
    """Return what writes the images every few seconds."""
    last = 0.0

    def keep(images: "Sequence[Atoms]") -> None:
        nonlocal last
        if time.monotonic() - last < SAVE_SECONDS:
            return
        last = time.monotonic()
        _keep(path, key, images)

    return keep


def _keep(path: Path, key: str, images: "Sequence[Atoms]") -> None:
    """Write the images, from which the band may go on."""
    from tace_al.data.frames import write_frames

    copies = [image.copy() for image in images]
    copies[0].info["band"] = key
    write_frames(path, copies)
