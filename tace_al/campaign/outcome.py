"""What a generation says about the barriers, and what the whole campaign says in the end."""

from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

from tace_al.campaign.workplace import Workplace
from tace_al.selection.stopping import GenerationOutcome, StoppingRule, TargetEstimate


@dataclass(frozen=True, kw_only=True, slots=True)
class CampaignResult:
    """The end of a campaign.

    Parameters
    ----------
    name, directory
        Of the campaign.
    reason
        Why it ended.
    barriers
        For each channel the dictionary that `GenerationRecord.barriers` holds (eV, Angstrom).
    references
        Known barriers in eV, for comparison only.
    lowering
        "value" and "error" of the catalysed barrier's lowering in eV, or None.
    num_labels
        Labels used, failed ones included.
    coverage
        Share of the errors within the error bars, or None.
    seconds
        Wall time over all sessions.
    report
        Where the report is.
    """

    name: str
    directory: Path
    reason: str
    barriers: dict[str, dict[str, Any]]
    references: dict[str, float]
    lowering: dict[str, float] | None
    num_labels: int
    coverage: float | None
    seconds: float
    report: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what the Store keeps."""
        return {
            "barriers": self.barriers,
            "labels": self.num_labels,
            "coverage": self.coverage,
            "reason": self.reason,
            "seconds": self.seconds,
            "lowering": self.lowering,
        }

    def summary(self) -> str:
        """Return the result in a few lines of text."""
        lines = [f"{self.name}: {self.reason}"]
        for channel, barrier in self.barriers.items():
            line = (
                f"  {channel:<20} barrier {barrier['barrier']:.3f} ± {barrier['error_bar']:.3f} eV"
            )
            if barrier["saddle_label"] is not None:
                line += f", the labeller at the saddle point {barrier['saddle_label']:.3f} eV"
            if not barrier["converged"]:
                line += ", path not converged"
            if channel in self.references:
                line += f" (reference {self.references[channel]:.3f})"
            lines.append(line)
        if self.lowering is not None:
            lines.append(
                f"  the catalyst lowers the barrier by {self.lowering['value']:.3f} "
                f"± {self.lowering['error']:.3f} eV"
            )
        covered = "not known" if self.coverage is None else f"{self.coverage:.0%}"
        lines.append(
            f"  {self.num_labels} labels, error bars cover {covered} of the errors, "
            f"{self.seconds / 60:.1f} min"
        )
        if self.report is not None:
            lines.append(f"  report: {self.report}")
        return "\n".join(lines)


def stopping_rule(workplace: Workplace) -> StoppingRule:
    """Return the rule that a campaign's settings describe."""
    stopping = workplace.campaign.stopping
    return StoppingRule(
        targets=tuple(reaction.name for reaction in workplace.campaign.reactions),
        window=stopping.window,
        min_generations=stopping.min_generations,
        tolerance=stopping.tolerance,
        max_error=stopping.max_error,
        max_labels=stopping.max_labels,
        max_seconds=stopping.max_seconds,
    )


def generation_outcomes(workplace: Workplace) -> list[GenerationOutcome]:
    """Return what each generation that served says of the barriers, oldest first."""
    outcomes = []
    for record in workplace.store.generations():
        if record.state not in ("serving", "retired") or not record.barriers:
            continue
        targets = {
            channel: TargetEstimate(
                value=barrier["barrier"],
                error=barrier["error_bar"],
                label_value=barrier["saddle_label"],
            )
            for channel, barrier in record.barriers.items()
            if barrier["converged"]
        }
        outcomes.append(
            GenerationOutcome(number=record.number, targets=targets, coverage=record.coverage)
        )
    return outcomes


def label_saddles(workplace: Workplace, structure: str, reactant_energy: dict[str, float]) -> None:
    """Enter the label of a saddle point into every barrier that waits for it.

    The error bar is widened to the difference between model and labeller where that is larger: it
    is known there.
    """
    store = workplace.store
    labels = [label for label in store.labels_of_structure(structure) if label.state == "labelled"]
    if not labels:
        return
    for record in store.generations():
        barriers = dict(record.barriers or {})
        for channel, barrier in barriers.items():
            if barrier["saddle"] != structure or barrier["saddle_label"] is not None:
                continue
            value = labels[0].energy - reactant_energy[channel]
            widened = max(barrier["error_bar"], abs(value - barrier["barrier"]))
            barriers[channel] = {**barrier, "saddle_label": value, "error_bar": widened}
            store.update_generation(record.number, barriers=barriers)


def campaign_result(
    workplace: Workplace, *, reason: str, num_labels: int, seconds: float
) -> CampaignResult:
    """Return the result: for each channel the last converged band, or the last one."""
    channels = [reaction.name for reaction in workplace.campaign.reactions]
    barriers: dict[str, dict[str, Any]] = {}
    coverage = None
    for record in workplace.store.generations():
        if record.state in ("serving", "retired") and record.barriers:
            for name, barrier in record.barriers.items():
                if barrier["converged"] or not barriers.get(name, barrier)["converged"]:
                    barriers[name] = barrier
            coverage = record.coverage if record.coverage is not None else coverage
    barriers = {name: barriers[name] for name in channels if name in barriers}
    lowering = None
    if workplace.campaign.catalyst and set(workplace.campaign.catalyst) <= set(barriers):
        without, with_catalyst = (barriers[name] for name in workplace.campaign.catalyst)
        lowering = {
            "value": without["barrier"] - with_catalyst["barrier"],
            "error": hypot(without["error_bar"], with_catalyst["error_bar"]),
        }
    return CampaignResult(
        name=workplace.campaign.name,
        directory=workplace.directory,
        reason=reason,
        barriers=barriers,
        references={
            reaction.name: reaction.reference_barrier
            for reaction in workplace.campaign.reactions
            if reaction.reference_barrier is not None
        },
        lowering=lowering,
        num_labels=num_labels,
        coverage=coverage,
        seconds=seconds,
    )
