from typing import Any

import pytest

from benchmarks.two_fidelities import campaign_of, markdown, ratios, settled


def generation(labels: int, barrier: float | None, converged: bool = True) -> dict[str, Any]:
    return {"expensive_labels": labels, "barrier": barrier, "converged": converged}


def test_settled_is_first_and_for_good() -> None:
    wrong, right = generation(10, 0.10), generation(20, 0.17)
    assert settled([wrong, right, generation(30, 0.15)], 0.163) == 20
    assert settled([right, generation(30, 0.25), generation(40, 0.16)], 0.163) == 40
    assert settled([right, generation(30, 0.16, converged=False)], 0.163) is None
    assert settled([generation(5, None, converged=False), right], 0.163) == 20
    assert settled([], 0.163) is None


def row(kind: str, seed: int, needed: int | None) -> dict[str, Any]:
    return {
        "reaction": "malonaldehyde",
        "kind": kind,
        "seed": seed,
        "barrier_ev": 0.16,
        "error_bar_ev": 0.01,
        "expensive_labels": needed or 99,
        "cheap_labels": 7,
        "needed_converged": needed,
        "needed_settled": needed,
        "minutes": 1.0,
        "reason": "converged",
    }


def test_only_seeds_that_both_reached_are_compared() -> None:
    rows = [row("single", 0, 100), row("two", 0, 30), row("single", 1, 100), row("two", 1, None)]
    assert ratios(rows)["malonaldehyde"]["needed_converged"] == pytest.approx(0.3)
    assert ratios(rows[:1])["malonaldehyde"] == {}
    text = markdown(rows, {"date": "today"})
    assert "**30%**" in text and "not reached" in text


def test_both_kinds_differ_in_their_levels_alone() -> None:
    single, two = (campaign_of("ammonia_inversion", kind, 1) for kind in ("single", "two"))
    assert single.labeller == two.labeller == two.fidelities[-1]
    assert two.model_copy(update={"fidelities": ()}) == single
