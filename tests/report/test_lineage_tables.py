import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tace_al.report.lineage_tables import label_table, lineage_json, lineage_tables
from tace_al.store.lineage_nodes import ChunkNode, FileNode, Lineage
from tace_al.store.store import Store


def shown(renderable: object) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_model_leads_to_its_parents_and_labels(recorded_campaign: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        lineage = store.lineage("10ab")
    text = shown(lineage_tables(lineage))
    assert "00ababababab  generation 0, member 0, 3 labels, seed 40" in text
    assert "code version" in text and lineage.models[0].training_set in text
    assert text.count("gfn2") == 5, "the labels it saw"
    content = json.loads(lineage_json(lineage))
    assert len(content["labels"]) == 5 and content["models"][1]["generation"] == 0


def test_a_structure_leads_to_the_models_that_saw_it(recorded_campaign: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        label = store.labels()[4]
        lineage = store.lineage(label.structure)
    text = shown(lineage_tables(lineage))
    assert "Models that saw it" in text
    assert "10ababababab" in text and "00ababababab" not in text, "only the second generation"
    assert "origin" in text and "step 4" in text


def test_a_checkpoint_leads_through_files_to_the_campaign(recorded_campaign: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        model = store.lineage("10ab").models[0]
    first = FileNode(file="fine.tace", digest="ab" * 16, metadata={"data": "own.xyz", "seed": 1})
    start = FileNode(file="start.tace", digest=None, metadata={}, model=model.key)
    lineage = Lineage(
        kind="file",
        key="ab" * 16,
        models=(model,),
        labels=(),
        files=(first, start),
        unknown=tuple(f"{number:032x}" for number in range(7)),
    )
    text = shown(lineage_tables(lineage))
    assert "Checkpoint" in text and "own.xyz" in text
    assert "start.tace  digest unknown, the campaign's model 10ababababab" in text
    assert "generation 1, member 0" in text
    assert "Not in this campaign: 000000000000" in text and "and 2 more" in text
    assert json.loads(lineage_json(lineage))["files"][1]["model"] == model.key


def test_a_frame_tells_its_trajectory_and_whom_it_calibrated(recorded_campaign: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        audit = store.lineage(store.labels(role="calibration")[0].structure)
        failed = store.lineage(store.labels(state="failed")[0].structure)
    text = shown(lineage_tables(audit))
    assert "Models whose error bars were fitted to it" in text and "10ababababab" in text
    assert "failed: convergence" in shown(lineage_tables(failed))
    chunk = ChunkNode(
        key="k",
        walker="stretch-0",
        kind="md",
        index=4,
        state="uncertain",
        generation=1,
        attempt=0,
        temperature=500.0,
        frames_path="results/f.npz",
    )
    assert audit.structure is not None
    flagged = replace(audit.structure, chunk=chunk, flagged_by_models=("10ab" * 8,))
    text = shown(lineage_tables(replace(audit, structure=flagged)))
    assert "md of walker stretch-0, chunk 4 (uncertain, 500 K)" in text
    assert "results/f.npz" in text and "flagged by models" in text


def test_of_many_labels_the_first_and_last_are_shown(recorded_campaign: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        label = store.lineage("10ab").labels[0]
    many = tuple(replace(label, sequence=number) for number in range(1000, 1100))
    text = shown(label_table(many, title="Labels"))
    assert "1019" in text and "1020" not in text and "1080" in text and "1099" in text
    assert "60 more" in text and "see --json" in text
