import pytest

from tace_al.core.errors import ConfigError
from tace_al.dispatch.machine import Machine, SlurmSettings, machine_from_name, usable_cores

SLURM = {"cores_per_node": 16, "workers_per_node": 8, "address": "login1"}


def test_local_machine_uses_every_usable_core() -> None:
    machine = machine_from_name("local")
    assert machine.executor == "processes"
    assert machine.capacity == usable_cores()
    assert machine.threads_per_worker == 1


def test_overrides_and_frozen() -> None:
    machine = machine_from_name("threads", workers=3)
    assert machine.capacity == 3
    with pytest.raises(ValueError, match="frozen"):
        machine.workers = 4  # type: ignore[misc]


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'lokal'.*Did you mean 'local'"):
        machine_from_name("lokal")
    with pytest.raises(ConfigError, match=r"no field 'worker'.*Did you mean 'workers'"):
        machine_from_name("local", worker=2)
    with pytest.raises(ConfigError, match=r"slurm.patition.*Did you mean 'partition'"):
        machine_from_name("slurm", slurm=SLURM | {"patition": "gpu"})


def test_bad_values_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="workers"):
        machine_from_name("local", workers=0)
    with pytest.raises(ConfigError, match="`slurm` is missing"):
        machine_from_name("slurm")
    with pytest.raises(ConfigError, match="`slurm` is given"):
        machine_from_name("local", slurm=SLURM)


def test_slurm_times_and_capacity() -> None:
    machine = machine_from_name("slurm", slurm=SLURM | {"nodes_per_block": 2, "max_blocks": 5})
    assert machine.capacity == 2 * 5 * 8
    assert machine.slurm is not None
    assert machine.slurm.drain_period_s == 4 * 3600 - 120 - 1800


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"walltime": "30m"}, "HH:MM:SS"),
        ({"walltime": "00:20:00"}, "no time for work"),
        ({"workers_per_node": 32}, "at least one core"),
        ({"gpus_per_node": 3}, "multiple"),
        ({"min_blocks": 2}, "exceeds"),
        ({"device": "cuda"}, "ask Slurm for the GPUs"),
        ({"heartbeat_threshold_s": 20}, "one late heartbeat"),
        ({"scheduler_options": "--mem=9G"}, "'--mem=9G' is no option.*write '#SBATCH"),
        ({"scheduler_options": "#SBATCH --comment='x"}, "No closing quotation"),
        ({"worker_init": True}, "valid string, got True"),
    ],
)
def test_slurm_settings_that_cannot_work_are_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        machine_from_name("slurm", slurm=SLURM | change)


def test_a_machine_survives_dumping() -> None:
    machine = machine_from_name("slurm", slurm=SLURM)
    assert Machine.model_validate(machine.model_dump()) == machine
    assert isinstance(machine.slurm, SlurmSettings)
