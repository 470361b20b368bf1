"""One training run of one engine, written down for the process that does it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob:
    """What to train on, for how long, and what to judge the result on.

    Parameters
    ----------
    whole
        File of all frames that may be used, isolated atoms among them.
    train, validation
        The same frames, split as `tace-al train` splits them.
    judged
        Files of frames that no engine has seen, by name.
    seconds
        Time by the clock.
    validate_every
        Epochs between looks at the validation frames, as our training counts them.
    learning_rates
        Peak rates of other codes by their engine, in place of their own.
    seed
        Of weights and order of batches.
    core
        Processor core to stay on.
    result
        File to write: curve of held-out errors and errors of the judged frames.
    """

    whole: str
    train: str
    validation: str
    judged: Mapping[str, str]
    seconds: float
    validate_every: int
    learning_rates: Mapping[str, float]
    seed: int
    core: int
    result: str

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "TrainingJob":
        """Return the job of a file."""
        return cls(**json.loads(path.read_text()))

    def start(self) -> None:
        """Stay on one core with one thread."""
        import torch

        if self.core >= 0 and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self.core})
        torch.set_num_threads(1)

    def finish(self, content: Mapping[str, Any]) -> None:
        """Write the result."""
        Path(self.result).write_text(json.dumps(content))
