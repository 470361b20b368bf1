"""Heads come and go: two differ, each acts, none disturbs another, and a second round works."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.morse import MorsePotential

from tace_al.core.errors import ConfigError, DataError, ModelError
from tace_al.data.extxyz import read_labelled, write_structures
from tace_al.data.graph import batch_graphs, graph_from_atoms
from tace_al.model import checkpoint
from tace_al.model.calculator import TaceCalculator
from tace_al.model.committee import Committee
from tace_al.model.config import FIDELITY, TaceConfig, TensorOutput, preset_config
from tace_al.model.evaluation import evaluate, evaluate_by_head
from tace_al.model.heads import add_head, remove_head, trainable_parameters
from tace_al.model.labelled_batch import join, labelled
from tace_al.model.loss import LossWeights, training_loss
from tace_al.model.preparation import prepare_model
from tace_al.model.tace import Tace
from tace_al.model.trainer import TrainingOptions, train

WATER = preset_config(
    "tiny", elements=("H", "O"), channels=8, radial_hidden=(16,), heads=("soft", "ccsd(t)")
)
BRIEF = TrainingOptions(epochs=3, batch_size=8, learning_rate=0.005)
DEPTHS = {"soft": 2.0, "ccsd(t)": 3.0, "hf": 2.5}
"""Depth of the pair potential that each level of theory is, in eV."""
E0 = {"soft": -1.0, "ccsd(t)": -50.0, "hf": -30.0}
"""Energy of an isolated atom at each level, in eV."""


def waters(num_frames: int, seed: int, level: str, *, named: bool = True) -> list[Atoms]:
    """Return rattled water molecules labelled at a level."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(num_frames):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
        atoms.calc = MorsePotential(epsilon=DEPTHS[level], r0=1.1, rho0=2.0, rcut1=6.0, rcut2=8.0)
        atoms.info["REF_energy"] = float(atoms.get_potential_energy()) + 3.0 * E0[level]
        atoms.set_array("REF_forces", atoms.get_forces())
        atoms.calc = None
        if named:
            atoms.info["head"] = level
        frames.append(atoms)
    return frames


def isolated(level: str) -> list[Atoms]:
    """Return both isolated atoms at a level."""
    info = {"REF_energy": E0[level], "config_type": "IsolatedAtom", "head": level}
    return [Atoms(symbol, info=info) for symbol in ("H", "O")]


def two_levels(count: int = 12) -> list[Atoms]:
    """Return as many structures of each level."""
    return waters(count, 0, "soft") + waters(count, 1, "ccsd(t)")


def answers(model: Tace, head: str, outputs: tuple[str, ...] = ("forces",)) -> list[torch.Tensor]:
    """Return energies and outputs of three molecules by one head."""
    graphs = [
        graph_from_atoms(atoms, model.config.cutoff, model.config.conditions)
        for atoms in waters(3, 7, "soft")
    ]
    output = model.evaluate(batch_graphs(graphs), outputs, head=head)
    return [output.energy, *(output[name] for name in outputs)]


def force_size(frames: list[Atoms]) -> float:
    """Return the error of a model that says zero, meV/Angstrom."""
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in frames])
    return 1e3 * float(np.sqrt(np.mean(forces**2)))


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    """Return whether all numbers are the same bit for bit."""
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def owned(model: Tace, head: str) -> dict[str, torch.Tensor]:
    """Return everything in the state that belongs to a head."""
    return {name: t for name, t in model.state_dict().items() if head in name.split(".")}


def trunk(model: Tace) -> dict[str, torch.Tensor]:
    """Return everything in the state that belongs to no head."""
    names = set(model.state_dict()).difference(*(owned(model, head) for head in model.config.heads))
    return {name: model.state_dict()[name] for name in names}


