"""MACE (mace-torch) as an engine: two layers, 64 channels, the size of our `small`.

Hidden features 64x0e + 64x1o, harmonics to l = 2, correlation 3, cutoff 5 Angstrom, 8 Bessel
functions, radial networks 64-64-64: random weights. Runs in MACE's own environment.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from e3nn import o3
from mace import data, modules, tools
from mace.calculators import MACECalculator
from mace.tools import torch_geometric, torch_tools

from benchmarks.peers.frames_text import ENERGY, FORCES
from benchmarks.peers.peer_training import Optimisation, atom_energies
from benchmarks.peers.task import MEMBERS, Call, NotOffered, Task

PACKAGES = ("mace-torch", "e3nn", "torch", "ase", "matscipy")
CUTOFF = 5.0
NEIGHBOURS = 50.0
"""Average number of neighbours that random models divide by."""
ENERGY_WEIGHT, FORCES_WEIGHT = 1.0, 100.0
"""Defaults of the command line of MACE."""


def prepare(task: Task, frames: Sequence[Atoms]) -> Call:
    """Return what a task does with new frames."""
    numbers = sorted(atomic_numbers[symbol] for symbol in task.elements)
    if task.kind in ("single", "loop", "committee"):
        count = MEMBERS if task.kind == "committee" else 1
        with torch_tools.default_dtype(task.dtype):
            models = [network(numbers, seed=seed).to(task.device) for seed in range(count)]
            calculator = MACECalculator(
                models=models,
                device=task.device,
                default_dtype=task.dtype,
                enable_cueq=task.device == "cuda",
            )
        return through(calculator)
    if task.kind == "training":
        trainable = MaceTraining([], frames, dtype=task.dtype, device=task.device)
        run = Optimisation(trainable)
        indices = range(len(frames))
        return lambda frames: run.step(indices, trainable.learning_rate)
    raise NotOffered(f"{task.kind} is not measured")


def through(calculator: MACECalculator) -> Call:
    """Return the evaluation of frames by the calculator."""

    def call(frames: Sequence[Atoms]) -> float:
        total = 0.0
        for atoms in frames:
            calculator.calculate(atoms, ["energy", "forces"])
            total += calculator.results["energy"]
        return total

    return call


def network(
    numbers: Sequence[int],
    *,
    seed: int = 0,
    energies: Sequence[float] | None = None,
    scale: float = 1.0,
    shift: float = 0.0,
    neighbours: float = NEIGHBOURS,
) -> torch.nn.Module:
    """Return a MACE of the stated size in the default dtype."""
    torch.manual_seed(seed)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=2,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps("64x0e + 64x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array(energies if energies is not None else np.zeros(len(numbers))),
        avg_num_neighbors=neighbours,
        atomic_numbers=list(numbers),
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        radial_type="bessel",
        atomic_inter_scale=scale,
        atomic_inter_shift=shift,
    )


@final
class MaceTraining:
    """A MACE and its training frames."""

    learning_rate = 0.01

    def __init__(
        self,
        isolated: Sequence[Atoms],
        frames: Sequence[Atoms],
        *,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
        reference = atom_energies(isolated, frames, numbers)
        self.dtype, self.device = dtype, device
        self.table = tools.AtomicNumberTable(numbers)
        self.samples = [self._sample(atoms) for atoms in frames]
        forces = np.concatenate([atoms.arrays[FORCES].ravel() for atoms in frames])
        edges = sum(sample.edge_index.shape[1] for sample in self.samples)
        bound = [
            (atoms.info[ENERGY] - sum(reference[int(number)] for number in atoms.numbers))
            / len(atoms)
            for atoms in frames
        ]
        with torch_tools.default_dtype(dtype):
            self.network = network(
                numbers,
                seed=seed,
                energies=[reference[number] for number in numbers],
                shift=float(np.mean(bound)),
                scale=float(np.sqrt(np.mean(forces**2))),
                neighbours=edges / sum(len(atoms) for atoms in frames),
            ).to(device)
        self.loss_function = modules.WeightedEnergyForcesLoss(
            energy_weight=ENERGY_WEIGHT, forces_weight=FORCES_WEIGHT
        )

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Return the weighted loss of a batch."""
        batch = self._batch([self.samples[index] for index in indices])
        output = self.network(batch.to_dict(), training=True, compute_force=True)
        return self.loss_function(ref=batch, pred=output)

    def predict(self, frames: Sequence[Atoms]) -> list[tuple[float, np.ndarray]]:
        """Return energy and forces of frames."""
        results = []
        for start in range(0, len(frames), 10):
            chunk = frames[start : start + 10]
            batch = self._batch([self._sample(atoms) for atoms in chunk])
            output = self.network(batch.to_dict(), training=False, compute_force=True)
            parts = np.cumsum([len(atoms) for atoms in chunk])[:-1]
            forces = np.split(output["forces"].detach().cpu().numpy(), parts)
            results += list(zip(output["energy"].tolist(), forces, strict=True))
        return results

    def _sample(self, atoms: Atoms) -> Any:
        """Return one frame as MACE reads it."""
        keys = data.KeySpecification(info_keys={"energy": ENERGY}, arrays_keys={"forces": FORCES})
        with torch_tools.default_dtype(self.dtype):
            return data.AtomicData.from_config(
                data.config_from_atoms(atoms, key_specification=keys),
                z_table=self.table,
                cutoff=CUTOFF,
            )

    def _batch(self, samples: list[Any]) -> Any:
        """Return samples as one batch."""
        return torch_geometric.Batch.from_data_list(samples).to(self.device)


TRAINING = MaceTraining
"""What `benchmarks.peers.train_peer` trains."""
