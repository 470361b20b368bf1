import dataclasses
from datetime import timedelta

from rich.console import Console

from tace_al.report.summary import CampaignSummary, TaskSpan
from tace_al.report.tables import duration, rate_table, status_tables


def shown(renderable: object) -> str:
    console = Console(width=140, record=True, color_system=None, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_status_shows_generations_queue_rates_and_failures(summary: CampaignSummary) -> None:
    text = shown(status_tables(summary))
    assert "carbonic acid  finished  9 min 00 s  200 labels" in text
    assert "0.952 ± 0.040" in text and "90 % (90 %)" in text
    assert "candidates flagged" in text and "labels for calibration" in text
    assert "contact" in text and "per minute" in text


def test_status_of_a_running_campaign_counts_up_to_now(summary: CampaignSummary) -> None:
    running = dataclasses.replace(summary, state="running", result={}, generations=())
    text = shown(status_tables(running, now=summary.created + timedelta(minutes=10)))
    assert "running  10 min 00 s" in text and "no sign of life" not in text
    assert "No generation has been trained yet." in text


def test_a_killed_campaign_is_not_shown_as_alive(summary: CampaignSummary) -> None:
    killed = dataclasses.replace(summary, state="running", result={})
    text = shown(status_tables(killed, now=summary.created + timedelta(hours=2)))
    assert "running  9 min 00 s" in text and "no sign of life for 1 h 51 min" in text


def test_rates_count_the_last_minutes_only() -> None:
    tasks = [
        TaskSpan(kind="label", worker="a", started=10.0 * step, ended=10.0 * step + 10)
        for step in range(100)
    ]
    cells = [list(column.cells) for column in rate_table(tuple(tasks)).columns]
    assert cells[1] == ["100"] and cells[3] == ["10.0"]
    assert cells[4] == ["6.0"]


def test_durations() -> None:
    assert duration(59.6) == "1 min 00 s"
    assert duration(0) == "0 s"
