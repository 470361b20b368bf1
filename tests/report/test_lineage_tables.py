import json
from pathlib import Path

from rich.console import Console

from tace_al.report.lineage_tables import lineage_json, lineage_tables
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
