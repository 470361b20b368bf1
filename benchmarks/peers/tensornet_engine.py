"""TensorNet (torchmd-net) as an engine: 64 channels, two layers, 32 radial functions, 5 Angstrom.

Evaluated by its own ASE calculator, which reads a checkpoint: one with random weights is written
for it. Runs in torchmd-net's own environment.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from ase import Atoms
from torchmdnet.calculators import TMDNETCalculator
from torchmdnet.models.model import create_model

from benchmarks.peers.frames_text import ENERGY, FORCES
from benchmarks.peers.peer_training import Optimisation, atom_energies
from benchmarks.peers.task import Call, NotOffered, Task

PACKAGES = ("torchmd-net", "torch", "ase", "warp-lang")
MAX_NEIGHBOURS = 128
"""More than any atom of the benchmark has; only memory of the neighbour search depends on it."""
ENERGY_WEIGHT, FORCES_WEIGHT = 0.05, 0.95
PRECISION = {"float32": 32, "float64": 64}


def prepare(task: Task, frames: Sequence[Atoms]) -> Call:
    """Return what a task does with new frames."""
    if task.kind in ("single", "loop"):
        if task.dtype != "float32":
            raise NotOffered("the calculator of torchmd-net is in float32")
        return through(calculator(task))
    if task.kind == "training":
        trainable = TensorNetTraining([], frames, dtype=task.dtype, device=task.device)
        run = Optimisation(trainable)
        indices = range(len(frames))
        return lambda frames: run.step(indices, trainable.learning_rate)
    raise NotOffered(f"{task.kind} is not measured")


def calculator(task: Task) -> TMDNETCalculator:
    """Return torchmd-net's calculator of a model with random weights."""
    torch.manual_seed(0)
    model = create_model(arguments(task.dtype, derivative=False))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    content = {"hyper_parameters": arguments(task.dtype, derivative=False), "state_dict": state}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "tensornet.ckpt"
        torch.save(content, path)
        return TMDNETCalculator(str(path), device=task.device, max_num_neighbors=MAX_NEIGHBOURS)


def through(calculator: TMDNETCalculator) -> Call:
    """Return the evaluation of frames by the calculator."""

    def call(frames: Sequence[Atoms]) -> float:
        total = 0.0
        for atoms in frames:
            atoms.info["charge"] = 0.0
            calculator.calculate(atoms, ["energy", "forces"])
            total += calculator.results["energy"]
        return total

    return call


def arguments(dtype: str, *, derivative: bool) -> dict[str, Any]:
    """Return what torchmd-net builds a network from."""
    return {
        "model": "tensornet",
        "embedding_dimension": 64,
        "num_layers": 2,
        "num_rbf": 32,
        "rbf_type": "expnorm",
        "trainable_rbf": False,
        "activation": "silu",
        "cutoff_lower": 0.0,
        "cutoff_upper": 5.0,
        "max_z": 100,
        "max_num_neighbors": MAX_NEIGHBOURS,
        "equivariance_invariance_group": "O(3)",
        "prior_model": None,
        "atom_filter": -1,
        "derivative": derivative,
        "output_model": "Scalar",
        "reduce_op": "add",
        "precision": PRECISION[dtype],
    }


@final
class TensorNetTraining:
    """A TensorNet and its training frames; energies are learnt less those of free atoms."""

    learning_rate = 3e-3  # of torchmd-net's examples 1e-3, which learns too little in minutes

    def __init__(
        self,
        isolated: Sequence[Atoms],
        frames: Sequence[Atoms],
        *,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.dtype, self.device = getattr(torch, dtype), device
        numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
        self.reference = np.zeros(120)
        for number, energy in atom_energies(isolated, frames, numbers).items():
            self.reference[number] = energy
        energies = np.array([atoms.info[ENERGY] - self._free(atoms) for atoms in frames])
        sizes = np.array([len(atoms) for atoms in frames])
        self.shift = float(np.sum(energies * sizes) / np.sum(sizes**2))  # eV per atom
        self.frames = list(frames)
        forces = np.concatenate([atoms.arrays[FORCES].ravel() for atoms in frames])
        self.network = create_model(
            arguments(dtype, derivative=True),
            std=torch.tensor(float(np.sqrt(np.mean(forces**2)))),
        ).to(device)

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Return the weighted mean square errors of a batch."""
        frames = [self.frames[index] for index in indices]
        energy, forces = self._evaluate(frames)
        target = torch.tensor(
            [atoms.info[ENERGY] - self._constant(atoms) for atoms in frames], dtype=self.dtype
        ).to(self.device)
        wanted = torch.as_tensor(
            np.concatenate([atoms.arrays[FORCES] for atoms in frames]), dtype=self.dtype
        ).to(self.device)
        return (
            ENERGY_WEIGHT * (energy - target).square().mean()
            + FORCES_WEIGHT * (forces - wanted).square().mean()
        )

    def predict(self, frames: Sequence[Atoms]) -> list[tuple[float, np.ndarray]]:
        """Return energy and forces of frames."""
        results = []
        for start in range(0, len(frames), 10):
            chunk = list(frames[start : start + 10])
            energies, forces = self._evaluate(chunk)
            parts = np.cumsum([len(atoms) for atoms in chunk])[:-1]
            by_frame = np.split(forces.detach().cpu().numpy(), parts)
            for atoms, energy, values in zip(chunk, energies.tolist(), by_frame, strict=True):
                results.append((energy + self._constant(atoms), values))
        return results

    def _evaluate(self, frames: Sequence[Atoms]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return energies and forces of a batch."""
        numbers = torch.as_tensor(np.concatenate([atoms.numbers for atoms in frames]))
        positions = torch.as_tensor(
            np.concatenate([atoms.positions for atoms in frames]), dtype=self.dtype
        )
        sizes = torch.tensor([len(atoms) for atoms in frames])
        batch = torch.repeat_interleave(torch.arange(len(frames)), sizes)
        energy, forces = self.network(
            numbers.long().to(self.device), positions.to(self.device), batch.to(self.device)
        )
        return energy.reshape(-1), forces

    def _free(self, atoms: Atoms) -> float:
        """Return the energy of the free atoms."""
        return float(self.reference[atoms.numbers].sum())

    def _constant(self, atoms: Atoms) -> float:
        """Return the part of the energy that is not learnt."""
        return self._free(atoms) + self.shift * len(atoms)


TRAINING = TensorNetTraining
"""What `benchmarks.peers.train_peer` trains."""
