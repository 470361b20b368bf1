"""Every example runs as a program and prints one number, which is checked here."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"

EXPECTED = {
    "many_walkers.py": (0.2, 0.9),  # hot walkers are doubted sooner than cool ones
    "smallest_campaign.py": (0.20, 0.33),  # eV; GFN2-xTB: 0.265
    "train_and_use.py": (0.0, 300.0),  # meV/Angstrom; the forces themselves are about 2000
    "two_levels.py": (0.1, 0.7),  # force error with many cheap labels over that without: 0.4
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example(name: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lowest, highest = EXPECTED[name]
    assert lowest < float(finished.stdout) < highest


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)
