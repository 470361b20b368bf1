"""Every output by name: derived ones against finite differences, direct ones by their symmetry."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from tace_al.core.errors import ModelError
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model.config import TensorOutput
from tace_al.model.outputs import TaceOutput
from tace_al.model.tace import Tace
from tace_al.model.tensor_readout import TensorReadout
from tace_al.model.vibrations import hessian

ELEMENTS = ["H", "C", "O", "Cu"]
STEP = 1e-4
TENSORS = (
    TensorOutput(name="atomic_scalar", rank=0, per="atom"),
    TensorOutput(name="dipole", rank=1),
    TensorOutput(name="polarizability", rank=2, symmetry="ij=ji"),
    TensorOutput(name="shielding", rank=2, per="atom"),
    TensorOutput(name="gyration", rank=2, symmetry="ij=-ji"),
    TensorOutput(name="hyperpolarizability", rank=3),
)


def network(**options) -> Tace:
    """Return a network in float64 with weights far from any special value."""
    shape = {"channels": 8, "cutoff": 4.0, "dtype": "float64", "radial_hidden": (8,)}
    shape["radial_decay"] = 0.0  # so that small effects stand out
    model = Tace.from_preset("tiny", elements=ELEMENTS, seed=3, **{**shape, **options})
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # embeddings start without effect
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    for name in model.config.heads:
        model.head(name).scale.fill_(2.0)
    return model


@pytest.fixture(scope="module")
def plain() -> Tace:
    return network()


@pytest.fixture(scope="module")
def polar() -> Tace:
    return network(embeddings=("electric_field",))


@pytest.fixture(scope="module")
def magnetic() -> Tace:
    return network(embeddings=("magnetic_moments",))


@pytest.fixture(scope="module", params=["equilibrated", "uniform"])
def charged(request: pytest.FixtureRequest) -> Tace:
    return network(charges=request.param, long_range="ewald")


@pytest.fixture(scope="module")
def direct() -> Tace:
    return network(l_edge=3, l_hidden=2, outputs=TENSORS)


def ethanol() -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=3)
    return atoms


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1] = "O"
    atoms.rattle(0.1, seed=3)
    return atoms


MAKERS = pytest.mark.parametrize("make", [ethanol, crystal])


def evaluate(model: Tace, frames: Atoms | list[Atoms], *names: str, **options) -> TaceOutput:
    frames = [frames] if isinstance(frames, Atoms) else frames
    graphs = [graph_from_atoms(a, model.config.cutoff, model.config.conditions) for a in frames]
    return model.evaluate(batch_graphs(graphs), names, **options)


def displaced(atoms: Atoms, atom: int, axis: int, step: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[atom, axis] += step
    return moved


def slope(model: Tace, name: str, make_frame) -> torch.Tensor:
    """Return the central difference of an output along the path make_frame(step)."""
    forward, backward = (evaluate(model, make_frame(s), name)[name][0] for s in (STEP, -STEP))
    return (forward - backward) / (2 * STEP)


def close(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert second.abs().max() > 1e-5, "nothing to compare"
    scale = max(1.0, float(second.abs().max()))
    torch.testing.assert_close(first, second, rtol=0.0, atol=tolerance * scale)


@MAKERS
def test_forces(plain: Tace, make) -> None:
    atoms = make()
    forces = evaluate(plain, atoms, "forces").forces
    energies = [slope(plain, "energy", lambda s, a=a: displaced(atoms, 1, a, s)) for a in range(3)]
    close(forces[1], -torch.stack(energies))
    assert forces.sum(dim=0).abs().max() < 1e-10


def strained(atoms: Atoms, i: int, j: int, step: float) -> Atoms:
    strain = np.eye(3)
    strain[i, j] += 0.5 * step
    strain[j, i] += 0.5 * step
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ strain)
    moved.positions = atoms.positions @ strain
    return moved


@MAKERS
def test_virial_and_stress(plain: Tace, make) -> None:
    atoms = make()
    output = evaluate(plain, atoms, "virial", "stress", "atomic_virials")
    for i, j in ((0, 0), (1, 2)):
        expected = slope(plain, "energy", lambda s, i=i, j=j: strained(atoms, i, j, s))
        close(output["virial"][0, i, j], -expected)
    torch.testing.assert_close(output["atomic_virials"].sum(dim=0), output["virial"][0])
    if atoms.pbc.all():
        torch.testing.assert_close(output["virial"], -atoms.get_volume() * output.stress)
    else:
        assert output.stress.isnan().all()


@MAKERS
def test_hessian(plain: Tace, make) -> None:
    atoms = make()
    exact = evaluate(plain, atoms, "hessian")["hessian"]
    np.testing.assert_allclose(exact, hessian(plain, atoms), atol=1e-10)
    for axis in range(3):
        sides = [
            evaluate(plain, displaced(atoms, 2, axis, s), "forces").forces for s in (STEP, -STEP)
        ]
        close(exact[2, axis], -(sides[0] - sides[1]) / (2 * STEP), 1e-5)
    assert exact.sum(dim=2).abs().max() < 1e-9


def in_field(atoms: Atoms, field: np.ndarray) -> Atoms:
    changed = atoms.copy()
    changed.info["electric_field"] = field
    return changed


@pytest.mark.parametrize("field", [None, [0.2, -0.1, 0.3]], ids=["no field", "field"])
def test_field_response(polar: Tace, field: list[float] | None) -> None:
    atoms = ethanol() if field is None else in_field(ethanol(), np.array(field))
    origin = np.zeros(3) if field is None else np.array(field)
    output = evaluate(polar, atoms, "dipole", "polarizability", "born_charges")
    unit = np.eye(3)
    energies = [
        slope(polar, "energy", lambda s, a=a: in_field(atoms, origin + s * unit[a]))
        for a in range(3)
    ]
    close(output["dipole"][0], -torch.stack(energies))
    dipoles = [
        slope(polar, "dipole", lambda s, a=a: in_field(atoms, origin + s * unit[a]))
        for a in range(3)
    ]
    close(output["polarizability"][0], torch.stack(dipoles, dim=1))
    torch.testing.assert_close(output["polarizability"], output["polarizability"].transpose(1, 2))
    moved = [slope(polar, "dipole", lambda s, a=a: displaced(atoms, 1, a, s)) for a in range(3)]
    close(output["born_charges"][1], torch.stack(moved, dim=1))


def test_acoustic_sum_rule_of_born_charges(polar: Tace) -> None:
    for atoms in (ethanol(), crystal()):
        born = evaluate(polar, atoms, "born_charges")["born_charges"]
        assert born.abs().max() > 1e-3
        assert born.sum(dim=0).abs().max() < 1e-10


def test_field_response_in_a_mixed_batch(polar: Tace) -> None:
    frames = [ethanol(), in_field(crystal(), np.array([0.1, 0.0, -0.2])), Atoms("H")]
    names = ("forces", "dipole", "polarizability", "born_charges")
    together = evaluate(polar, frames, *names)
    start = 0
    for index, frame in enumerate(frames):
        alone = evaluate(polar, frame, *names)
        atoms = slice(start, start := start + len(frame))
        for name in ("dipole", "polarizability"):
            torch.testing.assert_close(together[name][index], alone[name][0])
        for name in ("forces", "born_charges"):
            torch.testing.assert_close(together[name][atoms], alone[name])


def test_field_response_turns_with_the_molecule(polar: Tace) -> None:
    rotation = -Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    field = np.array([0.2, -0.1, 0.3])
    before = in_field(ethanol(), field)
    after = in_field(before, rotation @ field)
    after.positions = before.positions @ rotation.T
    R = torch.from_numpy(rotation)
    first, second = (
        evaluate(polar, atoms, "dipole", "polarizability", "born_charges")
        for atoms in (before, after)
    )
    close(second["dipole"], first["dipole"] @ R.T, 1e-10)
    for name in ("polarizability", "born_charges"):
        close(second[name], R @ first[name] @ R.T, 1e-10)


def with_moments(atoms: Atoms, moments: np.ndarray) -> Atoms:
    changed = atoms.copy()
    changed.set_array("magnetic_moments", moments)
    return changed


def test_magnetic_forces(magnetic: Tace) -> None:
    moments = np.random.default_rng(1).normal(size=(4, 3))
    atoms = with_moments(crystal(), moments)
    output = evaluate(magnetic, atoms, "magnetic_forces", "forces")

    def turned(atom: int, axis: int, step: float) -> Atoms:
        changed = moments.copy()
        changed[atom, axis] += step
        return with_moments(atoms, changed)

    energies = [slope(magnetic, "energy", lambda s, a=a: turned(2, a, s)) for a in range(3)]
    close(output["magnetic_forces"][2], -torch.stack(energies))
    reversed_ = evaluate(magnetic, with_moments(atoms, -moments), "magnetic_forces", "forces")
    close(reversed_["magnetic_forces"], -output["magnetic_forces"], 1e-10)
    close(reversed_.forces, output.forces, 1e-10)
    motion = [slope(magnetic, "energy", lambda s, a=a: displaced(atoms, 1, a, s)) for a in range(3)]
    close(output.forces[1], -torch.stack(motion))


def ion(make, charge: int) -> Atoms:
    atoms = make()
    atoms.info["total_charge"] = charge
    return atoms


@pytest.mark.parametrize("charge", [0, -1])
def test_charges_and_their_dipole(charged: Tace, charge: int) -> None:
    atoms = ion(ethanol, charge)
    output = evaluate(charged, atoms, "charges", "dipole", "born_charges", "forces")
    assert float(output["charges"].sum()) == pytest.approx(charge, abs=1e-12)
    # the dipole of an ion refers to the centre of the nuclear charges
    positions = torch.from_numpy(atoms.positions)
    weights = torch.from_numpy(atoms.numbers / atoms.numbers.sum())
    arms = positions - weights @ positions
    torch.testing.assert_close(output["dipole"][0], output["charges"] @ arms)
    moved = [slope(charged, "dipole", lambda s, a=a: displaced(atoms, 1, a, s)) for a in range(3)]
    dragged = charge * weights[1] * torch.eye(3)
    close(output["born_charges"][1], torch.stack(moved, dim=1) + dragged)
    # moving everything carries the total charge along
    total = output["born_charges"].sum(dim=0)
    torch.testing.assert_close(total, charge * torch.eye(3).double(), rtol=0.0, atol=1e-10)
    energies = [
        slope(charged, "energy", lambda s, a=a: displaced(atoms, 1, a, s)) for a in range(3)
    ]
    close(output.forces[1], -torch.stack(energies))


@pytest.mark.parametrize("charge", [0, 1])
def test_charges_in_a_crystal(charged: Tace, charge: int) -> None:
    atoms = ion(crystal, charge)
    output = evaluate(charged, atoms, "forces", "virial", "stress", "atomic_virials", "hessian")
    energies = [
        slope(charged, "energy", lambda s, a=a: displaced(atoms, 1, a, s)) for a in range(3)
    ]
    close(output.forces[1], -torch.stack(energies))
    expected = slope(charged, "energy", lambda s: strained(atoms, 0, 2, s))
    close(output["virial"][0, 0, 2], -expected)
    torch.testing.assert_close(output["atomic_virials"].sum(dim=0), output["virial"][0])
    full = output["hessian"]
    sides = [evaluate(charged, displaced(atoms, 2, 1, s), "forces").forces for s in (STEP, -STEP)]
    close(full[2, 1], -(sides[0] - sides[1]) / (2 * STEP), 1e-5)
    np.testing.assert_allclose(hessian(charged, atoms, atom_indices=[2]), full[[2]], atol=1e-10)
    torch.testing.assert_close(full, full.permute(2, 3, 0, 1), rtol=0.0, atol=1e-8)
    assert full.sum(dim=2).abs().max() < 1e-8


@MAKERS
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotoinversion"])
def test_direct_outputs_turn_with_the_structure(direct: Tace, make, sign: int) -> None:
    rotation = sign * Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    atoms, turned = make(), make()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    names = [output.name for output in TENSORS]
    before, after = evaluate(direct, atoms, *names), evaluate(direct, turned, *names)
    R = torch.from_numpy(rotation)
    for output in TENSORS:
        expected = before[output.name]
        count = len(atoms) if output.per == "atom" else 1
        assert expected.shape == (count, *[3] * output.rank)
        for axis in range(1, output.rank + 1):
            expected = torch.tensordot(expected, R, dims=([axis], [1])).movedim(-1, axis)
        close(after[output.name], expected, 1e-10)


def test_direct_outputs_in_a_batch(direct: Tace) -> None:
    frames = [ethanol(), crystal(), Atoms("C")]
    names = [output.name for output in TENSORS]
    together = evaluate(direct, frames, *names)
    parts = [evaluate(direct, frame, *names) for frame in frames]
    for name in names:
        torch.testing.assert_close(together[name], torch.cat([part[name] for part in parts]))


def test_direct_and_derived_outputs_do_not_disturb_each_other(direct: Tace) -> None:
    names = [output.name for output in TENSORS]
    alone = evaluate(direct, ethanol(), *names)
    both = evaluate(direct, ethanol(), *names, "forces", "hessian")
    for name in names:
        torch.testing.assert_close(both[name], alone[name])
    torch.testing.assert_close(both.forces, evaluate(direct, ethanol(), "forces").forces)


def test_unknown_outputs_are_refused(plain: Tace, polar: Tace) -> None:
    with pytest.raises(ModelError, match=r"no output 'energie'.*energy, node_energy.*Did you mean"):
        evaluate(plain, ethanol(), "energie")
    with pytest.raises(ModelError, match=r"no output 'dipole'.*electric_field"):
        evaluate(plain, ethanol(), "dipole")
    with pytest.raises(ModelError, match=r"no output 'magnetic_forces'.*magnetic_moments"):
        evaluate(polar, ethanol(), "magnetic_forces")
    with pytest.raises(ModelError, match="'dipole' was not asked for"):
        evaluate(polar, ethanol(), "forces")["dipole"]


def saved_for_backward(model: Tace, *names: str) -> int:
    """Return the numbers that autograd keeps while an output is computed."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        evaluate(model, ethanol(), *names)
    return kept


