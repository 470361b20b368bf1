"""Train another code's network for a given time and judge it.

    python -m benchmarks.peers.train_peer MODULE JOB

Run by the Python of the code's environment; MODULE is its engine (`benchmarks.peers.mace_engine`),
JOB a file of `benchmarks.peers.training_job`.
"""

import importlib
import sys
import time
from dataclasses import asdict
from pathlib import Path

from ase.io import read

from benchmarks.peers.peer_training import errors, fit
from benchmarks.peers.training_job import TrainingJob


def main() -> None:
    """Train and write the result."""
    job = TrainingJob.load(Path(sys.argv[2]))
    job.start()
    engine = importlib.import_module(sys.argv[1])
    frames, held_out = read(job.train, ":"), read(job.validation, ":")
    began, used = time.monotonic(), time.process_time()
    isolated = [atoms for atoms in frames if len(atoms) == 1]
    bonded = [atoms for atoms in frames if len(atoms) > 1]
    trainable = engine.TRAINING(isolated, bonded, seed=job.seed)
    name = sys.argv[1].rpartition(".")[2].removesuffix("_engine")
    trainable.learning_rate = job.learning_rates.get(name, trainable.learning_rate)
    history = fit(
        trainable,
        len(bonded),
        held_out,
        seconds=job.seconds,
        started=began,
        validate_every=job.validate_every,
        seed=job.seed,
    )
    used = time.process_time() - used
    judged = {name: read(path, ":") for name, path in job.judged.items()}
    job.finish(
        {
            "parameters": sum(p.numel() for p in trainable.network.parameters()),
            "processor_seconds": used,
            "learning_rate": trainable.learning_rate,
            "epochs": history[-1].epoch,
            "curve": [asdict(point) for point in history],
            "errors": {
                name: dict(
                    zip(("forces", "energy"), errors(trainable.predict(some), some), strict=True)
                )
                for name, some in judged.items()
            },
        }
    )


if __name__ == "__main__":
    main()
