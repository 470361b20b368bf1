from pathlib import Path

import pytest

from tace_al.core.errors import ConfigError
from tace_al.dispatch.machine import Machine, machine_from_name

CLUSTER = """
worker_init: module load python
slurm:
  account: chem
  address: login1
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
  worker_init: module load cuda
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's folder of machines."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    machines = tmp_path / "tace-al" / "machines"
    machines.mkdir(parents=True)
    return machines


def test_a_machine_is_named_by_its_file_or_its_name(folder: Path) -> None:
    (folder / "emerald.yaml").write_text(CLUSTER)
    machine = machine_from_name("emerald")
    assert machine == machine_from_name(str(folder / "emerald.yaml"))
    assert (machine.name, machine.executor) == ("emerald", "slurm")
    assert Machine.model_validate("emerald") == machine
    with pytest.raises(ConfigError, match=r"'emrald'.*Did you mean 'emerald'"):
        machine_from_name("emrald")


def test_two_kinds_of_block_share_what_the_second_does_not_say(folder: Path) -> None:
    (folder / "emerald.yaml").write_text(CLUSTER)
    machine = machine_from_name("emerald")
    assert machine.models is not None
    assert (machine.models.account, machine.models.address) == ("chem", "login1")
    assert machine.models.walltime == "04:00:00"  # its own
    assert [machine.block_of(kind) for kind in ("label", "relax", "train", "langevin")] == [
        "labels",
        "labels",
        "models",
        "models",
    ]
    assert (machine.workers_in("labels"), machine.workers_in("models")) == (64, 4)
    assert machine.capacity == 68
    assert Machine.model_validate(machine.model_dump(mode="json")) == machine


def test_toml_and_a_machine_called_slurm(folder: Path) -> None:
    (folder / "slurm.toml").write_text(
        "[slurm]\naddress = 'login1'\ncores_per_node = 8\nworkers_per_node = 8\n"
    )
    assert machine_from_name("slurm").capacity == 8
    (folder / "desk.toml").write_text("workers = 3\n")
    desk = machine_from_name("desk")
    assert (desk.executor, desk.workers, desk.block_of("train")) == ("processes", 3, "labels")
    assert machine_from_name("desk", workers=2).workers == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLUSTER.replace("account", "acount"), r"slurm.acount.*Did you mean 'account'"),
        (CLUSTER.replace("gpus_per", "gpu_per"), r"models.gpu_per_node.*mean 'gpus_per_node'"),
        (CLUSTER.replace("models:", "model:"), r"no field 'model'.*Did you mean 'models'"),
        ("- a list", "holds no machine"),
        ("slurm: [", "cannot be read"),
        ("models: {address: a, cores_per_node: 1, workers_per_node: 1}", "give `slurm` settings"),
        (CLUSTER.replace("  address: login1\n", ""), "slurm.address"),
    ],
)
def test_a_wrong_file_is_one_sentence(folder: Path, text: str, message: str) -> None:
    (folder / "emerald.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        machine_from_name("emerald")


def test_a_missing_file_names_the_folder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"no machine file nowhere.yaml.*{folder}"):
        machine_from_name("nowhere.yaml")
