"""A campaign that never ran: plausible numbers for every figure and table."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tace_al.report.summary import Barrier, CampaignSummary, GenerationSummary, TaskSpan

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def make_barrier(height: float, error_bar: float, **fields: object) -> Barrier:
    """Return a barrier on a smooth path of nine images."""
    coordinate = np.linspace(0.0, 4.0, 9)
    energies = height * np.sin(np.pi * coordinate / 4.0) ** 2
    return Barrier(
        barrier=height,
        error_bar=error_bar,
        reverse=height + 0.3,
        members=(height - error_bar, height, height + error_bar),
        coordinate=coordinate,
        energies=energies,
        band=error_bar * np.sin(np.pi * coordinate / 4.0),
        saddle_label=height + 0.5 * error_bar,
        converged=True,
        **fields,
    )


def make_generation(number: int) -> GenerationSummary:
    """Return one generation of three, better than the one before."""
    rng = np.random.default_rng(number)
    spread = rng.lognormal(-3.0 - 0.5 * number, 0.8, 200)
    return GenerationSummary(
        number=number,
        state="serving" if number == 2 else "retired",
        num_labels=60 + 70 * number,
        num_calibration=10 + 5 * number,
        coverage=0.84 + 0.03 * number,
        target_coverage=0.9,
        scale=2.0,
        errors={
            "force_rmse": 240.0 / (1 + number),
            "force_mae": 150.0 / (1 + number),
            "energy_rmse": 9.0 / (1 + number),
            "energy_mae": 6.0 / (1 + number),
        },
        barriers={
            "bare": make_barrier(1.82 + 0.1 / (1 + number), 0.09 / (1 + number)),
            "water": make_barrier(0.985 - 0.1 / (1 + number), 0.12 / (1 + number)),
        },
        models=tuple(f"{number}{member}" * 16 for member in range(4)),
        spread=spread,
        error=np.abs(rng.normal(0.0, 1.2 * spread)),
    )


def make_tasks() -> tuple[TaskSpan, ...]:
    """Return ten tasks on each of three workers, one of them failed."""
    kinds, begin = ("label", "train", "langevin", "band"), START.timestamp()
    return tuple(
        TaskSpan(
            kind=kinds[(worker + step) % 4],
            worker=f"node:{worker}",
            started=begin + 40 * step,
            ended=begin + 40 * step + 30 + 2 * worker,
            ok=(worker, step) != (1, 3),
        )
        for worker in range(3)
        for step in range(10)
    )


@pytest.fixture
def summary() -> CampaignSummary:
    """Return a finished campaign of three generations and two channels."""
    generations = tuple(make_generation(number) for number in range(3))
    return CampaignSummary(
        name="carbonic acid",
        campaign="abc",
        state="finished",
        seed=7,
        code_version="0.1.0+g123",
        config_hash="f" * 32,
        config={
            "labeller": {"name": "gfn2"},
            "catalyst": ["bare", "water"],
            "content_key": "c" * 32,
            "reactions": [
                {"name": "bare", "reference_barrier": 1.823, "initial": {"positions": [[0.0] * 3]}},
                {"name": "water", "reference_barrier": 0.985},
            ],
        },
        created=START,
        updated=START + timedelta(minutes=9),
        last_seen=START + timedelta(minutes=9),
        result={
            "reason": "both barriers have converged",
            "seconds": 540.0,
            "lowering": {"value": 0.84, "error": 0.05},
        },
        generations=generations,
        barriers=generations[-1].barriers,
        labels={"train": 170, "calibration": 30},
        label_kinds={"seed": 20, "uncertain": 160, "audit": 15, "saddle": 5},
        label_seconds=1.3,
        failures=(("contact", "atoms 1 and 2 overlap"), ("contact", "atoms 0 | 3 overlap")),
        candidates={"flagged": 4, "labelled": 200, "failed": 2},
        tasks=make_tasks(),
        notes=((START, "warning", "member 2 failed once"),),
    )
