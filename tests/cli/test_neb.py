import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.constraints import FixAtoms
from ase.io import write

from tace_al.cli.neb import matched
from tace_al.data.extxyz import read_structures
from tace_al.data.frames import fixed_mask
from tace_al.engines.sampling.band_path import comparable_ends


def written_hop(folder: Path, metal: str, adsorbate: str, height: float) -> tuple[Path, Path]:
    """Write an atom in one hollow of a (100) surface and in the next, both unrelaxed."""
    paths = folder / "initial.xyz", folder / "final.xyz"
    for path, place in zip(paths, (0.0, 0.5), strict=True):
        slab = fcc100(metal, (2, 2, 3))
        add_adsorbate(slab, adsorbate, height, "hollow")
        slab.center(5.0, axis=2)
        slab.positions[-1, 0] += place * slab.cell[0, 0]
        slab.wrap()  # the path leaves the cell and must come back on the other side
        slab.info.clear()
        slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
        write(path, slab, format="extxyz")
    return paths


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metal", "adsorbate", "height", "barrier"), [("Al", "Au", 1.7, 0.375), ("Pt", "O", 1.2, 0.119)]
)
def test_known_barriers_from_unrelaxed_files(
    tace_al: Callable[..., Any],
    tmp_path: Path,
    metal: str,
    adsorbate: str,
    height: float,
    barrier: float,
) -> None:
    ends = written_hop(tmp_path, metal, adsorbate, height)
    out = tmp_path / "neb"
    outcome = tace_al("neb", *ends, "--calculator", "emt", "--images", 5, "--out", out)
    assert outcome.code == 0, outcome.err
    found = read(out / "neb.json")
    assert found["barrier_ev"] == pytest.approx(barrier, abs=0.01)
    assert found["reverse_barrier_ev"] == pytest.approx(barrier, abs=0.01)
    assert len(found["energies_ev"]) == 5 and found["energies_ev"][0] == 0.0
    assert found["converged"] and found["barrier_error_ev"] is None
    band = read_structures(out / "band.xyz")
    jumps = [np.abs(b.positions - a.positions).max() for a, b in pairwise(band)]
    assert max(jumps) < 1.5, "no image jumps across the cell"
    assert (out / "neb.png").stat().st_size > 1000
    assert len(read_structures(out / "saddle.xyz")) == 1


def test_a_band_goes_on_where_it_was(tace_al: Callable[..., Any], tmp_path: Path) -> None:
    ends = written_hop(tmp_path, "Al", "Au", 1.7)
    out = tmp_path / "neb"
    arguments = ["neb", *ends, "--calculator", "emt", "--images", 3, "--out", out, "--fmax", 0.05]
    short = tace_al(*arguments, "--max-steps", 3)
    assert short.code == 2 and "it goes on from" in short.err
    first = read(out / "neb.json")
    assert not first["converged"] and not first["inputs"]["resumed"]
    tace_al(*arguments, "--max-steps", 6)
    second = read(out / "neb.json")
    assert second["inputs"]["resumed"] and second["fmax_ev_per_a"] != first["fmax_ev_per_a"]
    assert second["total_energy_initial_ev"] == first["total_energy_initial_ev"], "ends as relaxed"
    other = tace_al(*arguments, "--images", 5)
    assert other.code == 2 and "another band" in other.err


def test_end_states_that_do_not_belong_together(
    tace_al: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "a.xyz", molecule("H2O"), format="extxyz")
    write(tmp_path / "b.xyz", Atoms("HOH", molecule("H2O").positions), format="extxyz")
    outcome = tace_al(
        *["neb", tmp_path / "a.xyz", tmp_path / "b.xyz", "--calculator", "emt", "--no-relax"],
        *["--out", tmp_path / "neb"],
    )
    assert outcome.code == 2 and "same order" in outcome.err


def permuted(atoms: Atoms, seed: int) -> Atoms:
    return atoms[np.random.default_rng(seed).permutation(len(atoms))]


def test_a_final_state_in_another_order_is_noticed_and_put_right() -> None:
    """A slab with held atoms, and a molecule that is turned as well."""
    slab = fcc100("Al", (2, 2, 3), vacuum=6.0)
    add_adsorbate(slab, "Au", 1.7, "hollow")
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    hopped = slab.copy()
    hopped.positions[-1, 0] += 0.5 * slab.cell[0, 0]
    turned = molecule("CH3OH")
    turned.rotate(20, (1, 2, 3))
    for initial, final in ((slab, hopped), (molecule("CH3OH"), turned)):
        _, found = matched(initial, permuted(final, seed=4), reorder=True)
        assert (found.numbers == initial.numbers).all()
        assert (fixed_mask(found) == fixed_mask(initial)).all()
        np.testing.assert_allclose(
            comparable_ends(initial, found), comparable_ends(initial, final), atol=1e-9
        )


def test_atoms_that_changed_places_are_told(caplog: pytest.LogCaptureFixture) -> None:
    slab = fcc100("Al", (2, 2, 3), vacuum=6.0)
    swapped = slab[[0, 1, 2, 3, 4, 5, 6, 7, 11, 9, 10, 8]]
    assert matched(slab, swapped, reorder=False)[1] is swapped
    assert "atoms 8, 11" in caplog.text and "--match" in caplog.text
    caplog.clear()
    rattled = slab.copy()
    rattled.rattle(0.3, seed=1)
    assert matched(slab, rattled, reorder=False)[1] is rattled
    assert not caplog.text
