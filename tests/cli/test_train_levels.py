"""Levels of theory and any output from the command line: trained, added, frozen, evaluated."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from tace_al.model.checkpoint import load, save
from tace_al.model.head_committee import HeadCommittee
from tace_al.model.tace import Tace

SMALL = ("--preset", "tiny", "--set", "channels=8", "--set", "radial_hidden=16", "--cutoff", 3)
BRIEF = ("--epochs", 2, "--learning-rate", 0.005)
STIFFNESS = {"A": 20.0, "B": 24.0}
E0 = {"A": -10.0, "B": -200.0}


def springs(count: int, seed: int, level: str, *, named: bool = False) -> list[Atoms]:
    """Return distorted waters whose bonds are springs, with the dipole of fixed charges."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0.0, 0.1, (3, 3))
        energy, forces = E0[level], np.zeros((3, 3))
        for hydrogen in (1, 2):
            bond = atoms.positions[hydrogen] - atoms.positions[0]
            r = np.linalg.norm(bond)
            energy += 0.5 * STIFFNESS[level] * (r - 0.97) ** 2
            forces[hydrogen] -= STIFFNESS[level] * (r - 0.97) * bond / r
        forces[0] = -forces[1:].sum(axis=0)
        atoms.info["REF_energy"] = energy
        atoms.set_array("REF_forces", forces)
        atoms.info["mu"] = np.array([-0.8, 0.4, 0.4]) @ atoms.positions
        if named:
            atoms.info["head"] = level
        frames.append(atoms)
    return frames


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return many frames of level A and few of level B in files."""
    paths = {}
    for level, count in (("A", 30), ("B", 8)):
        paths[level] = tmp_path / f"{level}.xyz"
        write(paths[level], springs(count, ord(level), level), format="extxyz")
    return paths


@pytest.fixture(scope="module")
def level_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of level A, trained by the program's own function."""
    from tace_al.model.config import preset_config
    from tace_al.model.trainer import TrainingOptions, train

    config = preset_config(
        "tiny", elements=("H", "O"), heads=("A",), channels=8, radial_hidden=(16,), cutoff=3.0
    )
    frames = springs(30, 0, "A", named=True)
    options = TrainingOptions(epochs=20, learning_rate=0.01)
    model = train(frames, [], config=config, options=options).model
    model.metadata = {"preset": "tiny", "seed": 5}
    path = tmp_path_factory.mktemp("models") / "a.tace"
    save(model, path)
    return path


def weights(model: Tace, part: str) -> list[float]:
    """Return all numbers of a head, or of the trunk."""
    heads = model.config.heads
    return [
        number
        for name, tensor in model.state_dict().items()
        if (part in name.split(".") if part != "trunk" else not set(heads) & set(name.split(".")))
        for number in tensor.flatten().tolist()
    ]


@pytest.mark.parametrize("frozen", [(), ("trunk",), ("A",), ("trunk", "A")])
def test_a_second_level_on_few_frames(
    tace_al, files: dict, level_a: Path, tmp_path: Path, frozen: tuple[str, ...]
) -> None:
    out = tmp_path / "ab.tace"
    freeze = [word for name in frozen for word in ("--freeze", name)]
    outcome = tace_al(
        "train", files["B"], "--head", "B", "--start", level_a, "--out", out, *BRIEF, *freeze
    )
    assert outcome.code == 0, outcome.err
    assert "Held-out structures, B" in outcome.out and "structures, A" not in outcome.out
    before, after = load(level_a), load(out)
    assert after.config.heads == ("A", "B")
    assert (weights(before, "trunk") == weights(after, "trunk")) == ("trunk" in frozen)
    assert weights(before, "A") == weights(after, "A"), "no frame of its level was there"
    assert weights(after, "B") != weights(after, "A")
    assert after.head("B").e0.sum() < -60 and after.head("A").e0.sum() > -20
    metadata = after.metadata
    assert metadata["parent"] == "a.tace" and metadata["preset"] == "tiny"
    assert metadata["files"] == {"B": "B.xyz"} and metadata["levels"] == {"B": 7}
    assert metadata["seed"] == 0 and len(metadata["training_set"]) == 32


def test_a_start_is_better_than_none(tace_al, files: dict, level_a: Path, tmp_path: Path) -> None:
    write(tmp_path / "test.xyz", springs(20, 77, "B", named=True), format="extxyz")
    errors = {}
    for name, extra in (("warm", ("--start", level_a)), ("cold", SMALL)):
        out = tmp_path / f"{name}.tace"
        outcome = tace_al("train", files["B"], "--head", "B", "--out", out, *BRIEF, *extra)
        assert outcome.code == 0, outcome.err
        found = tmp_path / f"{name}.json"
        outcome = tace_al("evaluate", out, tmp_path / "test.xyz", "--head", "B", "--json", found)
        assert outcome.code == 0, outcome.err
        errors[name] = json.loads(found.read_text())["forces_rmse_mev_per_angstrom"]
    assert errors["warm"] < 0.5 * errors["cold"]


