from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from tace_al.report.report import report_text
from tace_al.report.summary import CampaignSummary, Target
from tace_al.report.tables import status_tables
from tace_al.report.target_figure import target_convergence


@pytest.fixture
def without_barriers(summary: CampaignSummary) -> CampaignSummary:
    """Return a campaign whose target is a sticking probability."""
    found = [
        Target(value=0.9 - 0.05 / item.number, error_bar=0.02) if item.number else None
        for item in summary.generations
    ]
    generations = tuple(
        replace(item, barriers={}, targets={"sticking": one} if one else {})
        for item, one in zip(summary.generations, found, strict=True)
    )
    return replace(
        summary,
        generations=generations,
        barriers={},
        targets=generations[-1].targets,
        config={**summary.config, "target": {"name": "sticking"}},
        result={},
    )


def test_a_target_is_drawn_told_and_tabled(without_barriers: CampaignSummary) -> None:
    figure = target_convergence(without_barriers)
    assert figure is not None and [axes.get_title("left") for axes in figure.axes] == ["sticking"]
    text = report_text(without_barriers, {})
    assert "sticking 0.875 ± 0.02" in text and "No barrier" not in text
    stream = StringIO()
    Console(file=stream, width=160).print(status_tables(without_barriers))
    assert "sticking" in stream.getvalue() and "0.875 ± 0.02" in stream.getvalue()


def test_a_target_that_is_still_to_come(without_barriers: CampaignSummary) -> None:
    none_yet = replace(without_barriers, targets={}, generations=())
    assert target_convergence(none_yet) is None
    assert "The target has not been evaluated yet." in report_text(none_yet, {})
