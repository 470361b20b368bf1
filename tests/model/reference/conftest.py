"""Checkpoints of the real tace==0.1.0, made once by it in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OVERLAY = ROOT / ".venv" / "reference-tace"


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that make_checkpoints.py filled."""
    if not (OVERLAY / "tace").is_dir():
        pytest.skip("tace==0.1.0 is not in .venv/reference-tace; run make install-test")
    folder = tmp_path_factory.mktemp("references")
    script = Path(__file__).with_name("make_checkpoints.py")
    environment = {**os.environ, "PYTHONPATH": str(OVERLAY), "HOME": str(folder)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return folder
