"""Training: Muon with warm-up and cosine decay, clipped gradients and averaged weights.

The schedule follows progress, the larger of epochs done and time used, so that a run with a time
limit ends with the learning rate low. The averaged weights are validated every few epochs and
the best are kept. A step that is not finite or an epoch that diverges goes back to the best
weights with half the rate.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from tace_al.core.errors import ConfigError, TrainingError, nearest_names
from tace_al.core.random_generators import random_generator
from tace_al.model.config import TaceConfig
from tace_al.model.heads import trainable_parameters
from tace_al.model.labelled_batch import LabelledBatch, batches
from tace_al.model.loss import LossWeights, balanced, mean_squares, training_loss, weighted_sum
from tace_al.model.moving_average import MovingAverage
from tace_al.model.muon import Muon, is_matrix
from tace_al.model.outputs import TaceOutput
from tace_al.model.preparation import labelled_parts, prepare_model
from tace_al.model.tace import Tace

logger = logging.getLogger(__name__)

Optimizer = Literal["muon", "adam"]

LEARNING_RATE = 0.004
"""Of matrices of size one; at higher rates weights grow over long runs, and with them what a model
makes of structures beyond its data (docs/decisions/0012)."""
ADAM_BETAS = (0.9, 0.99)
VALIDATION_SHARE = 0.02
"""Of the time of training, at most; less often than every tenth epoch nothing is validated."""
VALIDATION_COST = 0.3
"""Energy and forces of a structure, in units of a training step on it."""
DIVERGED = 100.0
"""A validation loss this many times the best one counts as divergence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """How to train.

    Parameters
    ----------
    epochs
        Passes over the training set, at most.
    time_limit_s
        Seconds, at most; the schedule adapts.
    batch_size
        Structures a step.
    optimizer
        "muon" (`tace_al.model.muon`), with Adam for what is no matrix, or "adam" for all.
    learning_rate
        Peak rate: about what a weight, of size one, changes in a step.
    final_rate
        Rate at the end, as a share of the peak.
    warmup
        Share of the run over which the rate rises.
    weights
        Weights of the loss.
    energy_gain
        Over the second half of the run the energy weight grows by this factor: forces shape the
        surface first, then energy differences between distant structures, such as barriers, settle.
    average_decay
        d of the moving average.
    clip_norm
        Largest gradient norm.
    patience
        Epochs without a better validation loss after which training stops; 0 never stops.
    keep_last
        Keep the last averaged weights that did not diverge, not those with the best validation
        loss: right where the held-out frames are few and older than what is to be learnt.
    frozen
        Heads, and "trunk" for all they share, whose weights stay as they are.
    seed
        Initial weights and order of batches.
    device
        "cpu" or "cuda".
    """

    epochs: int = 200
    time_limit_s: float = math.inf
    batch_size: int = 5
    optimizer: Optimizer = "muon"
    learning_rate: float = LEARNING_RATE
    final_rate: float = 0.01
    warmup: float = 0.02
    weights: LossWeights = field(default_factory=LossWeights)
    energy_gain: float = 3.0
    average_decay: float = 0.99
    clip_norm: float = 10.0
    patience: int = 0
    keep_last: bool = False
    frozen: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """State after one epoch: losses, rate, and progress from 0 to 1.

    `validation_errors` holds root mean square errors on the held-out structures by output, each in
    the unit of its weight (`tace_al.model.loss`); nothing is in it where none are held out.
    """

    epoch: int
    training_loss: float
    validation_loss: float
    learning_rate: float
    progress: float
    seconds: float
    validation_errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """The best model and how it got there.

    `stopped` is "epochs", "time", "patience", "diverged" or "interrupted" (Ctrl-C after one good
    epoch: the best weights so far are kept).
    """

    model: Tace
    history: list[EpochReport]
    stopped: str


