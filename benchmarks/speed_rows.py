"""What the speed benchmark measures, and the goals that each row is held to."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from benchmarks.peers.environments import OWN
from benchmarks.peers.task import MEMBERS, Kind
from benchmarks.speed_structures import BOXES

MACE, TENSORNET = "mace", "tensornet"
MOLECULES = 32
WALKERS = 256
BATCH = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One column of a row: what an engine does with copies of a structure.

    Times are divided by `per`, the number of things that one call answers for.
    """

    engine: str
    structure: str
    kind: Kind = "single"
    dtype: str = "float32"
    device: str = "cpu"
    copies: int = 1
    per: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A ratio of two columns and the bound it must keep.

    "least" for how many times faster or smaller the column `under` is, "most" for how much dearer
    the column `over` may be.
    """

    over: str
    under: str
    bound: float
    sense: Literal["least", "most"]

    def reached(self, ratio: float) -> bool:
        """Return whether a measured ratio is good enough."""
        return ratio >= self.bound if self.sense == "least" else ratio <= self.bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table.

    `way` says how it is measured: "time" of interleaved calls, "memory" of fresh processes, or the
    "share" of the graph; `long` rows are left out of `--quick`.
    """

    title: str
    cases: Mapping[str, Case]
    goals: tuple[Goal, ...]
    way: Literal["time", "memory", "share"] = "time"
    unit: str = "ms"
    long: bool = False


def against_peers(title: str, structure: str, faster: float) -> Row:
    """Return the row of a structure evaluated by all three codes."""
    engines = {"ours": OWN, "MACE": MACE, "TensorNet": TENSORNET}
    return Row(
        title=title,
        cases={label: Case(engine=name, structure=structure) for label, name in engines.items()},
        goals=(
            Goal(over="MACE", under="ours", bound=faster, sense="least"),
            Goal(over="TensorNet", under="ours", bound=1.5, sense="least"),
        ),
    )


def batched(title: str, structure: str) -> Row:
    """Return the row of many molecules in one call."""
    return Row(
        title=title,
        cases={
            "batch, each": Case(
                engine=OWN, structure=structure, kind="batch", copies=MOLECULES, per=MOLECULES
            ),
            "single": Case(engine=OWN, structure=structure),
        },
        goals=(Goal(over="single", under="batch, each", bound=3.0, sense="least"),),
    )


def committee(title: str, structure: str, bound: float) -> Row:
    """Return the row of a committee against one model."""
    return Row(
        title=title,
        cases={
            f"{MEMBERS} members": Case(engine=OWN, structure=structure, kind="committee"),
            "single": Case(engine=OWN, structure=structure),
        },
        goals=(Goal(over=f"{MEMBERS} members", under="single", bound=bound, sense="most"),),
    )


def shared_trunk(title: str, structure: str) -> Row:
    """Return the row of a committee of heads that share their trunk."""
    each, mean = "every member's forces", "mean forces"
    return Row(
        title=title,
        cases={
            mean: Case(engine=OWN, structure=structure, kind="heads"),
            each: Case(engine=OWN, structure=structure, kind="head forces"),
            "single": Case(engine=OWN, structure=structure),
        },
        goals=(
            Goal(over=mean, under="single", bound=1.15, sense="most"),
            Goal(over=each, under="single", bound=2.5, sense="most"),
        ),
    )


def training() -> Row:
    """Return the row of a training step."""
    engines = {"ours": OWN, "MACE": MACE, "TensorNet": TENSORNET}
    return Row(
        title=f"training step, {BATCH} molecules of 27 atoms",
        cases={
            label: Case(engine=name, structure="27 atoms", kind="training", copies=BATCH)
            for label, name in engines.items()
        },
        goals=(Goal(over="MACE", under="ours", bound=4.0, sense="least"),),
    )


def memory() -> Row:
    """Return the row of the memory of an evaluation."""
    engines = {"ours": OWN, "MACE": MACE, "TensorNet": TENSORNET}
    return Row(
        title="peak memory over import, 192-atom water",
        cases={label: Case(engine=name, structure="water 192") for label, name in engines.items()},
        goals=(Goal(over="MACE", under="ours", bound=4.0, sense="least"),),
        way="memory",
        unit="MiB",
    )


def double_precision(title: str, structure: str) -> Row:
    """Return the row of float64 against float32."""
    return Row(
        title=title,
        cases={
            "float64": Case(engine=OWN, structure=structure, dtype="float64"),
            "float32": Case(engine=OWN, structure=structure),
        },
        goals=(Goal(over="float64", under="float32", bound=2.0, sense="most"),),
    )


