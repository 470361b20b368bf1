import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tace_al.report import figures
from tace_al.report.style import save
from tace_al.report.summary import CampaignSummary


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def test_profile_shows_path_band_saddle_and_reference(summary: CampaignSummary, tmp_path) -> None:
    found = summary.barriers["water"]
    figure = drawn(figures.energy_profile("water", found, reference=0.985))
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["committee ± error bar", "labeller at saddle", "reference"]
    assert "eV" in axes.get_ylabel() and "Å" in axes.get_xlabel()
    assert f"{found.barrier:.3f} ± {found.error_bar:.3f} eV" in axes.get_title(loc="left")
    curve = axes.lines[0].get_ydata()
    assert curve.max() == pytest.approx(found.energies.max(), abs=1e-3)
    with Image.open(save(figure, tmp_path / "profile.png")) as image:
        assert image.format == "PNG" and image.width > 600


def test_profile_needs_a_path(summary: CampaignSummary) -> None:
    found = dataclasses.replace(summary.barriers["water"], energies=np.zeros(0))
    assert figures.energy_profile("water", found) is None


def test_calibration_counts_the_errors_within_their_bars(summary: CampaignSummary) -> None:
    figure = drawn(figures.calibration(summary))
    last = summary.generations[-1]
    share = 100 * np.mean(last.error <= last.scale * last.spread)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[0] == f"within the bar: {share:.0f} %"
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([84, 87, 90])


def test_calibration_without_a_single_positive_spread(summary: CampaignSummary) -> None:
    last = dataclasses.replace(summary.generations[-1], spread=np.zeros(5), error=np.ones(5))
    drawn(figures.calibration(dataclasses.replace(summary, generations=(last,))))


def test_learning_curve_is_against_labels(summary: CampaignSummary) -> None:
    figure = drawn(figures.learning_curve(summary))
    forces = figure.axes[0].lines[0]
    assert list(forces.get_xdata()) == [60, 130, 200]
    assert list(forces.get_ydata()) == [240.0, 120.0, 80.0]


def test_barriers_have_a_panel_a_channel(summary: CampaignSummary) -> None:
    figure = drawn(figures.barrier_convergence(summary))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["bare", "water"]


def test_timeline_has_a_row_a_worker(summary: CampaignSummary) -> None:
    figure = drawn(figures.worker_timeline(summary.tasks))
    assert len(figure.axes[0].get_yticks()) == 3
    assert figure.axes[0].get_xlabel().endswith("(min)")
    kinds = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert kinds == ["band", "label", "langevin", "train"]


def test_a_campaign_that_has_just_begun_draws_nothing(summary: CampaignSummary) -> None:
    young = dataclasses.replace(summary, generations=(), barriers={}, tasks=())
    assert figures.learning_curve(young) is None
    assert figures.calibration(young) is None
    assert figures.barrier_convergence(young) is None
    assert figures.worker_timeline(young.tasks) is None
