"""Barriers of a reaction, with and without its catalyst, from end states alone.

    tace-al run workflows/catalysis.py                                  H2CO3 -> CO2 + H2O, GFN2-xTB
    tace-al run workflows/catalysis.py --set reaction=surface_hop       O on Pt(100), EMT
    tace-al run workflows/catalysis.py --set reaction=surface_hop --set labeller=gpaw   O on Cu(100)
    tace-al run workflows/catalysis.py --set initial=a.xyz --set final=b.xyz --set charge=-1
    tace-al run workflows/catalysis.py --set initial=a.xyz --set final=b.xyz --set fidelities=hf,mp2

The first is the decomposition of carbonic acid, bare and with one water molecule that relays two
protons; the campaign reports both barriers and how far the water lowers them. Your own reaction
needs two files with the same atoms in the same order; anything ASE reads will do.
"""

from pathlib import Path

from ase import Atoms
from ase.constraints import FixAtoms

from tace_al.campaign.config import (
    Acquisition,
    Campaign,
    Exploration,
    LabellerChoice,
    ModelChoice,
    Reaction,
    Stopping,
    Structure,
)
from tace_al.core.errors import ConfigError, nearest_names
from tace_al.data.extxyz import read_structures
from tace_al.data.frames import CHARGE, MULTIPLICITY
from tace_al.dispatch.machine import machine_from_name
from tace_al.workflows import reactions as known

EndStates = tuple[Atoms, Atoms]

LEVELS = {"carbonic_acid": "gfn2", "surface_hop": "emt"}
"""Reactions that come along, and the labeller that their known barriers are of."""
KNOWN_MINUTES = 12.0
GPAW_MINUTES = 45.0


def campaign(
    *,
    reaction: str = "carbonic_acid",
    initial: str = "",
    final: str = "",
    charge: int = 0,
    multiplicity: int = 0,
    fixed: tuple[int, ...] = (),
    labeller: str = "",
    fidelities: tuple[str, ...] = (),
    num_images: int = 9,
    machine: str = "local",
    max_labels: int = 300,
    max_minutes: float = 0.0,
    seed: int = 0,
) -> Campaign:
    """Return the campaign.

    Parameters
    ----------
    reaction
        "carbonic_acid", "surface_hop", or any name for your own `initial` and `final`.
    initial, final
        Files with the end states of your own reaction; they are relaxed by the labeller first.
    charge, multiplicity
        Total charge in e and 2S + 1 of your own reaction; 0 takes the lowest multiplicity.
    fixed
        Indices of atoms that never move, besides those the files hold fixed.
    labeller, fidelities
        "gfn2" (for molecules), "gfn1", "emt", "gpaw", "pyscf" or "module:Class" of ASE's; or two of
        them, the cheap one first.
    num_images, machine
        Images of the elastic bands, end states included; "local", "threads" or "slurm".
    max_labels, max_minutes, seed
        Budgets (0 minutes: 12 for reactions that come along, gpaw 45, no limit for your own), and
        what everything random begins with.
    """
    own = bool(initial or final)
    usual = "gfn2" if own else LEVELS.get(reaction, "")
    labeller = fidelities[-1] if fidelities else labeller or usual
    on_copper = not own and (reaction, labeller) == ("surface_hop", "gpaw")
    if own:
        reaction = "reaction" if reaction in LEVELS else reaction
        states = own_end_states(initial, final, charge=charge, multiplicity=multiplicity)
    else:
        max_minutes = max_minutes or (GPAW_MINUTES if on_copper else KNOWN_MINUTES)
    built = barrier_campaign(
        reaction,
        {reaction: states} if own else known_end_states(reaction, labeller),
        fixed=fixed,
        labeller=labeller,
        fidelities=fidelities,
        num_images=num_images,
        machine=machine,
        stopping=Stopping(max_labels=max_labels, max_seconds=60 * max_minutes or None),
        catalyst=None if own or reaction != "carbonic_acid" else ("bare", "one_water"),
        references={} if own else known_barriers(reaction, labeller),
        seed=seed,
    )
    return with_gpaw(built) if on_copper else built


