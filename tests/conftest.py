"""What every test relies on: one thread, no display, plain text; and a campaign to read from.

Thread counts are set before anything imports numpy or torch; two threads on a busy two-core machine
are tens of times slower than one.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tace_al.store.store import Store

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["NO_COLOR"] = "1"  # the command line's text is compared
os.environ["TERMINAL_WIDTH"] = os.environ["COLUMNS"] = "120"
os.environ.pop("FORCE_COLOR", None)
# Processes that share the tests out ignore Ctrl-C, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = ("campaign", "slurm", "workflows", "test_examples.py", "test_trainer_outputs.py")
"""Folders and files that begin, so that no process is left alone with one of them in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: files are shared out among processes in this order."""
    items.sort(key=lambda item: not set(LONGEST).intersection(item.path.parts))


@pytest.fixture(scope="session")
def recorded_campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a small campaign that the Store remembers: read it, never change it.

    Six labelled water molecules (one calibration, five training), one failed label, one flagged
    candidate, and two generations of two models, the second grown from the first.
    """
    from tace_al.store.store import Store

    folder = tmp_path_factory.mktemp("campaign") / "water"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TACE_AL_MONGO_URI", raising=False)
        with Store.open(folder) as store:
            record_campaign(store)
            yield folder


def record_campaign(store: "Store") -> None:
    """Fill a Store as a campaign would."""
    import numpy as np
    from ase.build import molecule

    from tace_al.core.labels import Fidelity, Label

    config = {"reactions": [{"name": "stretch", "reference_barrier": 0.5}], "seed": 4}
    store.start_campaign("water", config, seed=4, code_version="0.1.0")
    fidelity = Fidelity(name="gfn2", code="tblite 0.8", settings={"accuracy": 1.0})
    store.add_fidelity(fidelity)
    rng = np.random.default_rng(4)
    labels = []
    for number in range(8):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.05, (3, 3))
        key = store.add_structure(atoms, channel="stretch", origin={"kind": "md", "step": number})
        kind, state = ("seed", "labelled") if number < 4 else ("uncertain", "flagged")
        store.add_candidate(
            key, kind=kind, channel="stretch", generation=0, uncertainty=0.3, state=state
        )
        if number < 6:
            label = Label(
                structure_key=key,
                fidelity_key=fidelity.key,
                energy=-138.0 + 0.1 * number,
                forces=rng.normal(0.0, 0.5, (3, 3)),
                seconds=0.01,
            )
            role = "calibration" if number == 5 else "train"
            store.add_label(label, fidelity_name="gfn2", role=role, generation=0, worker="node:1")
            labels.append(label.key)
        if number == 6:
            store.add_failure(
                key, fidelity, kind="convergence", message="no convergence", generation=1
            )
    parents: list[str] = []
    for number in range(2):
        parents = record_generation(store, number, labels[: 3 + 2 * number], parents)
    barrier = store.generation(1).barriers["stretch"]
    store.finish_campaign(
        "finished",
        {"barriers": {"stretch": barrier}, "labels": 6, "reason": "converged", "seconds": 12.0},
    )


def record_generation(
    store: "Store",
    number: int,
    labels: list[str],
    parents: list[str],
) -> list[str]:
    """Add two models and their generation; return the models' keys."""
    training_set = store.add_training_set(labels)
    keys = [f"{number}{member}" + "ab" * 15 for member in range(2)]
    for member, key in enumerate(keys):
        store.add_model(
            key,
            generation=number,
            member=member,
            path=f"models/{key}.tace",
            parents=parents[member : member + 1],
            training_set=training_set,
            seed=40 + member,
            config={"channels": 8},
            code_version="0.1.0",
            metrics={"force_rmse": 50.0},
            preset="tiny",
            num_parameters=1000,
        )
    store.add_generation(
        number,
        state="serving" if number else "retired",
        models=keys,
        scale=1.5,
        coverage=0.88,
        target_coverage=0.9,
        num_calibration=1,
        errors={"force_rmse": 80.0, "force_mae": 60.0, "energy_rmse": 3.0, "energy_mae": 2.0},
        barriers={
            "stretch": {
                "barrier": 0.52 - 0.01 * number,
                "error_bar": 0.02,
                "reverse": 0.6,
                "members": [0.5, 0.54],
                "coordinate": [0.0, 1.0, 2.0],
                "energies": [0.0, 0.52, -0.1],
                "band": [0.0, 0.02, 0.01],
                "saddle_label": 0.53,
                "converged": True,
                "labels": len(labels),
            }
        },
        num_labels=len(labels),
    )
    store.log("calibration", "fitted", generation=number, spread=[0.1, 0.2], error=[0.12, 0.5])
    times = {"started": 10.0 * number, "ended": 10.0 * number + 3.0}
    store.log("task", "label", task_kind="label", key="0", worker="node:1", ok=True, **times)
    return keys
