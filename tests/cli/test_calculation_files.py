import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import write

from tace_al.cli.calculation_files import prepare_folder, read_structure, write_summary
from tace_al.core.errors import DataError, StructureError
from tace_al.data.frames import fixed_mask, spin_multiplicity, total_charge


def test_fixed_atoms_survive_the_file(tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.info.clear()
    slab.set_constraint(FixAtoms([0]))
    write(tmp_path / "slab.xyz", slab, format="extxyz")
    assert fixed_mask(read_structure(tmp_path / "slab.xyz")).tolist() == [True, False, False]


def test_charge_must_fit(tmp_path: Path) -> None:
    write(tmp_path / "w.xyz", molecule("H2O"), format="extxyz")
    atoms = read_structure(tmp_path / "w.xyz", charge=1, multiplicity=2)
    assert (total_charge(atoms), spin_multiplicity(atoms)) == (1, 2)
    with pytest.raises(StructureError, match="multiplicity 1"):
        read_structure(tmp_path / "w.xyz", charge=1, multiplicity=1)


def test_summary_has_results_on_top_and_says_where_they_are_from(tmp_path: Path) -> None:
    path = prepare_folder(tmp_path / "a" / "b") / "neb.json"
    write_summary(
        path, inputs={"file": path}, results={"barrier_ev": np.float64(0.5), "x_a": np.arange(2)}
    )
    content = json.loads(path.read_text())
    assert content["barrier_ev"] == 0.5 and content["x_a"] == [0, 1]
    assert content["inputs"] == {"file": str(path)} and "ase" in content["versions"]
    with pytest.raises(DataError, match="is a file"):
        prepare_folder(path)