def train(
    frames: Sequence[Atoms],
    validation: Sequence[Atoms],
    *,
    config: TaceConfig,
    options: TrainingOptions,
    start: Tace | None = None,
    on_epoch: Callable[[EpochReport], Any] | None = None,
) -> TrainingResult:
    """Train a model.

    Parameters
    ----------
    frames
        Labelled training frames (`tace_al.model.labelled_batch`); isolated atoms fix E0.
    validation
        Frames that choose the best epoch; the training loss chooses where there are none.
    config
        Shape of the network; `average_neighbours` is measured here.
    options
        See `TrainingOptions`.
    start
        Warm start: weights, E0, scale and shift are taken from this model; heads that `config` has
        and it has not are added, and their constants fitted.
    on_epoch
        Called after every epoch.

    Raises
    ------
    TrainingError
        There is nothing to train on, or training diverged before one good epoch.
    """
    started = time.monotonic()
    model = prepare_model(frames, config=config, seed=options.seed, start=start)
    model = model.to(options.device).train()
    parts = labelled_parts(frames, model.config)
    held_out = labelled_parts(validation, model.config)
    _check_labels(frames, parts, options.weights)
    run = _Run(model, options, balanced(options.weights, parts), held_out, started)
    if start is not None and held_out and not options.keep_last:
        run.best_loss = run.validate()  # a warm start is kept until something beats it
    interval = 1 if options.patience else validation_interval(len(parts), len(held_out))
    history: list[EpochReport] = []
    stopped = ""
    for epoch in range(options.epochs):
        try:
            loss = run.epoch(parts, epoch)
        except KeyboardInterrupt:
            if run.best_epoch < 0:
                raise
            stopped = "interrupted"
            break
        run.judge(loss, epoch, interval)
        history.append(run.report(epoch, loss))
        if on_epoch is not None:
            on_epoch(history[-1])
        stopped = run.stop_reason(epoch)
        if stopped:
            break
    return TrainingResult(model=run.finish(), history=history, stopped=stopped or "epochs")


def validation_interval(num_training: int, num_held_out: int) -> int:
    """Return the epochs between validations that keep to `VALIDATION_SHARE`, at most ten.

    Counts decide, not a clock: one seed is one model.
    """
    share = VALIDATION_COST * num_held_out / num_training
    return min(max(math.ceil(share / VALIDATION_SHARE), 1), 10)


def make_optimizers(
    parameters: Sequence[torch.nn.Parameter], options: TrainingOptions
) -> list[torch.optim.Optimizer]:
    """Return Muon for matrices, if it is chosen, and Adam for the other parameters."""
    muon = options.optimizer == "muon"
    matrices = [parameter for parameter in parameters if muon and is_matrix(parameter)]
    others = [parameter for parameter in parameters if not (muon and is_matrix(parameter))]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=options.learning_rate))
    if others:
        optimizers.append(
            torch.optim.Adam(others, lr=options.learning_rate, betas=ADAM_BETAS, fused=True)
        )
    return optimizers


def _check_labels(
    frames: Sequence[Atoms], parts: Sequence[LabelledBatch], weights: LossWeights
) -> None:
    """Refuse a training set to learn nothing from, and weights of outputs the model has not."""
    if not parts:
        raise TrainingError("no training frame has more than one atom; add labelled structures")
    if not any(part.targets for part in parts):
        names = {str(name) for atoms in frames for name in (*atoms.info, *atoms.arrays)}
        others = sorted(name for name in names if name.startswith("REF_"))
        if others:
            raise TrainingError(
                f"the frames have {', '.join(others)}, of which the network has no output; declare "
                "it in `outputs`, or use the electric_field embedding or charges"
            )
        raise TrainingError(
            "no training frame has a label such as REF_energy or REF_forces; name the file's keys "
            "with --energy-key and --forces-key"
        )
    known = parts[0].shapes
    for name in weights.others:
        if name not in known:
            raise ConfigError(
                f"there is no output '{name}' to weigh in the loss.{nearest_names(name, known)}"
            )


