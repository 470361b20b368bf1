"""tace-al as an engine of the speed benchmark."""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator

from benchmarks.peers.task import MEMBERS, Call, Task
from tace_al.core.allocator import keep_freed_memory
from tace_al.data.neighbour_skin import NeighbourSkin
from tace_al.model.calculator import CommitteeCalculator, TaceCalculator
from tace_al.model.committee import Committee
from tace_al.model.config import preset_config
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.tace import Tace
from tace_al.model.trainer import EpochReport, TrainingOptions, train

PACKAGES = ("tace-al", "torch", "ase", "vesin")


def prepare(task: Task, frames: Sequence[Atoms]) -> Call:
    """Return what a task does with new frames."""
    kinds: dict[str, Callable[[Task], Call]] = {
        "single": lambda task: through(calculator(task)),
        "loop": lambda task: through(calculator(task)),
        "batch": batch,
        "committee": lambda task: through(CommitteeCalculator(committee(task))),
        "heads": lambda task: head_committee(task, member_forces=False),
        "head forces": lambda task: head_committee(task, member_forces=True),
        "graph": graph_share,
    }
    if task.kind == "training":
        return TrainingSteps(task, frames)
    return kinds[task.kind](task)


def model(task: Task, seed: int = 0) -> Tace:
    """Return an untrained model."""
    return Tace.from_preset(task.preset, elements=list(task.elements), seed=seed)


def calculator(task: Task) -> TaceCalculator:
    """Return the calculator as a user makes it."""
    dtype = "float64" if task.dtype == "float64" else "float32"
    return TaceCalculator(model(task), dtype=dtype, device=task.device)


def committee(task: Task) -> Committee:
    """Return members of one shape and different weights."""
    members = [model(task, seed) for seed in range(MEMBERS)]
    return Committee([member.as_dtype(task.dtype).to(task.device) for member in members])


def head_committee(task: Task, *, member_forces: bool) -> Call:
    """Return the evaluation of frames by heads of one trunk, neighbours kept between steps."""
    heads = tuple(f"member {index}" for index in range(MEMBERS))
    shared = Tace.from_preset(task.preset, elements=list(task.elements), heads=heads)
    members = HeadCommittee(shared.as_dtype(task.dtype).to(task.device))
    skin = NeighbourSkin(members.cutoff, device=task.device)

    def call(frames: Sequence[Atoms]) -> float:
        total = 0.0
        for atoms in frames:
            (prediction,) = members.predict_batch(
                skin.graph([atoms]), stress=bool(atoms.pbc.all()), member_forces=member_forces
            )
            total += prediction.energy
        return total

    return call


def through(calculator: Calculator) -> Call:
    """Return the evaluation of frames, one by one, by a calculator."""

    def call(frames: Sequence[Atoms]) -> float:
        total = 0.0
        for atoms in frames:
            calculator.calculate(atoms, ["energy", "forces"])
            total += calculator.results["energy"]
        return total

    return call


def batch(task: Task) -> Call:
    """Return the evaluation of all frames in one call, graphs included."""
    alone = Committee([model(task).as_dtype(task.dtype).to(task.device)])

    def call(frames: Sequence[Atoms]) -> float:
        return sum(prediction.energy for prediction in alone.predict(frames))

    return call


def graph_share(task: Task) -> Call:
    """Return the share, in percent, of a whole step that neighbours and graph take.

    Frames follow one another as in dynamics.
    """
    step = through(calculator(task))

    def call(frames: Sequence[Atoms]) -> float:
        with timed(NeighbourSkin, "graph") as inside:
            began = time.process_time()
            step(frames)
            whole = time.process_time() - began
        if not inside:
            raise RuntimeError("the calculator no longer makes graphs by NeighbourSkin.graph")
        return 100.0 * sum(inside) / whole

    return call


@contextmanager
def timed(owner: type, name: str) -> Iterator[list[float]]:
    """Collect the processor seconds of every call of a method."""
    method = getattr(owner, name)
    found: list[float] = []

    @functools.wraps(method)
    def measured(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        result = method(*arguments, **options)
        found.append(time.process_time() - began)
        return result

    setattr(owner, name, measured)
    try:
        yield found
    finally:
        setattr(owner, name, method)


@final
class TrainingSteps:
    """Single steps of the real training loop, stopped between two by its own callback.

    The training set is one batch, so that an epoch is a step. `train` runs in a thread of its own
    and waits in `on_epoch` until the next step is asked for.
    """

    def __init__(self, task: Task, frames: Sequence[Atoms]) -> None:
        keep_freed_memory()
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._loss, self._failure = 0.0, ""
        self._frames = list(frames)
        config = preset_config(task.preset, elements=task.elements, dtype=task.dtype)
        options = TrainingOptions(
            epochs=1_000_000, batch_size=len(self._frames), device=task.device
        )
        arguments = {"config": config, "options": options}
        threading.Thread(target=self._train, kwargs=arguments, daemon=True).start()

    def __call__(self, frames: Sequence[Atoms]) -> float:
        """Take a step and return its loss."""
        if self._failure:
            raise RuntimeError(self._failure)
        self._go.release()
        self._done.acquire()
        if self._failure:
            raise RuntimeError(self._failure)
        return self._loss

    def _train(self, **arguments: Any) -> None:
        """Run the training loop until the process ends."""
        torch.set_num_threads(1)
        self._go.acquire()
        try:
            train(self._frames, [], on_epoch=self._pause, **arguments)
            self._failure = "training has ended"
        except Exception as error:
            # handed to the thread that asks for steps
            self._failure = f"{type(error).__name__}: {error}"
        self._done.release()

    def _pause(self, report: EpochReport) -> None:
        """Report a step and wait for the next."""
        self._loss = report.training_loss
        self._done.release()
        self._go.acquire()