def with_gpaw(campaign: Campaign) -> Campaign:
    """Return the campaign with the settings of GPAW for the hop, and few labels at a time.

    A label takes seconds here and the training of a generation as long as five of them, so that it
    pays to ask the committee often.
    """
    level = LabellerChoice(name="gpaw", options=dict(known.GPAW_SURFACE_HOP))
    return campaign.model_copy(
        update={
            "labeller": level,
            "fidelities": (*campaign.fidelities[:-1], level) if campaign.fidelities else (),
            "exploration": Exploration(num_rattled=2, temperatures=(300.0, 450.0)),
            "acquisition": Acquisition(per_generation=12),
        }
    )


def known_end_states(reaction: str, labeller: str) -> dict[str, EndStates]:
    """Return the channels of a reaction that comes with tace-al; of the hop, for this labeller."""
    if reaction == "carbonic_acid":
        return {"bare": known.carbonic_acid(), "one_water": known.carbonic_acid_water()}
    if reaction == "surface_hop":
        hop = known.oxygen_on_copper() if labeller == "gpaw" else known.surface_hop()
        return {"surface_hop": hop}
    raise ConfigError(
        f"unknown reaction '{reaction}'.{nearest_names(reaction, LEVELS)} "
        "For your own reaction give its end states: --set initial=FILE --set final=FILE"
    )


def known_barriers(reaction: str, labeller: str) -> dict[str, float]:
    """Return the known barriers in eV by channel; none where they are of another level."""
    if (reaction, labeller) == ("surface_hop", "gpaw"):
        return {"surface_hop": known.GPAW_SURFACE_HOP_BARRIER}
    if LEVELS[reaction] != labeller:
        return {}
    channels = {"carbonic_acid": "bare", "carbonic_acid_water": "one_water"}
    names = channels if reaction == "carbonic_acid" else {reaction: reaction}
    return {channel: known.REFERENCE_BARRIERS[name] for name, channel in names.items()}


def barrier_campaign(
    name: str,
    ends: dict[str, EndStates],
    *,
    labeller: str,
    fidelities: tuple[str, ...] = (),
    fixed: tuple[int, ...] = (),
    num_images: int = 9,
    machine: str = "local",
    stopping: Stopping | None = None,
    catalyst: tuple[str, str] | None = None,
    references: dict[str, float] | None = None,
    seed: int = 0,
) -> Campaign:
    """Return a campaign for the barriers between pairs of end states, by channel name.

    With two `fidelities`, the cheap one first, `labeller` must be the second.
    """
    channels = []
    for channel, (initial, final) in ends.items():
        outside = [index for index in fixed if not 0 <= index < len(initial)]
        if outside:
            raise ConfigError(
                f"fixed names atom {outside[0]}; the atoms of '{channel}' are numbered 0 to "
                f"{len(initial) - 1}"
            )
        for atoms in (initial, final):
            if fixed:
                atoms.set_constraint([*atoms.constraints, FixAtoms(indices=list(fixed))])
        channels.append(
            Reaction(
                name=channel,
                initial=Structure.from_atoms(initial),
                final=Structure.from_atoms(final),
                num_images=num_images,
                reference_barrier=(references or {}).get(channel),
            )
        )
    return Campaign.build(
        name=name,
        reactions=channels,
        catalyst=catalyst,
        labeller=LabellerChoice(name=labeller),
        fidelities=fidelities,
        machine=machine_from_name(machine),
        model=ModelChoice(),
        exploration=Exploration(),
        acquisition=Acquisition(),
        stopping=stopping or Stopping(),
        seed=seed,
    )


def own_end_states(initial: str, final: str, *, charge: int, multiplicity: int) -> EndStates:
    """Read two end states from files and declare their charge and multiplicity."""
    if not (initial and final):
        raise ConfigError("give both end states: --set initial=FILE --set final=FILE")
    states = []
    for path in (initial, final):
        atoms = read_structures(Path(path))[-1]
        if charge or CHARGE not in atoms.info:
            atoms.info[CHARGE] = charge
        if multiplicity:
            atoms.info[MULTIPLICITY] = multiplicity
        states.append(atoms)
    return states[0], states[1]
