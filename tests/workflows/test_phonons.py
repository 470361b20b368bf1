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
    from_name = campaign()
    from_file = campaign(crystal=str(tmp_path / "al.xyz"), relax=False, supercell_atoms=10)
    (copper,), (aluminium,) = from_name.structures, from_file.structures
    assert copper.name == "Cu" and len(copper.seeds) == 40 and len(copper.starts) == 8
    for start in copper.starts:
        assert len(start.symbols) == 16
        volume = np.linalg.det(start.cell) / 16
        np.testing.assert_allclose(volume, 3.58983**3 / 4, rtol=1e-4)
    assert aluminium.name == "Al" and {len(one.symbols) for one in aluminium.starts} == {10}
    with pytest.raises(ConfigError, match="knows no cubic crystal of 'Xx'"):
        unit_cell("Xx")


@pytest.mark.slow
@pytest.mark.campaign
def test_a_small_campaign_converges_bands(tmp_path: Path) -> None:
    small = campaign(machine="threads", max_labels=60, supercell_atoms=8)
    small = small.model_copy(
        update={
            "model": small.model.model_copy(update={"members": 2, "first_epochs": 8, "epochs": 3}),
            "stopping": small.stopping.model_copy(update={"max_generations": 1}),
        }
    )
    result = run_campaign(small, directory=tmp_path, uri=None, console=Console(quiet=True))
    assert "highest" in result.summary() and "bands" in result.summary()
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000
