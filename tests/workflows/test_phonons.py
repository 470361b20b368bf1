"""The phonon workflow: its crystals, its options, and the whole of it in small."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from rich.console import Console

from tace_al.campaign.loop import run_campaign
from tace_al.core.errors import ConfigError
from tace_al.workflows.phonons import campaign, unit_cell


def test_supercells_stand_at_the_labellers_own_lattice_constant(tmp_path: Path) -> None:
    bulk("Al").write(tmp_path / "al.xyz")
    from_name, from_file = campaign(), campaign(crystal=str(tmp_path / "al.xyz"), relax=False)
    (copper,), (aluminium,) = from_name.structures, from_file.structures
    assert copper.name == "Cu" and len(copper.starts[0].symbols) == 32 and len(copper.seeds) == 16
    np.testing.assert_allclose(np.diag(copper.starts[0].cell), 2 * 3.58983, atol=1e-4)
    # faces of the primitive cell of aluminium are 2.34 A apart: three fit into 7 A
    assert aluminium.name == "Al" and len(aluminium.starts[0].symbols) == 27
    with pytest.raises(ConfigError, match="knows no cubic crystal of 'Xx'"):
        unit_cell("Xx")


@pytest.mark.slow
@pytest.mark.campaign
def test_a_small_campaign_converges_bands(tmp_path: Path) -> None:
    small = campaign(machine="threads", max_labels=40, min_height=3.0)
    small = small.model_copy(
        update={
            "model": small.model.model_copy(update={"members": 2, "first_epochs": 8, "epochs": 3}),
            "stopping": small.stopping.model_copy(update={"max_generations": 1}),
        }
    )
    result = run_campaign(small, directory=tmp_path, uri=None, console=Console(quiet=True))
    assert "highest" in result.summary() and "bands" in result.summary()
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000
