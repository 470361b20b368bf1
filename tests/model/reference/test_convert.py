"""Imported models against the real tace==0.1.0, for random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from typer.testing import CliRunner

from tace_al.core.errors import CheckpointError
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.calculator import TaceCalculator
from tace_al.model.checkpoint import load
from tace_al.model.reference.convert import import_reference
from tace_al.model.tace import Tace

pytestmark = [pytest.mark.reference_tace, pytest.mark.slow]

RELATIVE = 1e-11
"""Of the largest number of a batch; measured: at most 4e-14. The issue asks for 1e-9."""

CASES = (
    "coupled",
    "one_layer",
    "three_layers",
    "order_3",
    "defaults",
    "order_3_channel_wise",
    "degree_1",
    "channel_wise_for_all",
    "mixed_weights",
    "restricted",
    "filtered",
    "precomputed",
    "biases",
    "biases_channel_wise",
    "first_self_connection",
    "few_message_channels",
    "other_numbers",
    "last_readout_only",
    "unscaled",
    "outer_cutoff",
    "outer_cutoff_biases",
    "radial_species",
    "radial_senders",
    "levels",
    "levels_embedded",
    "levels_only_embedded",
    "spin",
    "four_embeddings",
    "field",
    "field_linear",
)
NAMES = {
    "polarization": "dipole",
    "conservative_polarizability": "polarizability",
    "born_effective_charges": "born_charges",
}


def evaluated(model: Tace, folder: Path) -> dict[str, np.ndarray]:
    """Return what our model says about the frames the reference was asked about."""
    frames = read(folder / "frames.traj", ":")
    graphs = [
        graph_from_atoms(atoms, model.config.cutoff, conditions=model.config.conditions)
        for atoms in frames
    ]
    responses = ("electric_field" in model.config.embeddings) * tuple(NAMES.values())
    heads = model.config.heads
    output = model.evaluate(
        batch_graphs(graphs),
        ("forces", "stress", *responses),
        head=[heads[atoms.info["level"] % len(heads)] for atoms in frames],
    )
    values = {"energy": output.energy} | dict(output.tensors)
    return {name: value.numpy() for name, value in values.items()}


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return what the reference said."""
    with np.load(path) as content:
        return dict(content)


def largest_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest deviation, relative to the largest number; where ours is not NaN."""
    known = ~np.isnan(ours)
    return float(np.abs(ours - theirs)[known].max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", CASES)
def test_imported_model_is_the_reference(references: Path, name: str) -> None:
    """Energies, forces, stress, and field responses where there is a field."""
    ours = evaluated(import_reference(references / f"{name}.pt"), references)
    theirs = arrays(references / f"{name}.npz")
    assert {"energy", "forces", "stress"} <= set(theirs)
    for quantity in theirs:
        error = largest_error(ours[NAMES.get(quantity, quantity)], theirs[quantity])
        assert error < RELATIVE, (quantity, error)


def test_levels_differ(references: Path) -> None:
    """The comparison above would not see heads mixed up if all were alike."""
    model = import_reference(references / "levels.pt", head_names=["pbe", "r2scan"])
    atoms = read(references / "frames.traj", 0)
    graph = graph_from_atoms(atoms, model.config.cutoff)
    energies = [model.evaluate(graph, (), head=head).energy.item() for head in ("pbe", "r2scan")]
    assert abs(energies[0] - energies[1]) > 0.1


def test_trainer_checkpoint_gives_averaged_weights(references: Path) -> None:
    """The reference takes the moving average of its trainer's checkpoint; so do we."""
    ours = evaluated(import_reference(references / "trainer.ckpt"), references)
    theirs = arrays(references / "trainer.npz")
    for quantity in theirs:
        assert largest_error(ours[quantity], theirs[quantity]) < RELATIVE


def test_single_precision_stays_single(references: Path) -> None:
    """A float32 checkpoint becomes a float32 model, as exact as that allows."""
    model = import_reference(references / "single.pt")
    assert model.config.dtype == "float32"
    theirs = arrays(references / "trainer.npz")
    ours = evaluated(model, references)
    assert largest_error(ours["energy"], theirs["energy"]) < 1e-5
    assert largest_error(ours["forces"], theirs["forces"]) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_whole_pickled_model_gives_the_same(references: Path, name: str) -> None:
    """Read as data; its configuration follows from the attributes of its parts."""
    exported = import_reference(references / f"{name}.pt")
    whole = import_reference(references / f"{name}.whole.pt")
    assert whole.config == exported.config
    for key, tensor in exported.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(whole.state_dict()[key])), key


def test_other_precision_on_request(references: Path) -> None:
    """The single-precision weights, computed with in double precision."""
    model = import_reference(references / "single.pt", dtype="float64")
    theirs = arrays(references / "trainer.npz")
    assert model.config.dtype == "float64"
    assert largest_error(evaluated(model, references)["energy"], theirs["energy"]) < 1e-6


def test_command_writes_a_model_that_calculators_use(references: Path, tmp_path: Path) -> None:
    """`tace-al import-tace` from file to forces."""
    from tace_al.cli.main import app

    out = tmp_path / "imported.tace"
    run = CliRunner().invoke(app, ["import-tace", str(references / "order_3.pt"), str(out)])
    assert run.exit_code == 0, run.output
    assert "3 elements" in run.output
    model = load(out)
    assert model.metadata["imported_from"] == "tace==0.1.0"
    atoms = read(references / "frames.traj", 0)
    atoms.calc = TaceCalculator(model)
    theirs = arrays(references / "order_3.npz")
    assert abs(atoms.get_potential_energy() - theirs["energy"][0]) < 1e-10
    assert np.abs(atoms.get_forces() - theirs["forces"][: len(atoms)]).max() < 1e-10


def test_weights_that_nothing_reads_are_refused(references: Path) -> None:
    """A part this package does not know would change energies in silence."""
    with pytest.raises(CheckpointError, match=r"extra\.weight"):
        import_reference(references / "unknown_part.pt")


def test_every_case_is_compared(references: Path) -> None:
    """What the reference was asked to make is what is compared here."""
    made = {path.stem for path in references.glob("*.npz")} - {"trainer"}
    assert made == set(CASES)
