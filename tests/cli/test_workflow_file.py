from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest

from tace_al.campaign.config import Campaign
from tace_al.cli.workflow_file import (
    build_campaign,
    load_workflow,
    packaged_workflows,
    parse_settings,
    parse_value,
)
from tace_al.core.errors import ConfigError

WORKFLOW = '''
"""A small workflow."""
from pathlib import Path
from typing import Literal

from tace_al.campaign.config import Campaign

HYDROGEN = {"symbols": ("H", "H"), "positions": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.74))}


def campaign(
    *,
    name: str = "hydrogen",
    charge: int = 0,
    temperatures: tuple[float, ...] = (300.0,),
    method: Literal["gfn1", "gfn2"] = "gfn2",
    file: Path | None = None,
    budget: int | None = 10,
) -> Campaign:
    end = HYDROGEN | {"charge": charge}
    return Campaign.build(
        name=name,
        reactions=({"name": "stretch", "initial": end, "final": end},),
        labeller={"name": method},
        exploration={"temperatures": temperatures},
        stopping={"max_labels": budget} if budget else {},
    )
'''


@pytest.fixture
def workflow_file(tmp_path: Path) -> Path:
    path = tmp_path / "hydrogen.py"
    path.write_text(WORKFLOW)
    return path


def built(path: Path, *settings: str) -> Campaign:
    return build_campaign(load_workflow(str(path)), parse_settings(settings))


def test_settings_are_read_by_their_annotations(workflow_file: Path) -> None:
    campaign = built(
        workflow_file, "temperatures=300,500", "charge=0", "method=gfn1", "budget=none", "name=a-1"
    )
    assert campaign.exploration.temperatures == (300.0, 500.0)
    assert campaign.labeller.name == "gfn1" and campaign.name == "a-1"
    assert built(workflow_file, "temperatures=[250.5]").exploration.temperatures == (250.5,)
    assert built(workflow_file, "temperatures=400").exploration.temperatures == (400.0,)
    assert built(workflow_file).stopping.max_labels == 10


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("temprature=300", "Did you mean 'temperatures'?"),
        ("charge=one", "integer"),
        ("method=pbe", "'gfn1' or 'gfn2'"),
        ("budget=-1", "max_labels"),
        ("charge", "not of the form key=value"),
    ],
)
def test_a_wrong_setting_is_one_sentence(workflow_file: Path, setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(workflow_file, setting)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_fields_are_set_by_their_path(workflow_file: Path) -> None:
    campaign = built(
        workflow_file, "exploration.temperatures=[350]", "model.preset=small", "charge=0"
    )
    assert campaign.exploration.temperatures == (350.0,) and campaign.model.preset == "small"
    for setting, words in (
        ("stopping.max_lables=5", "Did you mean 'max_labels'?"),
        ("stoping.max_labels=5", "Did you mean 'stopping'?"),
        ("model.members=one", "model.members"),
    ):
        with pytest.raises(ConfigError) as caught:
            built(workflow_file, setting)
        assert words in str(caught.value)


def test_options_of_both_levels_are_set_by_their_place() -> None:
    workflow = load_workflow("proton_transfer")
    levels = {"fidelities": "hf,pyscf"}
    settings = {"fidelities.0.options.basis": "sto-3g", "fidelities.1.options.xc": "b3lyp"}
    campaign = build_campaign(workflow, levels | settings)
    assert [dict(choice.options) for choice in campaign.fidelities] == [
        {"basis": "sto-3g"},
        {"xc": "b3lyp"},
    ]
    assert campaign.labeller == campaign.fidelities[1]
    for path in ("fidelities.2.options.xc", "fidelities.x.name", "fidelities.1", "name.x"):
        with pytest.raises(ConfigError, match=path):
            build_campaign(workflow, {**levels, path: "pbe"})


def test_a_setting_given_twice(workflow_file: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        built(workflow_file, "charge=0", "charge=1")


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("5", int, 5),
        ("5", str, "5"),
        ("[1]", str, "[1]"),
        ("a,b", list[str], ["a", "b"]),
        ("a", tuple[str, ...], ("a",)),
        ("1.5", float | None, 1.5),
        ("none", float | None, None),
        ("none", str, "none"),
        ("yes", bool, True),
        ("x.xyz", Path | None, Path("x.xyz")),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("b", Literal["a", "b"], "b"),
        ("3", Annotated[int, pydantic.Field(gt=2)], 3),
    ],
)
def test_values(text: str, annotation: object, value: object) -> None:
    read = parse_value(text, annotation, where="x")
    assert read == value and type(read) is type(value)


def test_a_missing_option_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "needs.py"
    path.write_text("def campaign(*, initial: str):\n    return initial\n")
    with pytest.raises(ConfigError, match=r"add --set initial=\.\.\."):
        built(path)
    with pytest.raises(ConfigError, match="returned str, expected"):
        built(path, "initial=a.xyz")


def test_files_that_are_no_workflow(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_workflow("workflows/catalisis.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has no function campaign"):
        load_workflow(str(tmp_path / "empty.py"))
    (tmp_path / "broken.py").write_text("x = 1\nimport no_such_module\n")
    with pytest.raises(ConfigError, match=r"\(line 2\).*no_such_module"):
        load_workflow(str(tmp_path / "broken.py"))
    (tmp_path / "syntax.py").write_text("x = 1\ndef campaign(:\n")
    with pytest.raises(ConfigError, match=r"\(line 2\): SyntaxError"):
        load_workflow(str(tmp_path / "syntax.py"))


def test_packaged_workflows_load_by_name_and_by_path() -> None:
    root = Path(__file__).resolve().parents[2]
    for name in packaged_workflows():
        by_name = load_workflow(name)
        by_path = load_workflow(str(root / "workflows" / f"{name}.py"))
        assert by_name.function is by_path.function, "a second copy would be a second module"
    with pytest.raises(ConfigError, match="no workflow is called"):
        load_workflow("no_such_workflow")
