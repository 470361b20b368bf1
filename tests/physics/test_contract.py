"""The physics every potential must obey, whatever its weights: checked on TACE in float64.

Symmetries hold to 1e-10 of the largest value; derivatives agree with finite differences.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from scipy.spatial.transform import Rotation

from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.outputs import TaceOutput
from tace_al.model.tace import Tace

CUTOFF = 4.0
EXACT = 1e-10


@pytest.fixture(scope="module", params=["tiny", "wide"])
def model(request: pytest.FixtureRequest) -> Tace:
    """Return a network with random weights and heads far from their defaults."""
    shapes: dict = {
        "tiny": {"channels": 8},
        "wide": {"channels": 6, "l_edge": 3, "l_hidden": 2, "num_layers": 3},
    }
    network = Tace.from_preset(
        "tiny",
        elements=["H", "C", "O", "Cu", "Au"],
        seed=4,
        cutoff=CUTOFF,
        dtype="float64",
        **shapes[request.param],
    )
    head = network.head()
    head.e0.copy_(torch.tensor([-1.5, -3.5, -2.5, -5.5, -4.5]).double())
    head.scale.fill_(0.7)
    head.shift.fill_(-1.3)
    return network


def rattled(atoms: Atoms, amplitude: float = 0.15) -> Atoms:
    atoms.rattle(amplitude, seed=7)
    return atoms


def alloy() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1] = "Au"
    shear = np.array([[0, 0.3, 0], [0, 0, -0.2], [0.5, 0, 0]])
    atoms.set_cell(atoms.cell.array + shear, scale_atoms=True)
    return rattled(atoms)


def slab() -> Atoms:
    atoms = rattled(fcc111("Cu", (1, 1, 2), vacuum=3.0))
    atoms.pbc = (True, True, False)
    return atoms


def tiny_crystal() -> Atoms:
    """Return one atom in a skewed cell much smaller than the cutoff."""
    return Atoms("Cu", cell=[[2.5, 0, 0], [1.1, 2.2, 0], [0.3, 0.9, 2.4]], pbc=True)


SYSTEMS: dict[str, Callable[[], Atoms]] = {
    "molecule": lambda: rattled(molecule("CH3CH2OH")),
    "alloy": alloy,
    "slab": slab,
    "one-atom cell": tiny_crystal,
}


@pytest.fixture(params=SYSTEMS)
def atoms(request: pytest.FixtureRequest) -> Atoms:
    return SYSTEMS[request.param]()


def evaluate(model: Tace, *frames: Atoms) -> TaceOutput:
    graph = batch_graphs([graph_from_atoms(frame, CUTOFF) for frame in frames])
    return model.evaluate(graph, ("forces", "stress"))


def close(first: torch.Tensor, second: torch.Tensor, tolerance: float = EXACT) -> bool:
    scale = max(1.0, float(torch.nan_to_num(first).abs().max()))
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


@pytest.mark.parametrize("inversion", [1, -1], ids=["rotation", "rotoinversion"])
def test_equivariance(model: Tace, atoms: Atoms, inversion: int) -> None:
    rotation = inversion * Rotation.random(rng=np.random.default_rng(5)).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    before, after = evaluate(model, atoms), evaluate(model, turned)
    matrix = torch.from_numpy(rotation)
    assert close(before.energy, after.energy)
    assert close(before.node_energy, after.node_energy)
    assert close(before.descriptors, after.descriptors)
    assert close(before.forces @ matrix.T, after.forces)
    assert close(matrix @ before.stress @ matrix.T, after.stress)


def test_translation_and_wrapping(model: Tace, atoms: Atoms) -> None:
    moved = atoms.copy()
    moved.positions += [11.3, -7.1, 3.9]
    moved.wrap()
    before, after = evaluate(model, atoms), evaluate(model, moved)
    assert close(before.energy, after.energy)
    assert close(before.forces, after.forces)
    assert close(before.stress, after.stress)


def test_permutation(model: Tace, atoms: Atoms) -> None:
    order = np.random.default_rng(0).permutation(len(atoms))
    before, after = evaluate(model, atoms), evaluate(model, atoms[order])
    assert close(before.energy, after.energy)
    assert close(before.forces[order], after.forces)
    assert close(before.node_energy[order], after.node_energy)


def test_newtons_third_law(model: Tace, atoms: Atoms) -> None:
    forces = evaluate(model, atoms).forces
    assert close(forces.sum(dim=0), torch.zeros(3).double())


def test_a_molecule_feels_no_torque(model: Tace) -> None:
    atoms = SYSTEMS["molecule"]()
    forces = evaluate(model, atoms).forces.detach().numpy()
    torque = np.cross(atoms.positions, forces).sum(axis=0)
    assert np.abs(torque).max() < 1e-9 * np.abs(forces).max()


def test_forces_are_minus_the_gradient(model: Tace, atoms: Atoms) -> None:
    forces = evaluate(model, atoms).forces.detach().numpy()
    step = 1e-4
    for index in {0, len(atoms) - 1}:
        for axis in range(3):
            energies = []
            for shift in (2, 1, -1, -2):
                moved = atoms.copy()
                moved.positions[index, axis] += shift * step
                energies.append(evaluate(model, moved).energy.item())
            numerical = np.dot([1, -8, 8, -1], energies) / (12 * step)  # fourth order, -dE/dx
            scale = max(1.0, np.abs(forces).max())
            assert forces[index, axis] == pytest.approx(numerical, abs=1e-6 * scale)


@pytest.mark.parametrize("build", [alloy, tiny_crystal])
def test_stress_is_the_strain_derivative(model: Tace, build: Callable[[], Atoms]) -> None:
    atoms, step = build(), 1e-4
    stress = evaluate(model, atoms).stress[0].detach().numpy()
    for a, b in ((0, 0), (2, 2), (0, 1), (1, 2)):
        energies = []
        for sign in (2, 1, -1, -2):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(evaluate(model, strained).energy.item())
        numerical = np.dot([-1, 8, -8, 1], energies) / (12 * step) / atoms.get_volume()
        assert stress[a, b] == pytest.approx(numerical, abs=1e-6 * max(1.0, np.abs(stress).max()))


def test_far_molecules_do_not_know_of_each_other(model: Tace) -> None:
    first, second = rattled(molecule("H2O")), rattled(molecule("CH4"))
    second.positions += [30.0, 0.0, 0.0]
    apart, together = evaluate(model, first, second), evaluate(model, first + second)
    assert close(apart.energy.sum(), together.energy.sum())
    assert close(apart.forces, together.forces)


@pytest.mark.parametrize("element", ["H", "O", "Au"])
def test_an_isolated_atom_is_e0_exactly(model: Tace, element: str) -> None:
    species = model.config.elements.index(element)
    for lone in (Atoms(element), Atoms(element, cell=[9, 9, 9], pbc=True)):
        output = evaluate(model, lone)
        assert output.energy.item() == model.head().e0[species].item()
        assert not output.forces.any()


def test_dissociation_ends_at_the_sum_of_e0(model: Tace) -> None:
    e0 = model.head().e0
    for gap, exact in ((CUTOFF, True), (CUTOFF - 1e-3, False)):
        dimer = Atoms("CO", positions=[[0, 0, 0], [0, 0, gap]])
        energy = evaluate(model, dimer).energy.item()
        assert abs(energy - (e0[1] + e0[2]).item()) < (1e-12 if exact else 1e-6)


def leaving_atom(gap: float) -> Atoms:
    """Return water with a carbon atom `gap` above its topmost atom, the others well below that."""
    atoms = rattled(molecule("H2O"))
    top = atoms.positions[atoms.positions[:, 2].argmax()]
    return atoms + Atoms("C", positions=[top + np.array([0.0, 0.0, gap])])


def test_an_atom_leaves_without_a_jump(model: Tace) -> None:
    """Beyond the cutoff it is alone; just inside its force grows as (r_c - r)^2."""
    water = evaluate(model, rattled(molecule("H2O")))
    carbon = model.head().e0[1]
    outside = evaluate(model, leaving_atom(CUTOFF))
    assert close(outside.energy, water.energy + carbon)
    assert close(outside.forces[:3], water.forces)
    assert not outside.forces[3].any()
    gaps = (0.002, 0.001)
    near, nearer = (evaluate(model, leaving_atom(CUTOFF - gap)).forces[3].norm() for gap in gaps)
    assert (near / nearer).item() == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("step", [1e-3, 1e-5])
def test_forces_are_continuous_while_edges_come_and_go(model: Tace, step: float) -> None:
    """Two fragments pass each other: every edge that appears does so with no force."""
    for shift in np.arange(2.0, 6.0, 0.5):
        outputs = []
        for sign in (-1, 1):
            atoms = rattled(molecule("CH3OH"))
            visitor = rattled(molecule("H2O"))
            visitor.positions += [shift + sign * step, 1.0, 1.0]
            outputs.append(evaluate(model, atoms + visitor))
        stiffness = 2e3  # eV/A^2, above any curvature at these distances
        assert (outputs[0].forces - outputs[1].forces).abs().max() < 2 * step * stiffness
        slope = max(1.0, outputs[0].forces.abs().max().item())
        assert (outputs[0].energy - outputs[1].energy).abs() < 2 * step * slope * 10


def test_a_batch_is_its_structures_one_by_one(model: Tace) -> None:
    frames = [*(build() for build in SYSTEMS.values()), Atoms("H")]
    together = evaluate(model, *frames)
    start = 0
    for index, frame in enumerate(frames):
        alone, stop = evaluate(model, frame), start + len(frame)
        assert close(alone.energy, together.energy[index : index + 1])
        assert close(alone.forces, together.forces[start:stop])
        assert close(alone.stress, together.stress[index : index + 1])
        assert close(alone.descriptors, together.descriptors[start:stop])
        start = stop


def test_structures_of_a_batch_do_not_talk(model: Tace) -> None:
    """Moving one structure, even on top of another, changes the other by nothing at all."""
    first, second = rattled(molecule("H2O")), rattled(molecule("CO2"))
    before = evaluate(model, first, second)
    second.positions += first.positions.mean(axis=0) + 0.3
    after = evaluate(model, first, second)
    assert torch.equal(before.energy[0], after.energy[0])
    assert torch.equal(before.forces[:3], after.forces[:3])


@pytest.mark.parametrize("build", [tiny_crystal, alloy])
def test_a_supercell_is_so_many_cells(model: Tace, build: Callable[[], Atoms]) -> None:
    atoms = build()
    supercell = make_supercell(atoms, [[2, 1, 0], [0, 1, 0], [0, -1, 2]])  # determinant 4
    small, large = evaluate(model, atoms), evaluate(model, supercell)
    assert close(4 * small.energy, large.energy)
    assert close(small.stress, large.stress)
    assert close(small.node_energy.sort().values.repeat_interleave(4), large.node_energy.sort()[0])


def test_vacuum_along_an_open_direction_does_not_count(model: Tace) -> None:
    thin, thick = slab(), slab()
    thick.cell[2, 2] = 60.0
    before, after = evaluate(model, thin), evaluate(model, thick)
    assert close(before.energy, after.energy)
    assert close(before.forces, after.forces)
    closed = slab()
    closed.set_pbc(True)
    closed.cell[2, 2] = np.ptp(closed.positions[:, 2]) + 1.5  # now images do meet
    assert not close(before.energy, evaluate(model, closed).energy, 1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_agree(model: Tace, atoms: Atoms) -> None:
    graph = graph_from_atoms(atoms, CUTOFF)
    here = model.evaluate(graph, ("forces", "stress"))
    try:
        there = model.to("cuda").evaluate(graph.to("cuda"), ("forces", "stress"))
    finally:
        model.to("cpu")
    assert close(here.energy, there.energy.cpu())
    assert close(here.forces, there.forces.cpu())
    assert close(here.stress, there.stress.cpu())
