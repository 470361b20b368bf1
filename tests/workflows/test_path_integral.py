"""The path-integral workflow: its molecules, its options, and the whole of it in small."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tace_al.campaign.loop import run_campaign
from tace_al.core.errors import ConfigError
from tace_al.engines.labelling.guards import check_structure
from tace_al.workflows.path_integral import campaign, proton_sharer


@pytest.mark.parametrize("molecule", ["zundel", "malonaldehyde"])
def test_the_proton_lies_between_two_oxygens(molecule: str) -> None:
    atoms, (donor, proton, acceptor) = proton_sharer(molecule)
    check_structure(atoms)
    assert [atoms.symbols[index] for index in (donor, proton, acceptor)] == ["O", "H", "O"]
    assert atoms.get_distance(donor, proton) <= atoms.get_distance(proton, acceptor) + 1e-9 < 2.0
    others = np.delete(atoms.get_all_distances()[proton], [donor, proton, acceptor])
    assert others.min() > 1.2


def test_an_unknown_molecule_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"unknown molecule 'zundell'\. Did you mean 'zundel'"):
        campaign(molecule="zundell")


@pytest.mark.slow
@pytest.mark.ipi
@pytest.mark.campaign
def test_a_small_campaign_draws_both_densities(tmp_path: Path) -> None:
    small = campaign(beads=4, production_steps=420, max_labels=30, machine="threads")
    pimd = small.samplers[0]
    options = {**pimd.options, "steps": 10, "beads": 2}
    small = small.model_copy(
        update={
            "model": small.model.model_copy(update={"members": 2, "first_epochs": 20}),
            "stopping": small.stopping.model_copy(update={"max_generations": 1}),
            "samplers": (pimd.model_copy(update={"options": options, "walkers": 1}),),
        }
    )
    result = run_campaign(small, directory=tmp_path, uri=None, console=Console(quiet=True))
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000
    assert "quantum_width" in result.summary()
