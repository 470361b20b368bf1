"""Direct readouts: symmetry of the tensors, their parity, isolated atoms, standardisation."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tace_al.core.errors import ModelError
from tace_al.model.cartesian import num_components, packing
from tace_al.model.tensor_readout import TensorReadout, required_degree

NUM_ATOMS = 5
SPECIES = torch.tensor([0, 0, 1, 1, 2])
CASES = [
    (0, ""),
    (1, ""),
    (2, ""),
    (2, "ij=ji"),
    (2, "ij=-ji"),
    (3, ""),
    (3, "ijk=jik"),
    (4, ""),
    (4, "ijkl=jikl=klij"),
]


def make(rank: int, symmetry: str, l_max: int | None = None, seed: int = 1) -> TensorReadout:
    top = required_degree(rank, symmetry) if l_max is None else l_max
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TensorReadout(
            rank, symmetry, layer_shapes=[(1, 6), (top, 8)], num_species=3
        ).double()


def features(readout_degree: int, seed: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, 6), (readout_degree, 8)]
    return [
        torch.randn(NUM_ATOMS, num_components(l), c, generator=generator, dtype=torch.float64)
        for l, c in shapes
    ]


def turned(layers: list[torch.Tensor], rotation: np.ndarray) -> list[torch.Tensor]:
    """Return features after an orthogonal map: degree l goes with U_l^T (R x ... x R) U_l."""
    result = []
    for layer in layers:
        blocks = []
        for l in range(math.isqrt(layer.shape[1])):
            full = np.ones((1, 1))
            for _ in range(l):
                full = np.kron(full, rotation)
            matrix = torch.from_numpy(packing(l).T @ full @ packing(l))
            blocks.append(torch.einsum("xy,ayc->axc", matrix, layer[:, l * l : (l + 1) ** 2]))
        result.append(torch.cat(blocks, dim=1))
    return result


def rotate(tensor: torch.Tensor, rotation: np.ndarray) -> torch.Tensor:
    matrix = torch.from_numpy(rotation)
    for axis in range(1, tensor.ndim):
        tensor = torch.tensordot(tensor, matrix, dims=([axis], [1])).movedim(-1, axis)
    return tensor


@pytest.mark.parametrize(("rank", "symmetry"), CASES)
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotoinversion"])
def test_transforms_as_a_polar_tensor(rank: int, symmetry: str, sign: int) -> None:
    readout = make(rank, symmetry)
    readout.reference.normal_(generator=torch.Generator().manual_seed(5))
    rotation = sign * Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    layers, coordination = features(required_degree(rank, symmetry)), torch.linspace(0.1, 3.0, 5)
    before = readout(layers, SPECIES, coordination)
    after = readout(turned(layers, rotation), SPECIES, coordination)
    assert before.shape == (NUM_ATOMS, *[3] * rank)
    assert before.dtype == torch.float64
    torch.testing.assert_close(after, rotate(before, rotation), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(("rank", "symmetry"), CASES)
def test_every_component_that_symmetry_allows_is_reached(rank: int, symmetry: str) -> None:
    """Over many features the tensors span exactly the space of the index symmetry."""
    readout = make(rank, symmetry)
    degree = required_degree(rank, symmetry)
    samples = [
        readout(features(degree, seed), SPECIES, torch.ones(NUM_ATOMS)).reshape(NUM_ATOMS, -1)
        for seed in range(30)
    ]
    dimensions = {
        (0, ""): 1,
        (1, ""): 3,
        (2, ""): 9,
        (2, "ij=ji"): 6,
        (2, "ij=-ji"): 3,
        (3, ""): 27,
        (3, "ijk=jik"): 18,
        (4, ""): 81,
        (4, "ijkl=jikl=klij"): 21,
    }
    assert torch.linalg.matrix_rank(torch.cat(samples)) == dimensions[rank, symmetry]


def test_index_symmetry_is_exact() -> None:
    layers, ones = features(2), torch.ones(NUM_ATOMS)
    symmetric = make(2, "ij=ji")(layers, SPECIES, ones)
    torch.testing.assert_close(symmetric, symmetric.transpose(1, 2))
    skew = make(2, "ij=-ji")(layers, SPECIES, ones)
    torch.testing.assert_close(skew, -skew.transpose(1, 2))
    elastic = make(4, "ijkl=jikl=klij")(features(4), SPECIES, ones)
    torch.testing.assert_close(elastic, elastic.permute(0, 3, 4, 1, 2))
    torch.testing.assert_close(elastic, elastic.transpose(3, 4))


def test_planar_features_have_no_pseudoscalar() -> None:
    """The ijk-antisymmetric part of a rank-3 tensor changes sign in a mirror."""
    readout = make(3, "ijk=-jik=-ikj", l_max=2)
    layers = features(2)
    ones = torch.ones(NUM_ATOMS)
    mirror = np.diag([1.0, 1.0, -1.0])
    assert readout(layers, SPECIES, ones).abs().min(dim=0).values.max() > 1e-3
    symmetric = [0.5 * (a + b) for a, b in zip(layers, turned(layers, mirror), strict=True)]
    assert readout(symmetric, SPECIES, ones).abs().max() < 1e-12


def test_needed_degrees() -> None:
    assert [required_degree(rank) for rank in range(5)] == [0, 1, 2, 3, 4]
    assert required_degree(2, "ij=-ji") == 1
    with pytest.raises(ModelError, match=r"needs features of degree 2, .* up to 1"):
        make(2, "ij=ji", l_max=1)


def test_isolated_atom_has_the_reference_alone() -> None:
    readout = make(2, "ij=ji")
    readout.reference.copy_(torch.tensor([[1.0], [2.0], [4.0]]))
    coordination = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    tensor = readout(features(2), SPECIES, coordination)
    ideal = torch.eye(3).double() * readout.isotropic.reshape(3, 3)[0, 0]
    for atom, value in ((0, 1.0), (2, 2.0), (4, 4.0)):
        torch.testing.assert_close(tensor[atom], value * ideal, rtol=0.0, atol=1e-15)
    assert (tensor[1] - ideal).abs().max() > 1e-3
    assert make(1, "")(features(1), SPECIES, torch.zeros(5)).abs().max() == 0.0


def test_starts_small_whatever_the_rank() -> None:
    for rank, symmetry in CASES:
        value = make(rank, symmetry)(
            features(required_degree(rank, symmetry)), SPECIES, torch.ones(NUM_ATOMS)
        )
        assert 0.01 < float((value.detach() ** 2).mean().sqrt()) < 1.0


def test_standardise_finds_atomic_polarisabilities() -> None:
    """Sums of isotropic atoms are explained exactly; noise on them becomes the scale."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 6, (400, 3), generator=generator).double()
    counts[:, 0] += 1.0
    atomic = torch.tensor([0.7, 1.8, 1.1], dtype=torch.float64)
    targets = (counts @ atomic)[:, None, None] * torch.eye(3).double()
    noise = torch.randn(400, 3, 3, generator=generator).double()
    noise = 0.3 * counts.sum(dim=1).sqrt()[:, None, None] * (noise + noise.transpose(1, 2)) / 2
    readout = make(2, "ij=ji")
    readout.standardise(targets + noise, counts)
    alone = readout(features(2), torch.tensor([0, 1, 2, 0, 1]), torch.zeros(NUM_ATOMS))
    torch.testing.assert_close(
        alone[:3].diagonal(dim1=1, dim2=2).mean(dim=1), atomic, rtol=0.0, atol=0.03
    )
    assert float(readout.scale) == pytest.approx(0.3, rel=0.1)


