"""`tace-al doctor` in this process: all well, and each thing that can be missing."""

import sys
from pathlib import Path

import pytest
import yaml

from tace_al.model.kernels import library

STAGES = (
    "disk",
    "kernels",
    "cuda",
    "import",
    "store",
    "scheduler",
    "dispatch",
    "label",
    "train",
    "dynamics",
    "report",
)
BROKEN = """
from ase.calculators.calculator import Calculator

class Broken(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, *arguments, **options):
        raise RuntimeError("the licence server is away")

class Absent(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, *arguments, **options):
        import a_package_that_nobody_has
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, on the embedded database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TACE_AL_MONGO_URI", raising=False)


def states(text: str) -> dict[str, str]:
    """Return the state of each stage from the printed table."""
    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    return {row[1]: row[2] for row in rows if len(row) > 3 and row[1] in STAGES}


def words(text: str) -> str:
    """Return what the printed table says, without its lines and their breaks."""
    return " ".join(text.replace("│", " ").split())


def with_labeller(name: str) -> Path:
    """Write a campaign of one water molecule for a labeller."""
    water = {
        "symbols": ["O", "H", "H"],
        "positions": [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]],
    }
    content = {
        "name": "water",
        "structures": [{"name": "water", "starts": [water]}],
        "labeller": {"name": name},
        "machine": "threads",
        "model": {"options": {"channels": 8, "radial_hidden": [16]}},
    }
    path = Path("campaign.yaml")
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_all_is_well_and_nothing_is_left(tace_al, tmp_path: Path) -> None:
    outcome = tace_al("doctor", with_labeller("gfn2"))
    assert outcome.code == 0, outcome.out + outcome.err
    found = states(outcome.out)
    assert tuple(found) == STAGES
    assert set(found.values()) <= {"ok", "note"}
    assert {found[stage] for stage in STAGES[3:]} == {"ok"}
    assert "Everything a campaign needs works here" in outcome.out
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_labeller_that_fails_is_named_and_what_needs_it_is_skipped(
    tace_al, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_labels.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    outcome = tace_al("doctor", with_labeller("broken_labels:Broken"))
    assert outcome.code == 2
    found = states(outcome.out)
    assert (found["dispatch"], found["label"]) == ("ok", "failed")
    assert {found[stage] for stage in ("train", "dynamics", "report")} == {"skipped"}
    assert "the licence server is away" in words(outcome.out)
    (kept,) = (tmp_path / "runs").iterdir()  # for a look
    assert kept.name in outcome.out.replace("\n", "")


@pytest.mark.slow
def test_a_missing_package_says_what_to_install(
    tace_al, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent_labels.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    outcome = tace_al("doctor", with_labeller("absent_labels:Absent"))
    assert outcome.code == 2 and states(outcome.out)["label"] == "failed"
    assert "a_package_that_nobody_has" in outcome.out
    sys.modules.pop("absent_labels", None)


@pytest.mark.slow
def test_no_compiler_is_a_remark_and_no_database_a_failure(
    tace_al, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError("no C++ compiler found")

    monkeypatch.setattr(library, "load", refuse)
    uri = "mongodb://ann:secret@127.0.0.1:1/db"
    outcome = tace_al("doctor", with_labeller("gfn2"), "--db", uri)
    found = states(outcome.out)
    assert outcome.code == 2
    assert (found["kernels"], found["store"], found["report"]) == ("note", "failed", "skipped")
    assert found["dynamics"] == "ok"  # does not need it
    assert "g++" in outcome.out and "secret" not in outcome.out


def test_a_cluster_without_slurm_fails_at_the_scheduler(
    tace_al, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    Path("emerald.yaml").write_text(
        "slurm: {address: login1, cores_per_node: 4, workers_per_node: 4, partition: cpu}\n"
    )
    outcome = tace_al("doctor", "--machine", "emerald.yaml")
    found = states(outcome.out)
    assert outcome.code == 2
    assert (found["store"], found["scheduler"], found["dispatch"]) == ("ok", "failed", "skipped")
    assert "no Slurm to send work to" in " ".join(outcome.out.split())


def test_a_folder_that_cannot_be_written_fails_at_the_disk(tace_al, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    outcome = tace_al("doctor", with_labeller("gfn2"))
    found = states(outcome.out)
    assert outcome.code == 2
    assert (found["disk"], found["store"], found["dispatch"]) == ("failed", "skipped", "skipped")
    assert "cannot be written" in " ".join(outcome.out.split())


@pytest.mark.slow
def test_lines_before_the_workers_that_fail_are_mentioned(tace_al, tmp_path: Path) -> None:
    Path("desk.yaml").write_text("worker_init: source /nowhere/bin/activate\nworkers: 1\n")
    (tmp_path / "broken_labels.py").write_text(BROKEN)
    campaign = with_labeller("broken_labels:Broken")  # the shortest way to the end
    outcome = tace_al("doctor", campaign, "--machine", "desk.yaml")
    text = words(outcome.out)
    assert states(outcome.out)["dispatch"] == "note", outcome.out + outcome.err
    assert "/nowhere/bin/activate: No such file" in text and "worker_init of the machine" in text


def test_wrong_machines_are_one_sentence(tace_al) -> None:
    outcome = tace_al("doctor", "--machine", "emrald.yaml")
    assert outcome.code == 2 and "no machine file emrald.yaml" in outcome.err
