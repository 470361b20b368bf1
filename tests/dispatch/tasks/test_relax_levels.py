from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from tace_al.core.labels import Label
from tace_al.data.frames import read_frames, structure_key, write_frames
from tace_al.dispatch.apps import plain
from tace_al.dispatch.label_file import read_label
from tace_al.dispatch.tasks import relax, relax_levels
from tace_al.dispatch.tasks.relax_levels import relax_by_levels
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.sampling.labeller_potential import LabellerPotential


def stretched(size: float) -> Atoms:
    atoms = molecule("CH3OH")
    atoms.positions += np.random.default_rng(2).normal(0.0, size, (6, 3))
    return atoms


def payload(folder: Path, atoms: Atoms, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    write_frames(folder / "frames.npz", [atoms])
    common = {"options": {}, "force_ceiling": 50.0}
    return {
        "labeller": "gfn2",
        "name": "gfn2",
        **common,
        "labels_dir": str(folder / "labels"),
        "frames": str(folder / "frames.npz"),
        "fmax": 0.05,
        "max_steps": 60,
        "cheap": {"labeller": "gfn1", "name": "gfn1", **common},
        "cycles": 8,
        **changes,
    }


@pytest.mark.parametrize("size", [0.03, 0.1])
def test_few_expensive_labels_reach_the_expensive_minimum(tmp_path: Path, size: float) -> None:
    content = payload(tmp_path, stretched(size))
    result = relax_levels.run(content, tmp_path)
    assert plain(result) == result
    assert result["converged"] and not result["failure"]
    levels = [entry["level"] for entry in result["labels"]]
    plain_folder = tmp_path / "plain"
    plainly = relax.run(payload(plain_folder, stretched(size)), plain_folder)
    assert levels.count("gfn2") <= 4 < len(plainly["labels"])

    frames = read_frames(tmp_path / result["frames_file"])
    assert [structure_key(atoms) for atoms in frames] == [
        entry["structure"] for entry in result["labels"]
    ]
    last = read_label(Path(result["labels"][-1]["label_file"]))
    assert isinstance(last, Label) and levels[-1] == "gfn2"
    assert np.linalg.norm(last.forces, axis=1).max() <= 0.05
    # the relaxed structure has a label of either level, and both minima are the same
    relaxed = structure_key(frames[-1])
    both = {e["level"] for e in result["labels"] if e["structure"] == relaxed}
    assert both == {"gfn1", "gfn2"}
    other = read_label(Path(plainly["labels"][-1]["label_file"]))
    assert isinstance(other, Label)
    assert last.energy == pytest.approx(other.energy, abs=0.005)


def test_what_is_relaxed_costs_one_expensive_label(tmp_path: Path) -> None:
    atoms = stretched(0.05)
    expensive = LabellerPotential(labeller_from_name("gfn2"))
    assert relax_by_levels(
        atoms, expensive, expensive, fmax=0.01, steps=100, cycles=1
    )  # one tilt of nothing, then the plain relaxation
    result = relax_levels.run(payload(tmp_path, atoms), tmp_path)
    assert [entry["level"] for entry in result["labels"]] == ["gfn1", "gfn2"]
    assert result["converged"]


def test_fixed_atoms_stay_and_do_not_count(tmp_path: Path) -> None:
    atoms = stretched(0.05)
    atoms.set_constraint(FixAtoms(indices=[0]))
    result = relax_levels.run(payload(tmp_path, atoms), tmp_path)
    last = read_frames(tmp_path / result["frames_file"])[-1]
    assert result["converged"]
    np.testing.assert_array_equal(last.positions[0], atoms.positions[0])


def test_no_steps_label_the_start_at_both_levels(tmp_path: Path) -> None:
    result = relax_levels.run(payload(tmp_path, stretched(0.1), max_steps=0), tmp_path)
    assert [entry["level"] for entry in result["labels"]] == ["gfn1", "gfn2"]
    assert not result["converged"] and not result["failure"]


def test_a_level_that_fails_says_why(tmp_path: Path) -> None:
    atoms = stretched(0.0)
    atoms.info["spin_multiplicity"] = 2
    result = relax_levels.run(payload(tmp_path, atoms), tmp_path)
    assert not result["converged"] and result["failure"]