def graph_share(title: str, structure: str) -> Row:
    """Return the row of the share of neighbours and graph in steps of dynamics."""
    return Row(
        title=title,
        cases={
            "graph": Case(engine=OWN, structure=structure, kind="graph", copies=20),
            "step": Case(engine=OWN, structure=structure, copies=20),
        },
        goals=(Goal(over="graph", under="step", bound=0.05, sense="most"),),
        way="share",
        unit="%",
    )


def scaling(sizes: tuple[str, ...], *, long: bool) -> Row:
    """Return the row of time per atom against size."""
    smallest, *others = sizes
    return Row(
        title=f"time per atom, water, to {sizes[-1].split()[1]} atoms",
        cases={name: Case(engine=OWN, structure=name, per=int(name.split()[1])) for name in sizes},
        goals=tuple(Goal(over=name, under=smallest, bound=1.15, sense="most") for name in others),
        unit="µs",
        long=long,
    )


def scaling_memory(sizes: tuple[str, ...], *, long: bool) -> Row:
    """Return the row of memory per atom against size; each size against the one before."""
    return Row(
        title=f"memory per atom, water, to {sizes[-1].split()[1]} atoms",
        cases={name: Case(engine=OWN, structure=name, per=int(name.split()[1])) for name in sizes},
        goals=tuple(
            Goal(over=larger, under=smaller, bound=1.15, sense="most")
            for smaller, larger in pairwise(sizes)
        ),
        way="memory",
        unit="KiB",
        long=long,
    )


SIZES = tuple(BOXES)
SHORT_SIZES = tuple(name for name in SIZES if int(name.split()[1]) <= 3072)

ROWS: Mapping[str, Row] = {
    "water": against_peers("192-atom water", "water 192", 8.0),
    "copper": against_peers("Cu, 256 atoms", "copper 256", 8.0),
    "silicon": against_peers("Si, 512 atoms", "silicon 512", 8.0),
    "slab": against_peers("Pt(111) slab + CO, 102 atoms", "platinum and CO", 8.0),
    "ethanol": against_peers("ethanol, 9 atoms", "ethanol", 6.0),
    "3bpa": against_peers("3BPA, 27 atoms", "27 atoms", 6.0),
    "batch-ethanol": batched(f"{MOLECULES} ethanols in one call", "ethanol"),
    "batch-3bpa": batched(f"{MOLECULES} molecules of 27 atoms in one call", "27 atoms"),
    "committee-ethanol": committee("committee of four, ethanol", "ethanol", 2.0),
    "committee-3bpa": committee("committee of four, 27 atoms", "27 atoms", 2.0),
    "committee-water": committee("committee of four, 192-atom water", "water 192", 3.2),
    "heads-ethanol": shared_trunk("four heads of one trunk, ethanol", "ethanol"),
    "heads-3bpa": shared_trunk("four heads of one trunk, 27 atoms", "27 atoms"),
    "heads-water": shared_trunk("four heads of one trunk, 192-atom water", "water 192"),
    "training": training(),
    "memory": memory(),
    "float64": double_precision("float64, 192-atom water", "water 192"),
    "float64-ethanol": double_precision("float64, ethanol", "ethanol"),
    "graph": graph_share("neighbours and graph in dynamics, 192-atom water", "water 192"),
    "graph-ethanol": graph_share("neighbours and graph in dynamics, ethanol", "ethanol"),
    "scaling": scaling(SHORT_SIZES, long=False),
    "scaling-memory": scaling_memory(SHORT_SIZES, long=False),
    "scaling-long": scaling(("water 192", *SIZES[len(SHORT_SIZES) :]), long=True),
    "scaling-memory-long": scaling_memory(SIZES[len(SHORT_SIZES) - 1 :], long=True),
}


def gpu_water(structure: str) -> Row:
    """Return the row of a box of water on the GPU."""
    engines = {"ours": OWN, "MACE": "mace-cuda"}
    return Row(
        title=f"{structure} on the GPU",
        cases={
            label: Case(engine=name, structure=structure, device="cuda")
            for label, name in engines.items()
        },
        goals=(Goal(over="MACE", under="ours", bound=1.5, sense="least"),),
    )


def gpu_walkers() -> Row:
    """Return the row of small walkers on the GPU, together or one after the other."""
    each = {"engine": OWN, "structure": "ethanol", "device": "cuda", "copies": WALKERS}
    return Row(
        title=f"{WALKERS} ethanols on the GPU",
        cases={
            "one call": Case(**each, kind="batch"),
            "loop": Case(**each, kind="loop"),
        },
        goals=(Goal(over="loop", under="one call", bound=20.0, sense="least"),),
    )


GPU_ROWS: Mapping[str, Row] = {
    **{
        f"gpu-{name.replace(' ', '-')}": gpu_water(name)
        for name in ("water 1536", "water 6144", "water 12288")
    },
    "gpu-walkers": gpu_walkers(),
}
