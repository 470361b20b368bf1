"""What a generation says about barriers and targets, and what a campaign says in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path
from typing import Any

from tace_al.campaign.exploration import first_chunks
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
    targets
        For each value of another target its `value`, `error_bar`, `unit` and more.
    references
        Known barriers in eV, for comparison only.
    lowering
        "value" and "error" of the catalysed barrier's lowering in eV, or None.
    num_labels
        Labels used, failed ones included.
    labels_by_level
        The same by level of theory, the cheap one of two first.
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
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels_by_level: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what the Store keeps."""
        further: dict[str, Any] = {"targets": self.targets} if self.targets else {}
        if len(self.labels_by_level) > 1:
            further["labels_by_level"] = self.labels_by_level
        return {
            **further,
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
        for name, target in self.targets.items():
            lines.append(f"  {name:<20} {target_text(target)}")
        if self.lowering is not None:
            lines.append(
                f"  the catalyst lowers the barrier by {self.lowering['value']:.3f} "
                f"± {self.lowering['error']:.3f} eV"
            )
        covered = "not known" if self.coverage is None else f"{self.coverage:.0%}"
        levels = ", ".join(f"{name} {number}" for name, number in self.labels_by_level.items())
        shares = f" ({levels})" if len(self.labels_by_level) > 1 else ""
        lines.append(
            f"  {self.num_labels} labels{shares}, error bars cover {covered} of the errors, "
            f"{self.seconds / 60:.1f} min"
        )
        if self.report is not None:
            lines.append(f"  report: {self.report}")
        return "\n".join(lines)


def stopping_rule(workplace: Workplace) -> StoppingRule:
    """Return the rule that a campaign's settings describe."""
    campaign, stopping = workplace.campaign, workplace.campaign.stopping
    if campaign.target_name == "barrier":
        targets = [reaction.name for reaction in campaign.reactions]
    else:  # what the generations have named
        targets = sorted(
            {name for record in workplace.store.generations() for name in record.targets}
        )
    return StoppingRule(
        targets=tuple(targets),
        checked_by_label=campaign.target_name == "barrier",
        max_flagged_share=stopping.max_flagged_share,
        min_coverage=stopping.min_coverage,
        window=stopping.window,
        min_generations=stopping.min_generations,
        tolerance=stopping.tolerance,
        max_error=stopping.max_error,
        max_labels=stopping.max_labels,
        max_seconds=stopping.max_seconds,
    )


def generation_outcomes(workplace: Workplace) -> list[GenerationOutcome]:
    """Return what each generation that served says of barriers or targets, oldest first."""
    outcomes = []
    barriers_wanted = workplace.campaign.target_name == "barrier"
    chunks = workplace.store.chunks(kind="md")
    for record in workplace.store.generations():
        if record.state not in ("serving", "retired"):
            continue
        if barriers_wanted and not record.barriers:
            continue
        targets = _barrier_estimates(record) if barriers_wanted else _target_estimates(record)
        outcomes.append(
            GenerationOutcome(
                number=record.number,
                targets=targets,
                flagged_share=flagged_share(first_chunks(chunks, record.number)),
                coverage=record.coverage,
            )
        )
    return outcomes


def _barrier_estimates(record: Any) -> dict[str, TargetEstimate]:
    """Return the barriers of a generation whose paths converged."""
    return {
        channel: TargetEstimate(
            value=barrier["barrier"],
            error=barrier["error_bar"],
            label_value=barrier["saddle_label"],
        )
        for channel, barrier in record.barriers.items()
        if barrier["converged"]
    }


def _target_estimates(record: Any) -> dict[str, TargetEstimate]:
    """Return the values of a generation's target."""
    return {
        name: TargetEstimate(value=one["value"], error=one["error_bar"], unit=one["unit"])
        for name, one in record.targets.items()
    }


def flagged_share(chunks: Sequence[Any]) -> float | None:
    """Return the share of the frames kept by some chunks that were not known, None without any.

    A chunk that ended at a broken frame, which is never kept, counts it as one that was not known.
    """
    kept = flagged = 0
    for chunk in chunks:
        result = chunk.summary.get("result")
        broken = int(chunk.state == "broken")
        kept += broken + (result["num_frames"] if result else 0)
        flagged += broken + (result["num_uncertain"] if result else 0)
    return flagged / kept if kept else None


def target_text(target: Mapping[str, Any]) -> str:
    """Return "0.81 ± 0.03 THz"."""
    return f"{target['value']:.4g} ± {target['error_bar']:.2g} {target['unit']}".strip()


def label_saddles(workplace: Workplace, structure: str, reactant_energy: dict[str, float]) -> None:
    """Enter the label of a saddle point into every barrier that waits for it.

    The error bar is widened to the difference between model and labeller where that is larger: it
    is known there.
    """
    store = workplace.store
    labels = [
        label
        for label in store.labels_of_structure(structure)
        if label.state == "labelled" and label.fidelity_name == workplace.target.name
    ]
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
    """Return the result: for each channel the last converged band or the last one; targets."""
    channels = [reaction.name for reaction in workplace.campaign.reactions]
    barriers: dict[str, dict[str, Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    coverage = None
    for record in workplace.store.generations():
        if record.state in ("serving", "retired"):
            targets |= {name: dict(one) for name, one in record.targets.items()}
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
        labels_by_level={
            name: len(workplace.store.labels(name, state=None)) for name in workplace.levels
        },
        coverage=coverage,
        seconds=seconds,
        targets=targets,
    )