def _root_mean_squares(
    batch_squares: Sequence[tuple[Mapping[str, Tensor], int]],
) -> dict[str, float]:
    """Return errors by output from the mean squares and sizes of batches, some without a label."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for squares, count in batch_squares:
        for name, square in squares.items():
            sums[name] = sums.get(name, 0.0) + count * square.item()
            counts[name] = counts.get(name, 0) + count
    return {name: math.sqrt(total / counts[name]) for name, total in sums.items()}


@final
class _Run:
    """The moving parts of one training run."""

    def __init__(
        self,
        model: Tace,
        options: TrainingOptions,
        weights: LossWeights,
        held_out: Sequence[LabelledBatch],
        started: float,
    ) -> None:
        self.model, self.options, self.weights = model, options, weights
        self.parameters = trainable_parameters(model, options.frozen)
        self.optimizers = make_optimizers(self.parameters, options)
        self.average = MovingAverage(self.parameters, options.average_decay)
        self.generator = random_generator(options.seed, "batches")
        self.best: list[Tensor] = [p.detach().clone() for p in self.parameters]
        self.best_loss, self.best_epoch = math.inf, -1
        self.validation_loss = math.inf
        self.rate, self.damping, self.failures = 0.0, 1.0, 0
        self.errors: dict[str, float] = {}
        self.held_out, self.started = held_out, started

    def elapsed(self) -> float:
        """Return seconds since the start."""
        return time.monotonic() - self.started

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit is reached."""
        return self.elapsed() >= self.options.time_limit_s

    def progress(self, epochs: float) -> float:
        """Return how far the run is, 0 to 1, by epochs or by time, whichever is further."""
        return min(
            1.0, max(epochs / self.options.epochs, self.elapsed() / self.options.time_limit_s)
        )

    def epoch(self, parts: Sequence[LabelledBatch], epoch: int) -> float:
        """Take one pass; return the mean loss under the final weights, NaN if a step failed."""
        options = self.options
        losses = []
        num_steps = math.ceil(len(parts) / options.batch_size)
        shuffled = batches(
            parts, options.batch_size, generator=self.generator, device=options.device
        )
        for step, batch in enumerate(shuffled):
            progress = self.progress(epoch + step / num_steps)
            self._set_rate(progress)
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            output = self._output(batch, create_graph=True)
            squares = mean_squares(output, batch)
            loss = weighted_sum(squares, self._weights(progress)) + 0.0 * output.energy.sum()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, options.clip_norm)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                return math.nan
            for optimizer in self.optimizers:
                optimizer.step()
            self.average.update()
            with torch.no_grad():
                losses.append(float(weighted_sum(squares, self._weights(1.0))))
            if self.out_of_time:
                break
        return float(np.mean(losses))

    def validate(self) -> float:
        """Return the loss of the averaged weights on held-out structures."""
        self.average.swap()
        size = self.options.batch_size
        losses, counts, squares = [], [], []
        for batch in batches(self.held_out, size, device=self.options.device):
            output = self._output(batch, create_graph=False)
            losses.append(training_loss(output, batch, self._weights(1.0)).item())
            counts.append(batch.graph.num_systems)
            squares.append(mean_squares(output, batch))
        self.average.swap()
        self.errors = _root_mean_squares(list(zip(squares, counts, strict=True)))
        return float(np.average(losses, weights=counts))

    def judge(self, loss: float, epoch: int, interval: int) -> None:
        """Judge an epoch by what is held out, if that is due, or by its training loss."""
        due = epoch % interval == 0 or epoch + 1 == self.options.epochs or self.out_of_time
        if self.held_out and due and math.isfinite(loss):
            self.keep(self.validate(), epoch)
        elif not self.held_out or not math.isfinite(loss):
            self.keep(loss, epoch)

    def keep(self, loss: float, epoch: int) -> None:
        """Keep the averaged weights if they are the best so far, go back if they failed."""
        self.validation_loss = loss
        last = self.options.keep_last and loss < DIVERGED * self.best_loss
        if loss < self.best_loss or last:
            self.best_loss, self.best_epoch = min(loss, self.best_loss), epoch
            self.best = [value.clone() for value in self.average.average]
        elif not loss < DIVERGED * self.best_loss:  # NaN included
            self.failures += 1
            self.damping *= 0.5
            logger.warning("training diverged in epoch %d; back to the best weights", epoch + 1)
            self.average.reset(self.best)
            for optimizer in self.optimizers:
                optimizer.state.clear()

    def report(self, epoch: int, loss: float) -> EpochReport:
        """Return the state after an epoch; what is held out is judged as it was last."""
        return EpochReport(
            epoch=epoch + 1,
            training_loss=loss,
            validation_loss=self.validation_loss,
            learning_rate=self.rate,
            progress=self.progress(epoch + 1),
            seconds=self.elapsed(),
            validation_errors=dict(self.errors),
        )

    def stop_reason(self, epoch: int) -> str:
        """Return why to stop before the last epoch, or nothing."""
        options = self.options
        if self.failures > 3:
            return "diverged"
        if self.out_of_time:
            return "time"
        if options.patience and epoch - self.best_epoch >= options.patience:
            return "patience"
        return ""

    def finish(self) -> Tace:
        """Return the model with its best weights."""
        if not math.isfinite(self.best_loss):
            raise TrainingError(
                "training diverged before one good epoch; lower the learning rate or look for "
                "wrong units or overlapping atoms in the data"
            )
        self.average.reset(self.best)
        return self.model.eval()

    def _output(self, batch: LabelledBatch, *, create_graph: bool) -> TaceOutput:
        """Return what the model says of a batch."""
        return self.model.evaluate(
            batch.graph, batch.names, head=batch.heads, create_graph=create_graph
        )

    def _weights(self, progress: float) -> LossWeights:
        """Return the weights of the loss; the energy's grows over the second half of the run."""
        weights = self.weights
        gain = self.options.energy_gain ** max(0.0, 2.0 * progress - 1.0)
        return replace(weights, energy=weights.energy * gain)

    def _set_rate(self, progress: float) -> None:
        """Set the learning rate: linear warm-up, then half a cosine."""
        options = self.options
        if progress < options.warmup:
            share = (progress + 1e-3) / (options.warmup + 1e-3)
        else:
            angle = math.pi * (progress - options.warmup) / (1 - options.warmup)
            share = options.final_rate + (1 - options.final_rate) * 0.5 * (1 + math.cos(angle))
        self.rate = options.learning_rate * share * self.damping
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate
