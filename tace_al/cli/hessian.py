"""`tace-al hessian`: frequencies, zero-point and free energies of molecules and adsorbates."""

from typing import Annotated

import typer

from tace_al.cli.calculation_files import Charge, Multiplicity, OutFolder, Structure
from tace_al.cli.hessian_results import HessianSettings
from tace_al.cli.options import Device, Threads
from tace_al.cli.phonon_options import Precision
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models

Delta = Annotated[
    float | None,
    typer.Option(
        "--delta", min=1e-5, metavar="Å", help="Differences; default: 0.01, models analytic."
    ),
]
Relax = Annotated[
    bool, typer.Option("--relax/--no-relax", help="Relax positions first; not at a saddle point.")
]
MaxForce = Annotated[
    float, typer.Option("--fmax", min=1e-8, metavar="eV/Å", help="Where relaxation ends.")
]
Kelvin = Annotated[float, typer.Option("--temperature", min=0.0, metavar="K")]
Pascal = Annotated[float, typer.Option("--pressure", min=0.0, metavar="Pa", help="Of the gas.")]
SymmetryNumber = Annotated[
    int | None,
    typer.Option("--symmetry-number", min=1, help="Default: that of the point group found."),
]


def hessian(
    structure: Structure,
    out: OutFolder,
    models: Models = None,
    calculator: CalculatorName = None,
    delta: Delta = None,
    relax: Relax = True,
    fmax: MaxForce = 1e-4,
    temperature: Kelvin = 298.15,
    pressure: Pascal = 101325.0,
    symmetry_number: SymmetryNumber = None,
    charge: Charge = None,
    multiplicity: Multiplicity = None,
    options: CalculatorOptions = None,
    head: Head = None,
    dtype: Precision = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Vibrations of a structure: frequencies, zero-point energy, free energies, saddle check.

    Fixed atoms of the file stay fixed. Writes hessian.json, modes.xyz, frequencies.png, hessian.npz
    and a trajectory of the lowest mode.
    Example: [bold]tace-al hessian water.xyz --calculator gfn2 --out water[/bold]
    """
    import torch

    from tace_al.cli.calculation_files import prepare_folder, read_structure
    from tace_al.cli.hessian_results import calculate_modes
    from tace_al.cli.potential_options import choose_potential

    torch.set_num_threads(threads)
    dtype = dtype or ("float64" if models else None)
    chosen = choose_potential(
        models, calculator, options=options, device=device, dtype=dtype, head=head
    )
    settings = HessianSettings(
        delta=delta,
        relax=relax,
        fmax=fmax,
        temperature=temperature,
        pressure=pressure,
        symmetry_number=symmetry_number,
    )
    atoms = read_structure(structure, charge=charge, multiplicity=multiplicity)
    calculate_modes(prepare_folder(out), atoms, chosen, settings, structure=structure)
