"""E0: isolated atoms are exact, compositions fit the rest, and a guess is called a guess."""

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tace_al.core.errors import TrainingError
from tace_al.data.extxyz import ENERGY, is_isolated_atom
from tace_al.model.reference_energies import fit_reference_energies

E0 = {1: -13.6, 6: -1030.1, 8: -2041.3}
NUMBERS = [1, 6, 8]


def frame(name: str, energy: float | None = None) -> Atoms:
    atoms = Atoms(name) if len(name) == 1 else molecule(name)
    atoms.info[ENERGY] = sum(E0[z] for z in atoms.numbers) if energy is None else energy
    return atoms


def test_isolated_atoms_are_taken_as_they_are() -> None:
    frames = [frame("H"), frame("C"), frame("O"), frame("H2O", -5000.0)]
    assert fit_reference_energies(frames, NUMBERS).tolist() == list(E0.values())


def test_compositions_give_the_rest_by_least_squares() -> None:
    frames = [frame("H"), frame("CO"), frame("CO2"), frame("CH4")]
    assert np.allclose(fit_reference_energies(frames, NUMBERS), list(E0.values()), atol=1e-8)


def test_an_undetermined_fit_warns_and_still_reproduces_the_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = [frame("CO2"), frame("CO2")]
    with caplog.at_level(logging.WARNING):
        energies = fit_reference_energies(frames, [6, 8])
    assert "rank 1 of 2" in caplog.text
    assert "Add isolated atoms" in caplog.text
    assert energies @ [1, 2] == pytest.approx(E0[6] + 2 * E0[8])


def test_a_determined_fit_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    fit_reference_energies([frame("CO"), frame("CO2")], [6, 8])
    assert not caplog.text


def test_frames_without_energies_are_passed_over_and_none_at_all_is_an_error() -> None:
    assert fit_reference_energies([molecule("CH4"), frame("H")], [1]).tolist() == [E0[1]]
    with pytest.raises(TrainingError, match="no frame has REF_energy"):
        fit_reference_energies([molecule("CH4")], [1, 6])


def test_a_one_atom_crystal_is_not_an_isolated_atom() -> None:
    assert not is_isolated_atom(bulk("Cu"))
    boxed = Atoms("Cu", cell=[12, 12, 12], pbc=True)
    boxed.info["config_type"] = "IsolatedAtom"
    assert is_isolated_atom(boxed)
    assert is_isolated_atom(Atoms("Cu"))