def test_standardise_survives_missing_and_deficient_data() -> None:
    readout = make(2, "ij=ji")
    counts = torch.tensor([[2.0, 1.0, 0.0], [4.0, 2.0, 0.0]])
    targets = torch.eye(3).expand(2, 3, 3) * torch.tensor([3.0, 6.0])[:, None, None]
    missing = torch.full((1, 3, 3), math.nan)
    readout.standardise(torch.cat([targets, missing]), torch.cat([counts, counts[:1]]))
    assert torch.isfinite(readout.reference).all()
    assert readout.reference[2].abs().max() < 1e-12
    readout.standardise(missing, counts[:1])
    assert torch.isfinite(readout.reference).all()
    dipole = make(1, "")
    dipole.standardise(torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]]))
    assert float(dipole.scale) == pytest.approx(1.0)


def test_gradients_reach_every_parameter() -> None:
    readout = make(4, "")
    (readout(features(4), SPECIES, torch.ones(NUM_ATOMS)) ** 2).sum().backward()
    for name, parameter in readout.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_learns_a_tensor_of_mixed_parity() -> None:
    """One vector and another make a tensor of rank 2 with all three parts: u v^T."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    degree = 2
    shapes = [(1, 6), (degree, 8)]
    layers = [
        torch.randn(64, num_components(l), c, generator=generator, dtype=torch.float64)
        for l, c in shapes
    ]
    u, v = layers[0][:, 1:, 0], layers[0][:, 1:, 1]
    target = torch.einsum("ai,aj->aij", u - v, u + v)
    target = target - target.transpose(1, 2)  # needs the Levi-Civita path
    target = target[:, [2, 0, 1]][:, :, [2, 0, 1]]  # packed (y, z, x) to Cartesian (x, y, z)
    readout = make(2, "ij=-ji", l_max=2)
    species, ones = torch.zeros(64, dtype=torch.int64), torch.full((64,), 10.0)
    optimiser = torch.optim.LBFGS(readout.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = ((readout(layers, species, ones) - target) ** 2).mean()
        value.backward()
        return value

    optimiser.step(loss)
    assert float(loss().detach()) < 1e-4 * float((target**2).mean())
