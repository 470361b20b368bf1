from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from tace_al.campaign.config import Campaign
from tace_al.core.errors import ConfigError
from tace_al.data.frames import structure_key
from tace_al.engines.labelling.guards import check_structure
from tace_al.workflows import catalysis, proton_transfer
from tace_al.workflows.reactions import (
    GPAW_SURFACE_HOP,
    REFERENCE_BARRIERS,
    ammonia_inversion,
    carbonic_acid,
    carbonic_acid_water,
    chloride_exchange,
    malonaldehyde,
    surface_hop,
)


def states(campaign: Campaign) -> list[Atoms]:
    return [
        structure.to_atoms()
        for reaction in campaign.reactions
        for structure in (reaction.initial, reaction.final)
    ]


def files(folder: Path, ends: tuple[Atoms, Atoms]) -> dict[str, str]:
    for name, atoms in zip(("initial", "final"), ends, strict=True):
        write(folder / f"{name}.xyz", atoms)
    return {name: str(folder / f"{name}.xyz") for name in ("initial", "final")}


def test_the_main_job_is_carbonic_acid_with_and_without_water() -> None:
    campaign = catalysis.campaign()
    assert campaign.catalyst == ("bare", "one_water")
    expected = [*carbonic_acid(), *carbonic_acid_water()]
    assert [structure_key(atoms) for atoms in states(campaign)] == [
        structure_key(atoms) for atoms in expected
    ]
    barriers = [reaction.reference_barrier for reaction in campaign.reactions]
    assert barriers == [
        REFERENCE_BARRIERS["carbonic_acid"],
        REFERENCE_BARRIERS["carbonic_acid_water"],
    ]
    assert campaign.labeller.name == "gfn2" and campaign.stopping.max_labels <= 300


def test_the_hop_with_gpaw_is_oxygen_on_copper_with_settings_that_fit() -> None:
    campaign = catalysis.campaign(reaction="surface_hop", labeller="gpaw")
    initial, final = states(campaign)
    assert initial.get_chemical_formula() == "Cu8O"
    assert campaign.labeller.options == GPAW_SURFACE_HOP
    assert campaign.acquisition.per_generation < catalysis.campaign().acquisition.per_generation
    moved = final.positions[-1] - initial.positions[-1]
    assert moved == pytest.approx([initial.cell[0, 0] / 2, 0.0, 0.0], abs=1e-3)
    assert campaign.reactions[0].initial.fixed == campaign.reactions[0].final.fixed == (0, 1, 2, 3)


def test_a_surface_runs_through_the_same_function() -> None:
    campaign = catalysis.campaign(reaction="surface_hop")
    initial, final = states(campaign)
    assert campaign.labeller.name == "emt" and campaign.catalyst is None
    assert initial.pbc.tolist() == [True, True, False]
    assert campaign.reactions[0].initial.fixed == campaign.reactions[0].final.fixed != ()
    assert structure_key(initial) == structure_key(surface_hop()[0])
    assert structure_key(initial) != structure_key(final)


def test_proton_transfer() -> None:
    campaign = proton_transfer.campaign(max_labels=50, seed=3)
    assert [structure_key(atoms) for atoms in states(campaign)] == [
        structure_key(atoms) for atoms in malonaldehyde()
    ]
    assert campaign.stopping.max_labels == 50 and campaign.seed == 3
    assert campaign.reactions[0].reference_barrier == REFERENCE_BARRIERS["malonaldehyde"]
    # the reference is GFN2's own and says nothing of other labellers
    assert proton_transfer.campaign(labeller="gfn1").reactions[0].reference_barrier is None


def test_every_packaged_end_state_can_be_labelled() -> None:
    for campaign in (
        catalysis.campaign(),
        catalysis.campaign(reaction="surface_hop"),
        proton_transfer.campaign(),
    ):
        for atoms in states(campaign):
            check_structure(atoms)


def test_an_own_reaction_from_files(tmp_path: Path) -> None:
    campaign = catalysis.campaign(**files(tmp_path, ammonia_inversion()), fixed=(0,), seed=1)
    (reaction,) = campaign.reactions
    assert (reaction.name, reaction.reference_barrier) == ("reaction", None)
    assert reaction.initial.fixed == reaction.final.fixed == (0,)
    assert reaction.initial.symbols == tuple(ammonia_inversion()[0].get_chemical_symbols())
    named = catalysis.campaign(**files(tmp_path, ammonia_inversion()), reaction="inversion")
    assert named.reactions[0].name == "inversion"


def test_charge_and_multiplicity_of_an_own_reaction(tmp_path: Path) -> None:
    bare = tuple(Atoms(a.symbols, a.positions) for a in chloride_exchange())
    campaign = catalysis.campaign(**files(tmp_path, bare), charge=-1)  # type: ignore[arg-type]
    assert (campaign.reactions[0].initial.charge, campaign.reactions[0].final.charge) == (-1, -1)
    assert campaign.reactions[0].initial.multiplicity == 1
    # what the files say stands where the command line says nothing
    campaign = catalysis.campaign(**files(tmp_path, chloride_exchange()))
    assert campaign.reactions[0].initial.charge == -1
    radical = (molecule("CH3"), molecule("CH3"))
    assert catalysis.campaign(**files(tmp_path, radical)).reactions[0].initial.multiplicity == 2
    quartet = catalysis.campaign(**files(tmp_path, radical), multiplicity=4)
    assert quartet.reactions[0].final.multiplicity == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reaction": "carbonic_acd"}, "Did you mean 'carbonic_acid'?"),
        ({"initial": "a.xyz"}, "give both end states"),
        ({"fixed": (99,)}, "fixed names atom 99"),
        ({"machine": "thread"}, "Did you mean 'threads'?"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalysis.campaign(**options)
    assert words in str(caught.value)


def test_a_reference_is_of_the_labeller_s_own_level() -> None:
    def references(**settings: Any) -> set[float | None]:
        return {reaction.reference_barrier for reaction in catalysis.campaign(**settings).reactions}

    assert references(labeller="gfn1") == {None}
    assert references(reaction="surface_hop", labeller="gfn2") == {None}
    assert references(reaction="surface_hop") == {REFERENCE_BARRIERS["surface_hop"]}
    assert None not in references() | references(fidelities=("gfn1", "gfn2"))


def test_two_levels_for_any_reaction(tmp_path: Path) -> None:
    own = catalysis.campaign(**files(tmp_path, ammonia_inversion()), fidelities=("hf", "mp2"))
    assert [choice.name for choice in own.fidelities] == ["hf", "mp2"]
    assert own.labeller == own.fidelities[1]
    hop = catalysis.campaign(reaction="surface_hop", fidelities=("emt", "gpaw"))
    assert hop.labeller == hop.fidelities[1] and hop.labeller.options == GPAW_SURFACE_HOP
    assert states(hop)[0].get_chemical_formula() == "Cu8O"
    Campaign.build(**hop.model_dump(mode="json"))
