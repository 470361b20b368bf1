import pytest
import typer

from tace_al.cli.time_limit import seconds_from_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), ("1h30m", 5400), (" 2 M ", 120)],
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_from_text(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "20 minutes", "-5", "0", "0s", "inf", "nan", "5x"])
def test_nonsense(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        seconds_from_text(text)
