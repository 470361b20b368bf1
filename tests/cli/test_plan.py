"""`tace-al plan`: counts, places and budget of a campaign that is never started."""

from pathlib import Path

import pytest
import yaml

from tace_al.cli.workflow_file import load_workflow

CLUSTER = """
slurm:
  account: chem
  address: localhost
  partition: cpu
  cores_per_node: 32
  workers_per_node: 16
  max_blocks: 4
  walltime: "02:00:00"
models:
  partition: gpu
  cores_per_node: 16
  workers_per_node: 4
  gpus_per_node: 4
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, on the embedded database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TACE_AL_MONGO_URI", raising=False)


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of every table row by the first one."""
    found: dict[str, list[str]] = {}
    first = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if not cells:
            continue
        first = cells[0] or first  # a folded row goes on below
        kept = found.setdefault(first, [""] * len(cells))
        found[first] = [f"{a} {b}".strip() for a, b in zip(kept, cells, strict=False)]
    return found


def test_a_laptop_runs_everything_in_one_pool(tace_al, tmp_path: Path) -> None:
    outcome = tace_al("plan", "catalysis", "--machine", "threads")
    assert outcome.code == 0, outcome.out + outcome.err
    found = rows(outcome.out)
    assert found["relax"][2:4] == ["4 at the start", "threads"]
    assert found["train"][2] == "4 a generation" and "60 s" in found["train"][4]
    assert found["band"][2] == "2 a generation"
    assert found["cost of a label"][1] == "gfn2: unknown until the first label"
    assert found["labels"][1] == "at most 300"
    assert "free" in found["disk"][1]
    assert list(tmp_path.iterdir()) == []  # nothing was made


def test_a_cluster_has_two_kinds_of_block(
    tace_al, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm here
    Path("emerald.yaml").write_text(CLUSTER)
    outcome = tace_al("plan", "catalysis", "--set", "machine=emerald.yaml")
    assert outcome.code == 0, outcome.out + outcome.err
    found = rows(outcome.out)
    for kind, where in (("relax", "labels (cpu)"), ("label", "labels (cpu)")):
        assert found[kind][3] == where
    for kind in ("train", "langevin", "band", "assess"):
        assert found[kind][3] == "models (gpu)"
    assert found["models"][1] == "4" and "4 GPUs" in found["models"][2]
    assert "no new task after" in found["models"][4]
    assert "Not checked with Slurm: this computer has no sbatch" in outcome.out


def test_a_partition_that_does_not_exist_is_said_before_anything_starts(
    tace_al, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        (programs / name).write_text("#!/bin/sh\nprintf 'normal|infinite\\ngpu|infinite\\n'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/bin:/usr/bin")
    Path("emerald.yaml").write_text(CLUSTER.replace("partition: cpu", "partition: nomal"))
    for command in ("plan", "run"):
        outcome = tace_al(command, "catalysis", "--machine", "emerald.yaml")
        assert outcome.code == 2
        assert "no partition 'nomal'. Did you mean 'normal'?" in outcome.err
        assert "Traceback" not in outcome.err
    assert not Path("runs").exists()
    Path("emerald.yaml").write_text(CLUSTER.replace("partition: cpu", "partition: normal"))
    outcome = tace_al("plan", "catalysis", "--machine", "emerald.yaml")
    assert outcome.code == 0 and "none was submitted" in outcome.out


def test_costs_are_measured_where_the_campaign_has_begun(
    tace_al, recorded_campaign: Path, tmp_path: Path
) -> None:
    water = {"symbols": ["O", "H", "H"], "positions": [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]]}
    content = {
        "name": "water",
        "structures": [{"name": "stretch", "starts": [water], "relax": False}],
        "machine": "threads",
    }
    Path("campaign.yaml").write_text(yaml.safe_dump(content))
    outcome = tace_al("plan", "campaign.yaml", "--dir", recorded_campaign)
    assert outcome.code == 0, outcome.out + outcome.err
    found = rows(outcome.out)
    assert "relax" not in found and "band" not in found
    assert found["label"][4] == "3 s measured"
    assert (
        "gfn2: 0.00" in found["cost of a label"][1] or "gfn2: 0.01" in found["cost of a label"][1]
    )
    assert "made" in found["labels"][1]
    assert "of one worker" in found["labels still to make"][1]


def test_wrong_options_are_as_in_run(tace_al) -> None:
    assert load_workflow("catalysis").options
    outcome = tace_al("plan", "catalysis", "--set", "labler=emt")
    assert outcome.code == 2 and "Did you mean 'labeller'?" in outcome.err
