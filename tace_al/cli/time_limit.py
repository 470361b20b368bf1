"""Durations as people write them: 90, 90s, 20m, 1.5h, 1h30m."""

import re

import typer

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhd])")


def seconds_from_text(text: str) -> float:
    """Return a duration in seconds; a number without a unit is seconds.

    >>> seconds_from_text("20m"), seconds_from_text("1h30m"), seconds_from_text("45")
    (1200.0, 5400.0, 45.0)
    """
    plain = text.strip().lower()
    try:
        seconds = float(plain)
    except ValueError:
        parts = _PART.findall(plain)
        rest = _PART.sub("", plain).strip()
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if rest or not parts:
            raise typer.BadParameter(
                f"'{text}' is not a time; write 90s, 20m, 1.5h or 1h30m"
            ) from None
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"'{text}' is not a time greater than zero")
    return seconds
