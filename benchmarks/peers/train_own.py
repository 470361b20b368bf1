"""Train by the command `tace-al train FILE --time-limit T --out MODEL`, and judge the model.

    python -m benchmarks.peers.train_own JOB

The command runs in this process, so that the errors it reports after every epoch can be kept; no
option is given but the time (and the seed where it is not the default).
"""

import sys
import time
from pathlib import Path
from typing import Any

from ase.io import read

from benchmarks.peers.peer_training import errors
from benchmarks.peers.training_job import TrainingJob
from tace_al.cli.main import app
from tace_al.model import trainer
from tace_al.model.calculator import TaceCalculator
from tace_al.model.checkpoint import load


def main() -> None:
    """Train and write the result."""
    job = TrainingJob.load(Path(sys.argv[1]))
    job.start()
    history: list[trainer.EpochReport] = []
    record(history)
    model_path = Path(job.result).with_suffix(".tace")
    arguments = ["train", job.whole, "--time-limit", f"{job.seconds:g}s", "--out", str(model_path)]
    if job.seed:
        arguments += ["--seed", str(job.seed)]
    used = time.process_time()
    app(arguments, standalone_mode=False)
    used = time.process_time() - used
    calculator = TaceCalculator(load(model_path))
    found: dict[str, dict[str, float]] = {}
    for name, path in job.judged.items():
        frames = read(path, ":")
        predictions = []
        for atoms in frames:
            calculator.calculate(atoms, ["energy", "forces"])
            predictions.append((calculator.results["energy"], calculator.results["forces"]))
        found[name] = dict(zip(("forces", "energy"), errors(predictions, frames), strict=True))
    job.finish(
        {
            "parameters": calculator.model.num_parameters,
            "processor_seconds": used,
            "command": "tace-al " + " ".join(arguments[:1] + arguments[2:4]),
            "epochs": history[-1].epoch,
            "curve": [
                {"seconds": report.seconds, "epoch": report.epoch, **report.validation_errors}
                for before, report in zip([None, *history], history, strict=False)
                # between two validations the errors of the last one are reported again
                if before is None or report.validation_errors != before.validation_errors
            ],
            "errors": found,
        }
    )


def record(history: list[trainer.EpochReport]) -> None:
    """Keep what the training loop reports to the command after every epoch."""
    train = trainer.train

    def recorded(*arguments: Any, **options: Any) -> trainer.TrainingResult:
        shown = options.pop("on_epoch")

        def both(report: trainer.EpochReport) -> None:
            history.append(report)
            shown(report)

        return train(*arguments, on_epoch=both, **options)

    trainer.train = recorded


if __name__ == "__main__":
    main()
