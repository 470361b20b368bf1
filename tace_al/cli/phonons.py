"""`tace-al phonons`: bands, density of states and heat of a crystal, with error bars."""

from tace_al.cli.calculation_files import OutFolder, Structure
from tace_al.cli.options import Device, ForcesKey, Threads
from tace_al.cli.phonon_options import (
    AnalyticHessian,
    Born,
    BothWays,
    Displacement,
    ForcesFile,
    GammaCentred,
    Mesh,
    PhononSettings,
    Precision,
    PrimitiveCell,
    QPoints,
    Relax,
    SumRules,
    Supercell,
    points_from_texts,
)
from tace_al.cli.potential_options import CalculatorName, CalculatorOptions, Head, Models
from tace_al.core.errors import ConfigError


def phonons(
    structure: Structure,
    out: OutFolder,
    models: Models = None,
    calculator: CalculatorName = None,
    supercell: Supercell = None,
    mesh: Mesh = None,
    relax: Relax = True,
    hessian: AnalyticHessian = False,
    displacement: Displacement = None,
    plusminus: BothWays = False,
    forces: ForcesFile = None,
    forces_key: ForcesKey = "REF_forces",
    born: Born = None,
    q_point: QPoints = None,
    primitive: PrimitiveCell = "auto",
    gamma_centred: GammaCentred = False,
    sum_rules: SumRules = True,
    options: CalculatorOptions = None,
    head: Head = None,
    dtype: Precision = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Phonons of a crystal through phonopy: bands, density of states, thermal properties.

    Several models give every number a spread. Writes phonons.json, figures and phonopy.yaml.
    Example: [bold]tace-al phonons si.xyz m1.tace m2.tace --supercell 3 3 3 --out si[/bold]
    """
    import torch

    from tace_al.cli.calculation_files import prepare_folder, read_structure
    from tace_al.cli.phonon_results import PhononSource, calculate_phonons
    from tace_al.cli.potential_options import choose_potential

    if forces is not None and (models or calculator or hessian):
        raise ConfigError("--forces replaces models, --calculator and --hessian; keep one of them")
    torch.set_num_threads(threads)
    settings = PhononSettings(
        supercell=supercell,
        mesh=mesh,
        relax=relax and forces is None,
        hessian=hessian,
        displacement=displacement,
        both_ways=plusminus,
        q_points=points_from_texts(q_point),
        primitive=primitive,
        gamma_centred=gamma_centred,
        symmetrise=sum_rules,
    )
    chosen = None
    if forces is None:
        dtype = dtype or ("float64" if models else None)
        chosen = choose_potential(
            models, calculator, options=options, device=device, dtype=dtype, head=head, stress=True
        )
    source = PhononSource(
        structure=structure, born=born, chosen=chosen, forces=forces, forces_key=forces_key
    )
    calculate_phonons(prepare_folder(out), read_structure(structure), source, settings)
