"""How many operators of PyTorch an evaluation takes: a count, which no busy machine changes.

A molecule costs its operators, not its arithmetic: about 5 microseconds each, whatever is in them.
Who adds more than a few raises `RECORDED` on purpose, with the time it costs; who saves some lowers
it. Every operator that reaches the dispatcher below autograd counts, views and those of the
backward pass among them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch.utils._python_dispatch import TorchDispatchMode

from tace_al.model import radial_splines
from tace_al.model.calculator import CommitteeCalculator, TaceCalculator
from tace_al.model.committee import Committee
from tace_al.model.kernels import compiled, native
from tace_al.model.labelled_batch import join, labelled
from tace_al.model.loss import LossWeights, training_loss
from tace_al.model.tace import Tace

RECORDED = {
    ("single", "compiled"): 56,
    ("single", "plain"): 988,
    ("committee", "compiled"): 58,
    ("committee", "plain"): 1192,
    ("training", "compiled"): 1852,
    ("training", "plain"): 2693,
}
"""Operators of `small` in float32 on ethanol: energy and forces of one model, of every member of a
committee of four, and a training step (forward, forces, gradient of the loss) on two molecules."""

ALLOWANCE = 1.05
"""Releases of PyTorch differ by a few operators."""
ELEMENTS = ["H", "C", "O"]


class Counter(TorchDispatchMode):
    """Counts operators."""

    count = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return operator(*args, **(kwargs or {}))


def counted(call: Callable[[], object]) -> int:
    """Return the operators of a call that is not the first of its kind."""
    call()
    with Counter() as counter:
        call()
    return counter.count


def ethanol(seed: int) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    rng = np.random.default_rng(seed)
    atoms.info["REF_energy"] = float(rng.normal())
    atoms.set_array("REF_forces", rng.normal(size=(9, 3)))
    return atoms


def single() -> int:
    calculator = TaceCalculator(Tace.from_preset("small", elements=ELEMENTS))
    frames = iter([ethanol(seed) for seed in range(2)])
    return counted(lambda: calculator.calculate(next(frames), ["energy", "forces"]))


def committee() -> int:
    members = [Tace.from_preset("small", elements=ELEMENTS, seed=seed) for seed in range(4)]
    calculator = CommitteeCalculator(Committee(members))
    frames = iter([ethanol(seed) for seed in range(2)])
    return counted(lambda: calculator.calculate(next(frames), ["energy", "forces"]))


def training() -> int:
    model = Tace.from_preset("small", elements=ELEMENTS).train()
    batch = join([labelled(ethanol(seed), model.config) for seed in range(2)])

    def step() -> None:
        model.zero_grad(set_to_none=True)
        output = model.evaluate(batch.graph, batch.names, create_graph=True)
        training_loss(output, batch, LossWeights()).backward()

    return counted(step)


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Kernels, or PyTorch's operators in their place."""
    if request.param == "compiled" and compiled() is None:
        pytest.skip("there is no compiler")
    if request.param == "plain":
        for module in (native, radial_splines):
            monkeypatch.setattr(module, "compiled", lambda: None)
    with torch.random.fork_rng(devices=[]):
        yield request.param


@pytest.mark.parametrize("work", [single, committee, training])
def test_no_more_operators_than_recorded(work: Callable[[], int], way: str) -> None:
    count, recorded = work(), RECORDED[work.__name__, way]
    assert count <= ALLOWANCE * recorded, (
        f"{work.__name__} takes {count} operators, recorded are {recorded}: if they are worth "
        "their time, raise RECORDED"
    )
