"""The history of a model, a checkpoint or a structure, for the terminal and as JSON."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.tree import Tree

if TYPE_CHECKING:
    from tace_al.store.lineage_nodes import (
        FileNode,
        LabelNode,
        Lineage,
        ModelNode,
        SightNode,
        StructureNode,
    )

SHORT = 12
MOST_UNKNOWN = 5
MOST_LABELS = 40


def lineage_tables(lineage: "Lineage") -> RenderableType:
    """Return a model's facts, ancestors and labels, or a structure's facts, labels and models."""
    return Group(*_parts(lineage))


def _parts(lineage: "Lineage") -> Iterator[RenderableType]:
    """Give the tables of a history."""
    if lineage.structure is not None:
        yield structure_table(lineage.structure)
        yield label_table(lineage.labels, title="Its labels")
        yield model_table(lineage.models, title="Models that saw it")
        if lineage.calibrated:
            yield model_table(lineage.calibrated, title="Models whose error bars were fitted to it")
        if lineage.sights:
            yield sight_table(lineage.sights)
        return
    if lineage.kind == "file":
        yield file_table(lineage.files[0])
        yield file_tree(lineage)
    else:
        yield facts_table(lineage.models[0])
        yield ancestor_tree(lineage.models)
    if lineage.labels or not lineage.files:
        yield label_table(lineage.labels, title="Labels it saw, in order")
    if lineage.unknown:
        listed = ", ".join(key[:SHORT] for key in lineage.unknown[:MOST_UNKNOWN])
        more = len(lineage.unknown) - MOST_UNKNOWN
        yield f"Not in this campaign: {listed}" + (f" and {more} more" if more > 0 else "")


def lineage_json(lineage: "Lineage") -> str:
    """Return the whole history as JSON."""
    return json.dumps(dataclasses.asdict(lineage), indent=2, default=str)


def facts_table(model: "ModelNode") -> Table:
    """Return what made a model what it is."""
    metrics = sorted(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in model.metrics.items()
        if _is_plain(value)
    )
    return _pairs(
        "Model",
        {
            "key": model.key,
            "generation, member": f"{model.generation}, {model.member}",
            "file": f"{model.path} ({(model.digest or 'digest unknown')[:SHORT]})",
            "parents": ", ".join(parent[:SHORT] for parent in model.parents) or "none",
            "training set": f"{model.training_set} ({model.num_labels} labels)",
            "seed": str(model.seed),
            "code version": model.code_version,
            "made": f"{model.created:%Y-%m-%d %H:%M:%S} UTC",
            "metrics": ", ".join(metrics) or "none",
        },
    )


def file_table(file: "FileNode") -> Table:
    """Return what a checkpoint says about its making."""
    told = {
        name.replace("_", " "): str(value)
        for name, value in sorted(file.metadata.items())
        if value not in (None, [], {})
    }
    return _pairs("Checkpoint", {"file": file.file, "digest": file.digest or "unknown", **told})


def file_tree(lineage: "Lineage") -> Tree:
    """Return the files that a checkpoint goes on from, and the campaign's models behind them."""
    branch = tree = Tree(f"[bold]Goes on from[/bold]\n{lineage.files[0].file}")
    behind = {model.key: model for model in lineage.models}
    for file in lineage.files[1:]:
        digest = file.digest[:SHORT] if file.digest else "digest unknown"
        branch = branch.add(f"{file.file}  {digest}, {_made_from(file)}")
        if file.model is not None:
            branch.add(ancestor_tree([behind[file.model], *lineage.models]))
    return tree


def _made_from(file: "FileNode") -> str:
    """Return where the weights of a file come from, in few words."""
    if file.model is not None:
        return f"the campaign's model {file.model[:SHORT]}"
    told = file.metadata
    if told.get("data"):
        known = f", {len(file.labels)} labels known by key" if file.labels else ""
        return f"trained on {told.get('num_training', '?')} structures of {told['data']}{known}"
    if told.get("campaign"):
        return f"campaign {told['campaign']}, generation {told.get('generation')}"
    return "trained on unknown data"