def test_two_levels_at_once_and_their_tables(tace_al, files: dict, tmp_path: Path) -> None:
    out, errors = tmp_path / "ab.tace", tmp_path / "errors.json"
    also = ("--head", "A", "--also", f"B={files['B']}")
    outcome = tace_al("train", files["A"], *also, "--out", out, *SMALL, *BRIEF)
    assert outcome.code == 0, outcome.err
    assert "Held-out structures, A" in outcome.out and "Held-out structures, B" in outcome.out
    model = load(out)
    assert model.config.heads == ("A", "B")
    assert model.metadata["files"] == {"A": "A.xyz", "B": "B.xyz"}
    assert model.metadata["levels"] == {"A": 27, "B": 7}
    mixed = tmp_path / "mixed.xyz"
    write(mixed, springs(4, 5, "A", named=True) + springs(4, 6, "B", named=True), format="extxyz")
    outcome = tace_al("evaluate", out, mixed, "--json", errors)
    assert outcome.code == 0, outcome.err
    assert re.search(r"mixed\.xyz, A", outcome.out) and re.search(r"mixed\.xyz, B", outcome.out)
    by_level = json.loads(errors.read_text())
    assert set(by_level) == {"A", "B"}
    assert by_level["A"]["num_structures"] == by_level["B"]["num_structures"] == 4
    outcome = tace_al("evaluate", out, mixed, "--head", "A", "--json", errors)
    crossed = json.loads(errors.read_text())
    assert outcome.code == 0 and crossed["num_structures"] == 8
    assert crossed["energy_rmse_mev_per_atom"] > 10_000, "B's frames are judged with A's E0"


def test_a_committee_of_heads_from_one_file(tace_al, files: dict, tmp_path: Path) -> None:
    out, again = tmp_path / "committee.tace", tmp_path / "again.tace"
    outcome = tace_al("train", files["A"], "--members", 3, "--out", out, *SMALL, *BRIEF)
    assert outcome.code == 0, outcome.err
    model = load(out)
    assert model.config.heads == ("member-0", "member-1", "member-2")
    assert all(10 <= model.metadata["levels"][head] <= 25 for head in model.config.heads)
    assert "Held-out structures, member-2" in outcome.out
    (prediction,) = HeadCommittee.load(out).predict([molecule("H2O")])
    assert len(prediction.member_energies) == 3 and prediction.force_spread.min() > 0
    start = ("--start", out, "--members")
    assert tace_al("train", files["A"], *start, 3, "--out", again, *BRIEF).code == 0
    assert load(again).config.heads == model.config.heads
    outcome = tace_al("train", files["A"], *start, 2, "--out", again, *BRIEF)
    assert outcome.code != 0 and "has the heads member-0" in " ".join(outcome.err.split())
    also = ("--members", 2, "--also", f"B={files['B']}")
    outcome = tace_al("train", files["A"], *also, "--out", again, *SMALL, *BRIEF)
    assert outcome.code != 0 and "one level of theory" in " ".join(outcome.err.split())


def test_frames_may_name_their_level_in_the_file(tace_al, tmp_path: Path) -> None:
    out, data = tmp_path / "ab.tace", tmp_path / "both.xyz"
    frames = springs(40, 1, "A", named=True) + springs(10, 2, "B", named=True)
    write(data, frames, format="extxyz")
    outcome = tace_al("train", data, "--out", out, *SMALL, *BRIEF, "--valid-fraction", 0.1)
    assert outcome.code == 0, outcome.err
    model = load(out)
    assert model.config.heads == ("A", "B")
    assert model.metadata["levels"] == {"A": 36, "B": 9}, "a tenth of every level is held out"


@pytest.mark.slow
def test_labels_of_an_output_by_the_files_name(tace_al, tmp_path: Path) -> None:
    data, out, errors = tmp_path / "d.xyz", tmp_path / "d.tace", tmp_path / "d.json"
    write(data, springs(40, 1, "A"), format="extxyz")
    arguments = ("--key", "dipole=mu", "--weight", "dipole=20", "--batch-size", 4)
    outcome = tace_al(
        "train", data, "--out", out, *SMALL, "--tensor", "dipole:1", "--epochs", 15, *arguments
    )
    assert outcome.code == 0, outcome.err
    assert "dipole" in outcome.out
    outcome = tace_al("evaluate", out, data, "--key", "dipole=mu", "--json", errors)
    assert outcome.code == 0, outcome.err
    size = np.sqrt(np.mean([atoms.info["mu"] ** 2 for atoms in springs(40, 1, "A")]))
    assert json.loads(errors.read_text())["dipole_rmse"] < 0.5 * size


