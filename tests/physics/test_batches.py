"""Answers do not depend on the company: batches, committees, devices, and what else is asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from potentials import NOT_COMPILED, Potential, close, potential, reads
from structures import conditions_of, ethanol, give, neutral, rattled, systems

from tace_al.model import committee as committee_module
from tace_al.model.committee import Committee


def batch(model: Potential) -> dict[str, Atoms]:
    """Return every structure, and an atom alone."""
    return {**systems(model), "atom": Atoms("H")}


def test_a_batch_is_its_structures_one_by_one(model: Potential) -> None:
    frames = batch(model)
    together = model.answers(list(frames.values()))
    for (system, frame), answer in zip(frames.items(), together, strict=True):
        (alone,) = model.answers([frame])
        for name in model.laws:
            assert close(alone[name], answer[name], model.tolerance), (system, name)


def test_the_order_in_a_batch_does_not_count(model: Potential) -> None:
    frames = list(batch(model).values())
    forwards, backwards = model.answers(frames), model.answers(frames[::-1])
    for first, second in zip(forwards, backwards[::-1], strict=True):
        for name in model.laws:
            assert close(first[name], second[name], model.tolerance), name


def test_structures_of_a_batch_do_not_talk(model: Potential) -> None:
    """Moving one structure, even on top of another, changes the other by nothing at all."""
    first, second = (
        neutral(model, rattled(molecule("H2O"))),
        neutral(model, rattled(molecule("CO2"))),
    )
    (before, _), moved = model.answers([first, second]), second.copy()
    moved.positions += first.positions.mean(axis=0) + 0.3
    after, _ = model.answers([first, moved])
    for name in model.laws:
        assert torch.allclose(before[name], after[name], rtol=0.0, atol=0.0, equal_nan=True), name


def test_conditions_of_a_batch_do_not_talk(model: Potential) -> None:
    """What one structure is told is no business of the other's, nor is its head."""
    first, second = (
        neutral(model, rattled(molecule("H2O"))),
        neutral(model, rattled(molecule("CO2"))),
    )
    (before, other), changed = model.answers([first, second]), second.copy()
    changed.info["head"] = model.config.heads[0]
    for name, value in conditions_of(3, seed=8, charge=2).items():
        if reads(model, name):
            give(changed, name, value)
    after, after_other = model.answers([first, changed])
    for name in model.laws:
        assert close(before[name], after[name], model.tolerance), name
    if model.config.embeddings:
        assert not close(other["energy"], after_other["energy"], 1e-6)


def test_one_output_alone_is_that_of_all_together(model: Potential) -> None:
    frames = [systems(model)[name] for name in ("molecule", "slab")]
    together = model.answers(frames)
    for name in model.laws:
        for all_of_them, alone in zip(together, model.answers(frames, [name]), strict=True):
            assert close(all_of_them[name], alone[name], model.tolerance), name


def test_answers_repeat_to_the_last_bit(model: Potential) -> None:
    frames = list(systems(model).values())
    for first, second in zip(model.answers(frames), model.answers(frames), strict=True):
        for name in model.laws:
            assert torch.allclose(first[name], second[name], rtol=0.0, atol=0.0, equal_nan=True)


def test_heads_mixed_in_a_batch_are_heads_one_by_one(model: Potential) -> None:
    heads = model.config.heads
    if len(heads) == 1:
        pytest.skip("one head")
    frames = []
    for head in heads:
        frames.append(neutral(model, ethanol()))
        frames[-1].info["head"] = head
    mixed = model.answers(frames)
    for head, frame, answer in zip(heads, frames, mixed, strict=True):
        (alone,) = model.answers([frame])
        for name in model.laws:
            assert close(alone[name], answer[name], model.tolerance), (head, name)
    assert len({round(float(answer["energy"]), 3) for answer in mixed}) == len(heads)
    same = close(mixed[0]["descriptors"], mixed[1]["descriptors"], 1e-4)
    assert same is ("fidelity" not in model.config.embeddings)  # whether the trunk knows the head


@pytest.mark.parametrize("stacked_size", [0, 10**9], ids=["in turn", "stacked"])
def test_a_committee_says_what_its_members_say(
    model: Potential, stacked_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committee_module, "STACKED_SIZE", stacked_size)
    members = [
        replace(one, compiled=NOT_COMPILED) for one in (model, potential(model.name, seed=5))
    ]
    head = model.config.heads[-1]
    frames = list(batch(model).values())
    for frame in frames:
        frame.info["head"] = head
    committee = Committee([member.model for member in members], head=head, splines=False)
    predictions = committee.predict(frames, stress=True, descriptors=True)
    answers = [member.answers(frames) for member in members]
    assert not close(answers[0][0]["energy"], answers[1][0]["energy"], 1e-3)
    for index, prediction in enumerate(predictions):
        own = [answer[index] for answer in answers]
        energies = torch.stack([answer["energy"] for answer in own])
        forces = torch.stack([answer["forces"] for answer in own])
        assert close(energies, torch.from_numpy(prediction.member_energies), model.tolerance)
        assert close(forces, torch.from_numpy(prediction.member_forces), model.tolerance)
        features = torch.from_numpy(np.asarray(prediction.descriptors))
        assert close(own[0]["descriptors"], features, model.tolerance)
        if prediction.stress is not None:
            stress = torch.stack([answer["stress"] for answer in own]).mean(dim=0)
            assert close(stress, torch.from_numpy(prediction.stress), model.tolerance)


def test_float32_answers_are_those_of_float64(model: Potential) -> None:
    """To a few parts in ten thousand of the largest value, whatever the network is made of."""
    exact, single = (model.model.as_dtype(dtype) for dtype in ("float64", "float32"))
    frames = [systems(model)[name] for name in ("molecule", "alloy")]
    graph = model.graph(frames)
    heads = [frame.info.get("head", model.config.heads[0]) for frame in frames]
    names = [name for name in model.laws if name not in ("energy", "node_energy", "descriptors")]
    first, second = (net.evaluate(graph, names, head=heads) for net in (exact, single))
    for name in model.laws:
        assert close(first[name], second[name], 5e-4), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_agree(model: Potential) -> None:
    frames = list(batch(model).values())
    here = model.answers(frames)
    graph = model.graph(frames).to("cuda")
    heads = [frame.info.get("head", model.config.heads[0]) for frame in frames]
    names = [name for name in model.laws if name not in ("energy", "node_energy", "descriptors")]
    try:
        there = model.model.to("cuda").evaluate(graph, names, head=heads)
    finally:
        model.model.to("cpu")
    for name, law in model.laws.items():
        parts = [answer[name] for answer in here]
        joined = torch.cat(parts) if law.per == "atom" else torch.stack(parts)
        assert close(joined, there[name].cpu(), model.tolerance), name