def sight_table(sights: "Sequence[SightNode]") -> Table:
    """Return one row a checkpoint that was asked about."""
    table = Table(title="Checkpoints", title_justify="left", header_style="bold")
    for column in ("file", "digest", "saw it"):
        table.add_column(column, overflow="fold")
    for sight in sights:
        through = sight.through
        itself = through == Path(sight.file).name
        saw = "no" if through is None else "itself" if itself else f"through {through}"
        table.add_row(sight.file, sight.digest[:SHORT], saw)
    return table


def structure_table(structure: "StructureNode") -> Table:
    """Return what a structure is, where it comes from and who flagged it."""
    origin, met = (
        ", ".join(f"{name} {value}" for name, value in told.items())
        for told in (structure.origin, structure.met)
    )
    facts = {
        "key": structure.key,
        "formula": structure.formula,
        "charge, multiplicity": f"{structure.charge:+d}, {structure.multiplicity}",
        "channel": structure.channel,
        "origin": origin or "unknown",
    }
    if structure.candidate_kind is not None:
        state = structure.candidate_state or ""
        reason = f" ({structure.reason})" if structure.reason else ""
        facts["chosen as"] = f"{structure.candidate_kind}, {state}{reason}"
        facts["flagged by generation"] = str(structure.flagged_by_generation)
    if met:
        facts["flagged in"] = met
    if structure.flagged_by_models:
        facts["flagged by models"] = ", ".join(key[:SHORT] for key in structure.flagged_by_models)
    if structure.uncertainty is not None:
        facts["error bar when flagged"] = f"{structure.uncertainty:.3f} eV/Å"
    chunk = structure.chunk
    if chunk is not None:
        heat = "" if chunk.temperature is None else f", {chunk.temperature:g} K"
        facts["trajectory"] = (
            f"{chunk.kind} of walker {chunk.walker}, chunk {chunk.index} ({chunk.state}{heat})"
        )
        facts["trajectory's frames"] = chunk.frames_path or "none kept"
    return _pairs("Structure", facts)


def ancestor_tree(models: "Sequence[ModelNode]") -> Tree:
    """Return a model's parents, their parents, and so on; a model met before is not unfolded."""
    by_key = {model.key: model for model in models}
    met: set[str] = set()

    def text(key: str) -> str:
        model = by_key[key]
        return (
            f"{key[:SHORT]}  generation {model.generation}, member {model.member}, "
            f"{model.num_labels} labels, seed {model.seed}"
        )

    def grow(branch: Tree, key: str) -> None:
        for parent in by_key[key].parents:
            if parent in by_key:
                twig = branch.add(text(parent))
                if parent not in met:
                    met.add(parent)
                    grow(twig, parent)

    root = models[0].key
    tree = Tree(f"[bold]Parents[/bold]\n{text(root)}")
    grow(tree, root)
    return tree


def label_table(labels: "Sequence[LabelNode]", *, title: str) -> Table:
    """Return one row a label, of many the first and the last ones."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("#", "label", "structure", "level", "code", "use", "gen", "energy, eV"):
        table.add_column(
            column,
            justify="right" if column in ("#", "gen", "energy, eV") else "left",
            min_width=SHORT if column in ("label", "structure") else None,
        )
    skipped = len(labels) - MOST_LABELS
    for place, label in enumerate(labels):
        if skipped > 0 and place == MOST_LABELS // 2:
            table.add_row("...", f"{skipped} more", "see --json", end_section=True)
        if skipped > 0 and MOST_LABELS // 2 <= place < MOST_LABELS // 2 + skipped:
            continue
        table.add_row(
            str(label.sequence),
            label.key[:SHORT],
            label.structure[:SHORT],
            label.fidelity_name,
            label.code,
            label.role or f"{label.state}: {label.failure_kind}",
            str(label.generation),
            "–" if label.energy is None else f"{label.energy:.4f}",
        )
    return table


def model_table(models: "Sequence[ModelNode]", *, title: str) -> Table:
    """Return one row a model."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("model", "generation", "member", "labels", "training set", "seed"):
        table.add_column(column)
    for model in models:
        table.add_row(
            model.key[:SHORT],
            str(model.generation),
            str(model.member),
            str(model.num_labels),
            model.training_set[:SHORT],
            str(model.seed),
        )
    return table


def _pairs(title: str, facts: Mapping[str, str]) -> Table:
    """Return names and values as a table without a head."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _is_plain(value: Any) -> bool:
    """Whether a value fits on a line."""
    return isinstance(value, int | float | str)