def test_dipoles_that_ase_keeps_in_a_calculator_are_found(tace_al, tmp_path: Path) -> None:
    data, out = tmp_path / "d.xyz", tmp_path / "d.tace"
    frames = springs(12, 1, "A")
    for atoms in frames:
        dipole = atoms.info.pop("mu")
        charges = np.array([-0.8, 0.4, 0.4])
        atoms.calc = SinglePointCalculator(atoms, dipole=dipole, charges=charges)
    write(data, frames, format="extxyz")
    extra = ("--set", "charges=free", "--key", "dipole=dipole", "--key", "charges=charges")
    outcome = tace_al("train", data, "--out", out, *SMALL, *BRIEF, *extra)
    assert outcome.code == 0, outcome.err
    assert "dipole" in outcome.out and "charges" in outcome.out


def test_a_warm_start_keeps_its_arithmetic_or_takes_another(
    tace_al, files: dict, level_a: Path, tmp_path: Path
) -> None:
    precise, again = tmp_path / "precise.tace", tmp_path / "again.tace"
    arguments = ("train", files["A"], *BRIEF)
    outcome = tace_al(*arguments, "--start", level_a, "--dtype", "float64", "--out", precise)
    assert outcome.code == 0, outcome.err
    assert load(precise).config.dtype == "float64"
    assert load(precise).embedding.element_size() == 8
    outcome = tace_al(*arguments, "--start", precise, "--out", again)
    assert outcome.code == 0, outcome.err
    assert load(again).config.dtype == "float64"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--set", "chanels=8"), "Did you mean 'channels'?"),
        (("--set", "channels"), "is not KEY=VALUE"),
        (("--set", "product=spatial"), "Did you mean 'products'?"),
        (("--set", "charges=many"), "charges 'many' is not one of none, equilibrated"),
        (("--tensor", "dipole"), "is not NAME:RANK"),
        (("--tensor", "alpha:3:ij=ji"), "alpha"),
        (("--weight", "dipole:3"), "is not KEY=VALUE"),
        (("--weight", "dipol=3", "--tensor", "dipole:1"), "Did you mean 'dipole'?"),
        (("--key", "dipole"), "is not KEY=VALUE"),
        (("--key", "dipole=mu"), "the network has no output 'dipole'"),
        (("--key", "dipole=nu", "--tensor", "dipole:1"), "--key dipole=NAME"),
        (("--also", "A=A.xyz"), "names the level of"),
        (("--also", "B"), "--also B is not KEY=VALUE"),
        (("--also", "B=none.xyz"), "none.xyz does not exist"),
        (("--head", "keys"), "head name 'keys'"),
        (("--head", "a.b"), "without dots"),
        (("--freeze", "trunk"), "name it with --start"),
    ],
)
def test_wrong_options(tace_al, files: dict, tmp_path: Path, extra: tuple, words: str) -> None:
    head = () if "--head" in extra else ("--head", "A")
    out = tmp_path / "m.tace"
    outcome = tace_al("train", files["A"], *head, "--out", out, "--epochs", 1, *extra)
    assert outcome.code == 2 and words in outcome.err and not out.exists()
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--set", "channels=8"), "channels cannot be set with --start"),
        (("--tensor", "dipole:1"), "outputs cannot be set with --start"),
        (("--preset", "small"), "preset cannot be set with --start"),
        (("--cutoff", 4), "cutoff cannot be set with --start"),
        (("--freeze", "trunc"), "cannot freeze 'trunc'. Did you mean 'trunk'?"),
        (("--freeze", "trunk", "--freeze", "A"), "leaves nothing to train"),
    ],
)
def test_wrong_options_beside_a_start(
    tace_al, files: dict, level_a: Path, tmp_path: Path, extra: tuple, words: str
) -> None:
    out = tmp_path / "m.tace"
    outcome = tace_al("train", files["A"], "--start", level_a, "--out", out, "--epochs", 1, *extra)
    assert outcome.code == 2 and words in outcome.err and not out.exists()
    assert len(outcome.err.strip().splitlines()) == 1


def test_evaluating_what_the_model_does_not_know(
    tace_al, files: dict, level_a: Path, tmp_path: Path
) -> None:
    outcome = tace_al("evaluate", level_a, files["B"], "--head", "b")
    assert outcome.code == 2 and "no head 'b'; this model has A" in outcome.err
    named = tmp_path / "named.xyz"
    write(named, springs(3, 5, "B", named=True), format="extxyz")
    outcome = tace_al("evaluate", level_a, named)
    assert outcome.code == 2 and "labelled at 'B', the model has the heads A" in outcome.err
    assert tace_al("evaluate", level_a, named, "--head", "A").code == 0
    write(named, Atoms("H", info={"REF_energy": 1.0}), format="extxyz")
    outcome = tace_al("evaluate", level_a, named)
    assert outcome.code == 2 and "isolated atoms only" in outcome.err
