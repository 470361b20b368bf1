"""When to stop: the quantity the user asked for no longer moves, or the budget is spent.

A campaign has converged when, over the last few generations, every target (a barrier) satisfies

    |x_i - x_j| <= max(tolerance, sqrt(e_i^2 + e_j^2))      for each pair i, j of generations,
    e_last <= max_error,
    |x_label - x_last| <= max(tolerance, e_last),

with e the calibrated error bar of the committee and x_label the labeller's own value at the model's
saddle point. The second condition is there because wide error bars make any two values agree; the
third because successive generations share their training data and can agree and be wrong together.
The labeller's value costs one label and is the only independent witness. Targets that no single
label can check (a probability, a spectrum) have another: over the window the error bars must have
covered at least `min_coverage` of the errors on labels that no member was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import hypot, isfinite


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetEstimate:
    """What one generation says about a target, in eV or the target's own unit.

    Parameters
    ----------
    value
        The estimate.
    error
        Its calibrated error bar.
    label_value
        The same quantity from the labeller at the geometry the model found, None when not labelled.
    unit
        For the sentence that says why a campaign ended.
    """

    value: float
    error: float
    label_value: float | None = None
    unit: str = "eV"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationOutcome:
    """What the stopping rule needs of one generation: its targets by name, flagged share, coverage.

    `flagged_share` is the share of explored frames outside "known"; `coverage` that of the error
    bars. None where not measured.
    """

    number: int
    targets: Mapping[str, TargetEstimate]
    flagged_share: float | None = None
    coverage: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoppingRule:
    """When a campaign ends.

    Parameters
    ----------
    targets
        Names that must converge; without any, targets never stop the campaign.
    window
        Generations that must agree, at least 2.
    min_generations
        Generations to serve before convergence counts.
    tolerance
        Movement that never matters, in the target's unit.
    max_error
        Largest error bar accepted within the window, in the target's unit.
    checked_by_label
        Whether a label at the target's geometry must confirm it; else the coverage must.
    max_flagged_share, min_coverage
        Also stop when over the window the flagged share stayed at or below the first and the
        coverage at or above the second; off when `max_flagged_share` is None.
    max_labels, max_seconds
        Budgets, None for no limit.
    """

    targets: tuple[str, ...] = ()
    window: int = 2
    min_generations: int = 3
    tolerance: float = 0.01
    max_error: float = 0.05
    checked_by_label: bool = True
    max_flagged_share: float | None = None
    min_coverage: float = 0.85
    max_labels: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse a window that compares nothing."""
        if self.window < 2:
            raise ValueError(f"`window` is {self.window}, expected at least 2 generations")

    def reason(
        self, outcomes: Sequence[GenerationOutcome], *, num_labels: int, seconds: float
    ) -> str | None:
        """Return why to stop now, in one clause, or None to go on.

        Parameters
        ----------
        outcomes
            Of the generations that served, in order.
        num_labels
            Labels spent, failed ones included.
        seconds
            Time spent.
        """
        if self.targets_converged(outcomes):
            last = outcomes[-1].targets
            values = ", ".join(
                f"{name} {last[name].value:.3f} ± {last[name].error:.3f} {last[name].unit}".strip()
                for name in self.targets
            )
            return f"converged: {values}, steady over {self.window} generations"
        if self._known_everywhere(outcomes):
            return (
                f"converged: at most {self.max_flagged_share:.1%} of the frames were flagged over "
                f"{self.window} generations"
            )
        if self.max_labels is not None and num_labels >= self.max_labels:
            return f"label budget spent: {num_labels} of {self.max_labels} labels"
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"time budget spent: {seconds:.0f} of {self.max_seconds:.0f} s"
        return None

    def targets_converged(self, outcomes: Sequence[GenerationOutcome]) -> bool:
        """Return whether every target satisfies the conditions of the module's docstring."""
        if not self.targets or len(outcomes) < max(self.window, self.min_generations):
            return False
        recent = outcomes[-self.window :]
        if not self.checked_by_label and not all(
            outcome.coverage is not None and outcome.coverage >= self.min_coverage
            for outcome in recent
        ):
            return False
        return all(self._steady(name, recent) for name in self.targets)

    def _steady(self, name: str, recent: Sequence[GenerationOutcome]) -> bool:
        """Return whether one target is steady, precise enough and confirmed by the labeller."""
        estimates = [outcome.targets[name] for outcome in recent if name in outcome.targets]
        if len(estimates) < self.window:
            return False
        if not all(isfinite(one.value) and isfinite(one.error) for one in estimates):
            return False
        last = estimates[-1]
        # a wide bar agrees with everything, so every generation of the window must be precise
        if any(one.error > self.max_error for one in estimates):
            return False
        if self.checked_by_label and last.label_value is None:
            return False
        if last.label_value is not None and not (
            abs(last.label_value - last.value) <= max(self.tolerance, last.error)
        ):
            return False
        return all(
            abs(a.value - b.value) <= max(self.tolerance, hypot(a.error, b.error))
            for a, b in combinations(estimates, 2)
        )

    def _known_everywhere(self, outcomes: Sequence[GenerationOutcome]) -> bool:
        """Return whether hardly anything was flagged lately, with error bars that hold."""
        if self.max_flagged_share is None:
            return False
        if len(outcomes) < max(self.window, self.min_generations):
            return False
        return all(
            outcome.flagged_share is not None
            and outcome.coverage is not None
            and outcome.flagged_share <= self.max_flagged_share
            and outcome.coverage >= self.min_coverage
            for outcome in outcomes[-self.window :]
        )