def test_nothing_is_computed_unless_asked(direct: Tace, polar: Tace) -> None:
    assert saved_for_backward(direct) == 0
    assert saved_for_backward(direct, *(output.name for output in TENSORS)) == 0
    assert saved_for_backward(polar, "forces") > 0
    assert saved_for_backward(polar, "polarizability") > 1.5 * saved_for_backward(polar, "dipole")
    calls: list[int] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: calls.append(module.rank))
        for module in direct.modules()
        if isinstance(module, TensorReadout)
    ]
    try:
        evaluate(direct, ethanol(), "forces")
        assert calls == []
        evaluate(direct, ethanol(), "forces", "dipole")
        assert calls == [1]
    finally:
        for hook in hooks:
            hook.remove()
    assert set(evaluate(direct, ethanol(), "dipole").tensors) == {"dipole"}


@torch.no_grad()
def shift(weights: list[torch.Tensor], nudge: list[torch.Tensor], sign: float) -> None:
    for weight, by in zip(weights, nudge, strict=True):
        weight.add_(sign * by)


def test_every_output_can_be_trained_on(polar: Tace, direct: Tace) -> None:
    """A step down the gradient of a loss on an output lowers that loss."""
    cases = [(polar, n) for n in ("forces", "dipole", "polarizability", "born_charges", "virial")]
    cases += [(direct, output.name) for output in TENSORS]
    for model, name in cases:
        value = evaluate(model, ethanol(), name, create_graph=True)[name]
        assert value.requires_grad, name
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = (value**2).sum()
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        squares = sum(float((g**2).sum()) for g in slopes if g is not None)
        assert np.isfinite(squares) and squares > 0.0, name
        step = 1e-7 * float(loss.detach()) / squares
        nudge = [
            torch.zeros_like(w) if g is None else step * g
            for w, g in zip(weights, slopes, strict=True)
        ]
        shift(weights, nudge, -1.0)
        lower = (evaluate(model, ethanol(), name)[name] ** 2).sum()
        shift(weights, nudge, 1.0)
        change = float(lower - loss.detach())
        assert change == pytest.approx(-step * squares, rel=1e-2), name
