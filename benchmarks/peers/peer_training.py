"""Training of other codes' networks from nothing: one loop and recipe for all of them.

Adam, a linear warm-up over 2 % of the time and half a cosine over the rest, clipped gradients, and
an exponential average of the weights that is validated every few epochs; the best are kept: what
tace-al does but for its optimiser, with each code's own loss and customary rate.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from benchmarks.peers.frames_text import ENERGY, FORCES

CLIP_NORM, AVERAGE_DECAY = 10.0, 0.99
WARMUP, FINAL_RATE = 0.02, 0.01


class Trainable(Protocol):
    """A network with its own loss."""

    network: nn.Module
    learning_rate: float

    def loss(self, indices: Sequence[int]) -> Tensor:
        """Return the loss of a batch of the training frames."""

    def predict(self, frames: Sequence[Atoms]) -> list[tuple[float, np.ndarray]]:
        """Return energy and forces of frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Held-out errors of the averaged weights after an epoch, eV/Angstrom and eV per atom."""

    seconds: float
    epoch: int
    forces: float
    energy: float


@final
class Optimisation:
    """Adam on a network, with clipped gradients and averaged weights."""

    def __init__(self, trainable: Trainable) -> None:
        self.trainable = trainable
        self.parameters = [p for p in trainable.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=trainable.learning_rate, amsgrad=True)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.steps = 0

    def step(self, indices: Sequence[int], rate: float) -> float:
        """Take one step and return the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.trainable.loss(indices)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
        self.steps += 1
        decay = min(AVERAGE_DECAY, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1.0 - decay)
        return float(loss.detach())

    def swap(self) -> None:
        """Exchange weights and their average."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                kept = parameter.clone()
                parameter.copy_(mean)
                mean.copy_(kept)


def fit(
    trainable: Trainable,
    num_frames: int,
    held_out: Sequence[Atoms],
    *,
    seconds: float,
    started: float,
    validate_every: int = 1,
    batch_size: int = 10,
    seed: int = 0,
) -> list[Point]:
    """Train until `seconds` after `started` (`time.monotonic`); leave the best weights."""
    run = Optimisation(trainable)
    generator = np.random.default_rng(seed)
    best = [mean.clone() for mean in run.average]
    history: list[Point] = []
    elapsed, epoch = 0.0, 0
    while elapsed < seconds:
        epoch += 1
        order = generator.permutation(num_frames)
        for start in range(0, num_frames, batch_size):
            elapsed = time.monotonic() - started
            if elapsed >= seconds:
                break
            rate = trainable.learning_rate * rate_share(elapsed / seconds)
            run.step(order[start : start + batch_size].tolist(), rate)
        if (epoch - 1) % validate_every and elapsed < seconds:
            continue
        run.swap()
        forces, energy = errors(trainable.predict(held_out), held_out)
        elapsed = time.monotonic() - started
        history.append(Point(seconds=elapsed, epoch=epoch, forces=forces, energy=energy))
        if forces <= min(point.forces for point in history):
            best = [parameter.detach().clone() for parameter in run.parameters]
        run.swap()
    with torch.no_grad():
        for parameter, value in zip(run.parameters, best, strict=True):
            parameter.copy_(value)
    return history


def rate_share(progress: float) -> float:
    """Return the learning rate as a share of its peak at a progress from 0 to 1."""
    if progress < WARMUP:
        return (progress + 1e-3) / (WARMUP + 1e-3)
    angle = math.pi * (progress - WARMUP) / (1.0 - WARMUP)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(angle))


def errors(
    predictions: Sequence[tuple[float, np.ndarray]], frames: Sequence[Atoms]
) -> tuple[float, float]:
    """Return root mean square errors of forces (eV/Angstrom) and of the energy per atom (eV)."""
    forces = [
        (predicted - atoms.arrays[FORCES]).ravel()
        for (_, predicted), atoms in zip(predictions, frames, strict=True)
    ]
    energies = [
        (predicted - atoms.info[ENERGY]) / len(atoms)
        for (predicted, _), atoms in zip(predictions, frames, strict=True)
    ]
    return (
        float(np.sqrt(np.mean(np.concatenate(forces) ** 2))),
        float(np.sqrt(np.mean(np.square(energies)))),
    )


def atom_energies(
    isolated: Sequence[Atoms], frames: Sequence[Atoms], numbers: Sequence[int]
) -> dict[int, float]:
    """Return an energy for each element: of the isolated atom, or fitted where one lacks."""
    known = {int(atoms.numbers[0]): float(atoms.info[ENERGY]) for atoms in isolated}
    if all(number in known for number in numbers):
        return {number: known[number] for number in numbers}
    counts = np.array([[(atoms.numbers == number).sum() for number in numbers] for atoms in frames])
    energies = np.array([atoms.info[ENERGY] for atoms in frames])
    fitted = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
    return dict(zip(numbers, fitted.tolist(), strict=True))
