from pathlib import Path
from typing import Any

import pytest
from ase.build import fcc111

from tace_al.campaign.config import Campaign, Structure
from tace_al.cli.workflow_file import with_fields
from tace_al.core.errors import ConfigError
from tace_al.data.frames import fixed_mask, structure_key
from tace_al.workflows.reactions import ammonia_inversion, surface_hop


def content(**fields: Any) -> dict[str, Any]:
    initial, final = (Structure.from_atoms(atoms) for atoms in ammonia_inversion())
    reaction = {"name": "inversion", "initial": initial, "final": final}
    return {"name": "ammonia", "reactions": [reaction], **fields}


def changed(**fields: Any) -> dict[str, Any]:
    """Return a campaign's content whose initial state differs in some fields."""
    (reaction,) = content()["reactions"]
    initial = {**reaction["initial"].model_dump(), **fields}
    return content(reactions=[{**reaction, "initial": initial}])


def complaint(fields: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Campaign.build(**fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("reaction", [ammonia_inversion, surface_hop])
def test_a_campaign_survives_yaml_bit_for_bit(tmp_path: Path, reaction: Any) -> None:
    initial, final = (Structure.from_atoms(atoms) for atoms in reaction())
    campaign = Campaign.build(
        name="again",
        reactions=[{"name": "a", "initial": initial, "final": final, "reference_barrier": 0.1}],
        model={"options": {"channels": 8, "radial_hidden": [16]}},
        stopping={"max_seconds": 60.0},
    )
    path = tmp_path / "campaign.yaml"
    path.write_text(campaign.to_yaml())
    read = Campaign.from_yaml(path)
    assert read == campaign and read.content_key == campaign.content_key
    back = read.reactions[0].initial.to_atoms()
    assert structure_key(back) == structure_key(reaction()[0])
    assert (fixed_mask(back) == fixed_mask(reaction()[0])).all()


def test_a_structure_keeps_what_matters() -> None:
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    slab.info.update(total_charge=-1, spin_multiplicity=3)
    structure = Structure.from_atoms(slab)
    assert (structure.charge, structure.multiplicity) == (-1, 3)
    assert structure.pbc == (True, True, False)
    assert structure_key(structure.to_atoms()) == structure_key(slab)


def test_where_and_how_long_do_not_decide_what_is_computed() -> None:
    campaign = Campaign.build(**content())
    longer = Campaign.build(
        **content(stopping={"max_labels": 7}, machine={"name": "x", "executor": "threads"})
    )
    assert longer.content_key == campaign.content_key
    assert Campaign.build(**content(seed=1)).content_key != campaign.content_key


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stoping": {}}, "Did you mean 'stopping'?"),
        ({"stopping": {"max_lables": 5}}, "'stopping.max_lables'. Did you mean 'max_labels'?"),
        ({"model": {"preset": "tny"}}, "Did you mean 'tiny'?"),
        ({"model": {"options": {"chanels": 8}}}, "Did you mean 'channels'?"),
        ({"model": {"options": {"channels": "many"}}}, "of the wrong kind"),
        ({"model": {"options": {"elements": ["H"]}}}, "leave them out"),
        ({"model": {"members": 1}}, "model.members"),
        ({"exploration": {"temperatures": []}}, "exploration.temperatures"),
        ({"exploration": {"temperatures": [-3.0]}}, "exploration.temperatures.0"),
        ({"acquisition": {"low": 9.0}}, "low must be the smaller"),
        ({"stopping": {"max_seconds": float("inf")}}, "finite"),
        ({"catalyst": ("inversion", "inverison")}, "Did you mean 'inversion'?"),
        ({"name": "no spaces"}, "name: "),
        ({"reactions": []}, "reactions: "),
    ],
)
def test_wrong_options_are_one_clear_sentence(fields: dict[str, Any], words: str) -> None:
    assert words in complaint(content(**fields))


def test_the_right_reactions_are_not_complained_about() -> None:
    (reaction,) = content()["reactions"]
    message = complaint(content(reactions=[{**reaction, "num_image": 7}]))
    assert message == (
        "unknown campaign option 'reactions.0.num_image'. Did you mean 'num_images'?"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"symbols": ("H", "N", "H", "H")}, "differ in atoms or in their order"),
        ({"charge": 1, "multiplicity": 2}, "differ in charge"),
        ({"multiplicity": 3}, "differ in multiplicity"),
        ({"fixed": (0,)}, "differ in fixed"),
        ({"fixed": (4,)}, "numbered 0 to 3"),
        ({"symbols": ("N", "H", "H", "Q")}, "no chemical symbol"),
        ({"positions": ((0.0, 0.0, 0.0),)}, "4 symbols and 1 positions"),
        ({"positions": ((0.0, 0.0, float("nan")),) * 4}, "finite"),
        ({"cell": ((5.0, 0.0, 0.0),)}, "three lattice vectors"),
    ],
)
def test_wrong_end_states(fields: dict[str, Any], words: str) -> None:
    assert words in complaint(changed(**fields))


def test_end_states_in_different_cells() -> None:
    states = [Structure.from_atoms(atoms) for atoms in surface_hop()]
    cell = ((9.0, 0.0, 0.0), *states[1].cell[1:])
    final = {**states[1].model_dump(), "cell": cell}
    reactions = [{"name": "hop", "initial": states[0], "final": final}]
    assert "differ in cell" in complaint({"name": "hop", "reactions": reactions})


def test_names_of_reactions() -> None:
    (reaction,) = content()["reactions"]
    assert "same name" in complaint(content(reactions=[reaction, reaction]))
    for name in ("", "a b", "a.b", "$a"):  # a dot would be a path in the database
        assert "name" in complaint(content(reactions=[{**reaction, "name": name}]))


def test_fields_are_set_by_dotted_path() -> None:
    campaign = Campaign.build(**content())
    changed_campaign = with_fields(
        campaign, {"stopping.max_labels": "5", "exploration.temperatures": "[250]"}
    )
    assert changed_campaign.stopping.max_labels == 5
    assert changed_campaign.exploration.temperatures == (250.0,)
    assert changed_campaign.reactions == campaign.reactions
    for path, words in (
        ("stopping.max_lables", "Did you mean 'max_labels'?"),
        ("stoping.max_labels", "Did you mean 'stopping'?"),
    ):
        with pytest.raises(ConfigError) as caught:
            with_fields(campaign, {path: "5"})
        assert words in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "name: [", "name: x\n"])
def test_files_that_are_no_campaign(tmp_path: Path, text: str) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Campaign.from_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Campaign.from_yaml(tmp_path / "missing.yaml")