def unchanged(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Return whether two states are the same bit for bit."""
    return before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


@pytest.fixture(scope="module")
def trained() -> Tace:
    """Return a model of two levels after a few epochs."""
    options = replace(BRIEF, epochs=10)
    return train(two_levels() + isolated("soft"), [], config=WATER, options=options).model


# the four tests of MODEL.md, section 6


def test_two_heads_differ_after_training(trained: Tace) -> None:
    soft, hard = answers(trained, "soft"), answers(trained, "ccsd(t)")
    assert not torch.allclose(soft[0], hard[0], atol=1.0)  # E0 alone is 147 eV apart
    assert not torch.allclose(soft[1], hard[1], atol=1e-3)
    before = prepare_model(two_levels(), config=WATER, seed=0, start=None)
    for name in WATER.heads:
        state = owned(trained, name)
        changed = [
            path for path in state if not torch.equal(state[path], before.state_dict()[path])
        ]
        learnt = [path for path, _ in before.named_parameters() if name in path.split(".")]
        assert set(learnt) <= set(changed), "every weight of every head was trained"


def test_the_weights_of_a_head_act_on_it_alone(trained: Tace) -> None:
    soft, hard = answers(trained, "soft"), answers(trained, "ccsd(t)")
    for path, parameter in trained.named_parameters():
        if path.startswith("heads.ccsd(t)."):
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter.mul_(1.1)
            assert not torch.allclose(answers(trained, "ccsd(t)")[1], hard[1], atol=1e-5), path
            assert same(answers(trained, "soft"), soft), path
            with torch.no_grad():
                parameter.copy_(kept)
    assert same(answers(trained, "ccsd(t)"), hard)


SHAPES = {
    "plain": {},
    "fidelity": {"embeddings": (FIDELITY, "total_charge")},
    "charges": {"charges": "equilibrated", "long_range": "ewald"},
    "field": {"embeddings": ("electric_field", FIDELITY), "density_normalisation": True},
    "tensors": {
        "outputs": (TensorOutput(name="quadrupole", rank=2, symmetry="ij=ji"),),
        "gate": True,
        "products": ("spatial",),
    },
    "coupled": {"product_weights": "coupled", "bias": True, "dtype": "float64"},
}
OUTPUTS = {
    "charges": ("forces", "charges", "dipole"),
    "field": ("forces", "dipole", "polarizability"),
    "tensors": ("forces", "quadrupole"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_adding_a_head_leaves_the_numbers_of_others_bit_identical(shape: str) -> None:
    model = Tace(replace(WATER, **SHAPES[shape]), seed=3)
    randomise(model)
    outputs = OUTPUTS.get(shape, ("forces",))
    before = {head: answers(model, head, outputs) for head in WATER.heads}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    larger = add_head(model, "hf", like="ccsd(t)")
    assert larger.config.heads == ("soft", "ccsd(t)", "hf")
    for head, numbers in before.items():
        assert same(answers(larger, head, outputs), numbers)
    assert same(answers(larger, "hf", outputs), before["ccsd(t)"]), "it starts as a copy"
    assert all(torch.equal(larger.state_dict()[name], state[name]) for name in state)
    with torch.no_grad():  # the copy shares no memory with what it copies
        for name, parameter in larger.named_parameters():
            if "hf" in name.split("."):
                parameter.add_(1.0)
    assert same(answers(larger, "ccsd(t)", outputs), before["ccsd(t)"])
    assert unchanged(state, model.state_dict())


def test_adding_a_head_leaves_calculators_and_committees_bit_identical(trained: Tace) -> None:
    larger = add_head(trained, "hf")
    water = molecule("H2O")
    for head in WATER.heads:
        water.calc = TaceCalculator(trained, head=head)
        energy, forces = water.get_potential_energy(), water.get_forces()
        water.calc = TaceCalculator(larger, head=head)
        assert water.get_potential_energy() == energy
        assert np.array_equal(water.get_forces(), forces)
        (few,) = Committee([trained] * 2, head=head).predict([water])
        (more,) = Committee([larger] * 2, head=head).predict([water])
        assert np.array_equal(few.member_energies, more.member_energies)
        assert np.array_equal(few.member_forces, more.member_forces)


@pytest.mark.slow
@pytest.mark.parametrize("embeddings", [(), (FIDELITY,)])
def test_a_second_round_after_adding_a_head_works(embeddings: tuple[str, ...]) -> None:
    first = replace(WATER, heads=("soft",), embeddings=embeddings)
    options = replace(BRIEF, epochs=6)
    round_one = train(waters(24, 0, "soft"), [], config=first, options=options).model
    both = replace(round_one.config, heads=("soft", "hf"))
    frames = waters(24, 0, "soft") + waters(24, 1, "hf")
    round_two = train(frames, [], config=both, options=options, start=round_one).model
    three = replace(round_two.config, heads=("soft", "hf", "ccsd(t)"))
    frames += waters(24, 2, "ccsd(t)")
    round_three = train(frames, [], config=three, options=options, start=round_two).model
    assert round_three.config.heads == ("soft", "hf", "ccsd(t)")
    for head in DEPTHS:  # each has learnt something of its level, energies on its own scale
        errors = evaluate(round_three, waters(8, 9, head))
        assert errors.energy_rmse_mev_per_atom < 1000.0
        assert errors.forces_rmse_mev_per_angstrom < 0.5 * force_size(waters(8, 9, head))
    for older, newer in ((round_one, round_two), (round_two, round_three)):
        for name, tensor in older.named_parameters():
            assert not torch.equal(tensor, newer.state_dict()[name]), f"{name} was trained on"


# constants of each level


def test_each_head_has_the_energies_of_its_level() -> None:
    frames = [*two_levels(), *isolated("soft"), *isolated("ccsd(t)")]
    model = prepare_model(frames, config=WATER, seed=0, start=None)
    assert model.head("soft").e0.tolist() == [-1.0, -1.0]
    assert model.head("ccsd(t)").e0.tolist() == [-50.0, -50.0]
    scales = [model.head(head).scale for head in WATER.heads]
    assert (scales[1] > 1.2 * scales[0]).all()  # forces grow with the depth
    for head in WATER.heads:
        lone = graph_from_atoms(Atoms("O"), 5.0)
        assert model.evaluate(lone, (), head=head).energy.item() == E0[head]
        assert model.head(head).shift.mean() < -0.5 * DEPTHS[head]


@pytest.mark.parametrize("atoms_known", [False, True])
def test_an_added_head_starts_from_what_it_copies_and_its_own_constants(
    trained: Tace, atoms_known: bool
) -> None:
    frames = waters(4, 5, "hf") + (isolated("hf") if atoms_known else [])
    config = replace(trained.config, heads=(*trained.config.heads, "hf"))
    model = prepare_model(frames, config=config, seed=0, start=trained)
    scale = model.head("hf").scale.clone()
    best = evaluate(model, frames[:4]).forces_rmse_mev_per_angstrom
    for factor in (0.95, 1.05):  # the scale is the one that suits the level best
        model.head("hf").scale.copy_(factor * scale)
        assert evaluate(model, frames[:4]).forces_rmse_mev_per_angstrom > best
    model.head("hf").scale.copy_(scale)
    energies = [atoms.info["REF_energy"] for atoms in frames[:4]]
    graph = batch_graphs([graph_from_atoms(atoms, 5.0) for atoms in frames[:4]])
    said = model.evaluate(graph, (), head="hf").energy.numpy()
    assert np.mean(said - energies) == pytest.approx(0.0, abs=1e-4)
    assert unchanged(owned(model, "soft"), owned(trained, "soft"))
    if atoms_known:
        lone = graph_from_atoms(Atoms("H"), 5.0)
        assert model.evaluate(lone, (), head="hf").energy.item() == E0["hf"]


def test_a_level_without_energies_keeps_the_constants_it_copies(trained: Tace) -> None:
    frames = waters(3, 5, "hf")
    for atoms in frames:
        atoms.info["REF_energy"] = float("nan")
    del frames[0].info["REF_energy"]
    config = replace(trained.config, heads=(*trained.config.heads, "hf"))
    model = prepare_model(frames, config=config, seed=0, start=trained)
    assert torch.equal(model.head("hf").e0, trained.head("soft").e0)
    assert torch.equal(model.head("hf").shift, trained.head("soft").shift)


# frozen, removed, refused


@pytest.mark.parametrize("frozen", [("trunk",), ("soft",), ("trunk", "soft")])
def test_what_is_frozen_stays_bit_for_bit(frozen: tuple[str, ...]) -> None:
    start = Tace(replace(WATER, embeddings=(FIDELITY,), charges="free"), seed=1)
    randomise(start)
    options = replace(BRIEF, frozen=frozen)
    after = train(two_levels(), [], config=start.config, options=options, start=start).model
    assert unchanged(trunk(start), trunk(after)) == ("trunk" in frozen)
    assert unchanged(owned(start, "soft"), owned(after, "soft")) == ("soft" in frozen)
    assert not unchanged(owned(start, "ccsd(t)"), owned(after, "ccsd(t)"))
    assert same(answers(start, "soft"), answers(after, "soft")) == (len(frozen) == 2)


def test_freezing_everything_or_nothing_known_is_refused(trained: Tace) -> None:
    with pytest.raises(ConfigError, match=r"'truk'.*'trunk'"):
        trainable_parameters(trained, ("truk",))
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        trainable_parameters(trained, ("trunk", *WATER.heads))


def test_removing_a_head_leaves_the_numbers_of_others_bit_identical(trained: Tace) -> None:
    trained.metadata["seed"] = 3
    smaller = remove_head(trained, "soft")
    assert smaller.config.heads == ("ccsd(t)",)
    assert smaller.metadata["seed"] == 3
    assert same(answers(smaller, "ccsd(t)"), answers(trained, "ccsd(t)"))
    assert not owned(smaller, "soft")
    again = remove_head(add_head(trained, "hf"), "hf")
    assert unchanged(again.state_dict(), trained.state_dict())
    with pytest.raises(ModelError, match="only head"):
        remove_head(smaller, "ccsd(t)")
    with pytest.raises(ModelError, match="no head 'pbe'"):
        remove_head(trained, "pbe")


def test_names_that_cannot_be_heads_are_refused(trained: Tace) -> None:
    for name in ("keys", "type", "forward", "training", "trunk", "a.b", "", " pbe"):
        with pytest.raises(ConfigError, match="name"):
            TaceConfig(elements=("H",), heads=("pbe", name))
        with pytest.raises(ConfigError, match="name"):
            add_head(trained, name)
    with pytest.raises(ConfigError, match="already"):
        add_head(trained, "soft")
    with pytest.raises(ModelError, match="no head 'sotf'"):
        add_head(trained, "hf", like="sotf")
    with pytest.raises(ConfigError, match="'keys'"):
        TensorOutput(name="keys", rank=1)


@pytest.mark.parametrize("name", ["ccsd(t)", "levels", "heads", "PBE+U, 4 eV", "r²SCAN/def2", "1"])
def test_any_other_name_works_from_the_network_to_the_file(name: str, tmp_path: Path) -> None:
    config = replace(WATER, heads=("base",), embeddings=(FIDELITY,))
    model = add_head(Tace(config), name)
    randomise(model)
    assert len(trainable_parameters(model, ("trunk", "base"))) == 4  # readout (3) and level
    checkpoint.save(model, tmp_path / "m.tace")
    assert same(answers(checkpoint.load(tmp_path / "m.tace"), name), answers(model, name))
    frames = waters(2, 0, "soft")
    for atoms in frames:
        atoms.info["head"] = name
    write_structures(tmp_path / "frames.xyz", frames)
    read = read_labelled(tmp_path / "frames.xyz")
    assert [labelled(atoms, config=model.config).heads for atoms in read] == [(name,)] * 2


# batches, losses, calculators


def test_mixed_batches_are_what_each_structure_is_alone(trained: Tace) -> None:
    for model in (trained, fidelity_model()):
        frames = [*waters(2, 4, "ccsd(t)"), *waters(2, 5, "soft")]
        heads = ("ccsd(t)", "soft", "ccsd(t)", "soft")
        graphs = [graph_from_atoms(atoms, 5.0) for atoms in frames]
        mixed = model.evaluate(batch_graphs(graphs), head=heads)
        for index, (graph, head) in enumerate(zip(graphs, heads, strict=True)):
            alone = model.evaluate(graph, head=head)
            assert torch.allclose(mixed.energy[index], alone.energy, rtol=0, atol=2e-5)
            forces = mixed.forces[3 * index : 3 * index + 3]
            assert torch.allclose(forces, alone.forces, atol=2e-5)


def test_the_level_is_told_to_the_trunk_only_after_training() -> None:
    config = replace(WATER, embeddings=(FIDELITY,))
    fresh = prepare_model(two_levels(), config=config, seed=0, start=None)
    for head in WATER.heads:
        fresh.head(head).load_state_dict(fresh.head("soft").state_dict())
    assert same(answers(fresh, "soft"), answers(fresh, "ccsd(t)")), "zero at the start"
    after = train(two_levels(), [], config=config, options=BRIEF).model
    with torch.no_grad():
        after.head("ccsd(t)").load_state_dict(after.head("soft").state_dict())
    assert not torch.allclose(answers(after, "soft")[1], answers(after, "ccsd(t)")[1], atol=1e-4)


def test_a_loss_sends_gradients_to_the_heads_it_names_only(trained: Tace) -> None:
    frames = waters(2, 0, "ccsd(t)")
    del frames[0].info["REF_energy"]
    batch = join([labelled(atoms, trained.config) for atoms in frames])
    output = trained.evaluate(batch.graph, batch.names, head=batch.heads, create_graph=True)
    trained.zero_grad(set_to_none=True)
    training_loss(output, batch, LossWeights()).backward()
    for name, parameter in trained.named_parameters():
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert reached == ("soft" not in name.split(".")), name
    trained.zero_grad(set_to_none=True)


def test_errors_are_told_level_by_level(trained: Tace) -> None:
    frames = two_levels(4)
    by_head = evaluate_by_head(trained, frames)
    assert list(by_head) == ["soft", "ccsd(t)"]
    assert all(metrics.num_structures == 4 for metrics in by_head.values())
    for head, metrics in by_head.items():
        own = [atoms for atoms in frames if atoms.info["head"] == head]
        assert evaluate(trained, own).to_dict() == metrics.to_dict()
    crossed = evaluate(trained, frames[:4], head="ccsd(t)").to_dict()
    assert crossed["energy_rmse_mev_per_atom"] > 40_000  # E0 of another level
    for atoms in frames:  # of a level that the model has not: a head must be named
        atoms.info["head"] = "mp2"
    with pytest.raises(DataError, match="'mp2'"):
        evaluate(trained, frames)
    assert evaluate(trained, frames[:4], head="ccsd(t)").to_dict() == crossed
    with pytest.raises(ModelError, match=r"no head 'cc'"):
        evaluate(trained, frames, head="cc")


def test_calculators_answer_with_the_head_they_are_given(trained: Tace) -> None:
    water = waters(1, 9, "soft")[0]
    graph = graph_from_atoms(water, 5.0)
    energies = {}
    for head in (None, *WATER.heads):
        water.calc = TaceCalculator(trained, head=head)
        energies[head] = water.get_potential_energy()
        output = trained.evaluate(graph, head=head)
        assert energies[head] == pytest.approx(output.energy.item(), abs=1e-5)
        assert np.allclose(water.get_forces(), output.forces.numpy(), atol=1e-5)
    assert energies[None] == energies["soft"] != energies["ccsd(t)"]
    with pytest.raises(ModelError, match="no head 'pbe'"):
        TaceCalculator(trained, head="pbe")


def test_a_stacked_committee_answers_with_its_head() -> None:
    members = [fidelity_model(seed) for seed in (0, 1, 2)]
    water = waters(1, 9, "soft")[0]
    graph = graph_from_atoms(water, 5.0)
    for head in WATER.heads:
        (prediction,) = Committee(members, head=head).predict([water])
        for index, member in enumerate(members):
            output = member.evaluate(graph, head=head)
            energy = prediction.member_energies[index]
            assert energy == pytest.approx(output.energy.item(), abs=1e-5)
            forces = prediction.member_forces[index]
            assert np.allclose(forces, output.forces.numpy(), atol=1e-5)


def test_several_heads_survive_the_file(tmp_path: Path) -> None:
    model = add_head(fidelity_model(), "hf", like="ccsd(t)")
    checkpoint.save(model, tmp_path / "m.tace")
    again = checkpoint.load(tmp_path / "m.tace")
    assert again.config == model.config
    assert unchanged(again.state_dict(), model.state_dict())
    for head in model.config.heads:
        assert same(answers(again, head), answers(model, head))
    paths = [tmp_path / "m.tace"] * 2
    (prediction,) = Committee.load(paths, head="hf").predict([molecule("H2O")])
    assert prediction.energy_spread == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_labels_of_a_new_level_are_enough(seed: int) -> None:
    few, held_out = waters(6, 1, "hf"), waters(20, 99, "hf")
    one = replace(WATER, heads=("soft",), channels=16)
    options = TrainingOptions(epochs=40, learning_rate=0.01, seed=seed)
    cheap = train(waters(60, 0, "soft"), waters(15, 98, "soft"), config=one, options=options).model
    both = replace(cheap.config, heads=("soft", "hf"))
    options = replace(options, batch_size=4, learning_rate=0.01, epochs=30)
    frozen = replace(options, frozen=("trunk",))
    models = {
        "all": train(few, [], config=both, options=options, start=cheap).model,
        "readout": train(few, [], config=both, options=frozen, start=cheap).model,
        "alone": train(few, [], config=replace(one, heads=("hf",)), options=options).model,
    }
    errors = {
        name: evaluate(model, held_out, head="hf").forces_rmse_mev_per_angstrom
        for name, model in models.items()
    }
    assert errors["all"] < 0.5 * errors["alone"], errors
    assert errors["readout"] < 0.7 * errors["alone"], errors
    assert same(answers(models["readout"], "soft"), answers(cheap, "soft"))


def randomise(model: Tace) -> None:
    """Move every weight from where training starts, where much is zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.dtype))


def fidelity_model(seed: int = 0) -> Tace:
    """Return a model of two levels whose trunk knows which it serves."""
    model = Tace(replace(WATER, embeddings=(FIDELITY,)), seed=seed)
    randomise(model)
    return model
