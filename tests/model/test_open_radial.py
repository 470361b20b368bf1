"""Radial weights with the envelope outside."""

import numpy as np
import torch
from ase.build import molecule

from tace_al.data.graph import graph_from_atoms
from tace_al.model.open_radial import OpenBasis, OpenRadialNetwork
from tace_al.model.radial import BesselBasis, polynomial_cutoff
from tace_al.model.tace import Tace

CUTOFF = 4.0


def weights(r: torch.Tensor, pairs: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Return what a network with biases and two species says."""
    torch.manual_seed(seed)
    network = OpenRadialNetwork(6, (8, 8), 5, num_species=2).double()
    with torch.no_grad():
        for bias in network.biases:
            bias.normal_()
    basis = OpenBasis(BesselBasis(6, CUTOFF)).double()
    return network(basis(r, polynomial_cutoff(r, CUTOFF)), pairs)


def test_weights_vanish_smoothly_at_the_cutoff() -> None:
    """With their first two derivatives, whatever biases and species say."""
    for distance in (CUTOFF - 1e-6, CUTOFF, CUTOFF + 1.0):
        r = torch.tensor([distance], dtype=torch.float64, requires_grad=True)
        value = weights(r, torch.tensor([1])).sum()
        (slope,) = torch.autograd.grad(value, r, create_graph=True)
        curvature = torch.autograd.grad(slope.sum(), r)[0] if slope.requires_grad else slope * 0
        assert value.abs() < 1e-12
        assert slope.abs().max() < 1e-9
        assert curvature.abs().max() < 1e-2


def test_receiver_and_sender_matter() -> None:
    """(0, 1) is not (1, 0), and the same pair is the same."""
    r = torch.full((4,), 2.0, dtype=torch.float64)
    values = weights(r, torch.tensor([1, 2, 1, 3]))
    assert torch.equal(values[0], values[2])
    assert (values[0] - values[1]).abs().max() > 1e-3


def test_network_with_an_outer_envelope_and_biases_is_smooth() -> None:
    """The energy of a stretched molecule does not jump when neighbours leave."""
    model = Tace.from_preset(
        "tiny",
        elements=["H", "O"],
        cutoff=CUTOFF,
        radial_envelope="weights",
        species_radial=True,
        bias=True,
        dtype="float64",
    )
    atoms = molecule("H2O")
    hydrogen = atoms.positions[0].copy()
    energies = []
    for distance in (CUTOFF - 1e-5, CUTOFF + 1e-5):
        atoms.positions[1:] += [50.0, 0.0, 0.0]
        atoms.positions[1] = hydrogen + np.array([distance, 0.0, 0.0])
        energies.append(model.evaluate(graph_from_atoms(atoms, CUTOFF), ()).energy.item())
    assert abs(energies[0] - energies[1]) < 1e-10
