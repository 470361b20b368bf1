"""The task that trains one member of a committee.

Payload: `frames` (frame file of every labelled structure of the generation), `training` and
`validation` (indices into it), `config` (`TaceConfig.to_dict`), `options` (fields of
`TrainingOptions`, `energy_weight` among them), `start` (checkpoint to go on from, or None),
`metadata` (written into the checkpoint). Returns the file, the errors on the validation frames and
a short history.
"""

import math
from pathlib import Path
from typing import Any

from tace_al.data.frames import read_frames
from tace_al.model.checkpoint import load, save
from tace_al.model.config import TaceConfig
from tace_al.model.evaluation import evaluate
from tace_al.model.loss import LossWeights
from tace_al.model.trainer import TrainingOptions, train

MODEL_FILE = "model.tace"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a member and write its checkpoint to `folder`."""
    frames = read_frames(Path(payload["frames"]))
    training = [frames[index] for index in payload["training"]]
    validation = [frames[index] for index in payload["validation"]]
    settings = dict(payload["options"])
    weights = LossWeights(energy=settings.pop("energy_weight"))
    start = load(payload["start"]) if payload["start"] else None
    result = train(
        training,
        validation,
        config=TaceConfig.from_dict(payload["config"]),
        options=TrainingOptions(weights=weights, **settings),
        start=start,
    )
    result.model.metadata = dict(payload["metadata"])
    save(result.model, folder / MODEL_FILE)
    metrics = evaluate(result.model, validation or training).to_dict()
    last = result.history[-1]
    return {
        "model_file": MODEL_FILE,
        "num_parameters": result.model.num_parameters,
        "metrics": metrics,
        "epochs": last.epoch,
        "stopped": result.stopped,
        "training_loss": last.training_loss if math.isfinite(last.training_loss) else None,
        "seconds": last.seconds,
    }
