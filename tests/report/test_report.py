import dataclasses
from pathlib import Path

from tace_al.report.report import report_text, result_sentences, settings_text, write_report
from tace_al.report.summary import CampaignSummary
from tace_al.store.store import Store


def test_the_first_sentences_answer_the_question(summary: CampaignSummary) -> None:
    text = " ".join(result_sentences(summary))
    assert "bare 1.853 ± 0.030 eV; water 0.952 ± 0.040 eV" in text
    assert "lowers the barrier by **0.840 ± 0.050 eV** (bare → water)" in text
    assert "200 labels were made in 9 min 00 s" in text
    assert "90 % of the force errors were within their error bars" in text
    assert text.endswith("The campaign is finished: both barriers have converged.")


def test_the_report_has_what_reproduces_it(summary: CampaignSummary) -> None:
    text = report_text(summary, {"Barriers": "barriers.png"})
    assert "![Barriers](barriers.png)" in text
    assert "seed 7, code 0.1.0+g123, settings `ffff" in text
    assert "name: gfn2" in text and "positions" not in text
    assert "positions" in settings_text(summary), "the file beside it is complete"
    assert summary.generations[-1].models[0] in text
    assert "content_key" not in settings_text(summary), "no option of a campaign"
    assert "12:00:00 warning: member 2 failed once" in text
    assert "atoms 0 \\| 3 overlap" in text, "a bar inside a cell would split it"


def test_a_campaign_without_results_says_so(summary: CampaignSummary) -> None:
    young = dataclasses.replace(
        summary, state="running", generations=(), barriers={}, result={}, failures=()
    )
    text = report_text(young, {})
    assert "No barrier has been found yet." in text and "No label failed." in text
    assert "The campaign is running." in text


def test_a_report_from_the_store(recorded_campaign: Path, tmp_path: Path) -> None:
    with Store.open(recorded_campaign, create=False) as store:
        path = write_report(store, tmp_path / "report")
    text = path.read_text()
    assert "stretch 0.510 ± 0.020 eV" in text
    for name in ("profile_stretch", "barriers", "learning_curve", "calibration", "workers"):
        assert f"({name}.png)" in text
        assert (path.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "reference_barrier: 0.5" in (path.parent / "campaign.yaml").read_text()
