"""The task that trains one member of a committee.

Payload: `frames` (frame file of every labelled structure of the generation), `training` and
`validation` (indices into it), `config` (`TaceConfig.to_dict`), `options` (fields of
`TrainingOptions`, `energy_weight` among them), `start` (checkpoint to go on from, or None),
`metadata` (written into the checkpoint). `trunk` (optional: `head`, `training`, `validation`,
`epochs`, `learning_rate`) is what a model without a `start` is trained on first, with that head
alone; the other heads of `config` then begin as copies of it. Returns the file, the errors on the
validation frames and a short history.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from tace_al.data.frames import read_frames
from tace_al.model.checkpoint import load, save
from tace_al.model.config import TaceConfig
from tace_al.model.evaluation import evaluate
from tace_al.model.loss import LossWeights
from tace_al.model.tace import Tace
from tace_al.model.trainer import TrainingOptions, train

MODEL_FILE = "model.tace"


def run(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train a member and write its checkpoint to `folder`."""
    frames = read_frames(Path(payload["frames"]))
    training = [frames[index] for index in payload["training"]]
    validation = [frames[index] for index in payload["validation"]]
    settings = dict(payload["options"])
    weights = LossWeights(energy=settings.pop("energy_weight"))
    config = TaceConfig.from_dict(payload["config"])
    options = TrainingOptions(weights=weights, device=payload.get("device", "cpu"), **settings)
    start = load(payload["start"]) if payload["start"] else None
    if start is None and "trunk" in payload:
        start = trained_trunk(frames, payload["trunk"], config=config, options=options)
    result = train(training, validation, config=config, options=options, start=start)
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


def trained_trunk(
    frames: Sequence[Atoms],
    lessons: dict[str, Any],
    *,
    config: TaceConfig,
    options: TrainingOptions,
) -> Tace:
    """Return the model with one head, trained on the frames of that level."""
    result = train(
        [frames[index] for index in lessons["training"]],
        [frames[index] for index in lessons["validation"]],
        config=replace(config, heads=(lessons["head"],)),
        options=replace(options, epochs=lessons["epochs"], learning_rate=lessons["learning_rate"]),
    )
    return result.model
