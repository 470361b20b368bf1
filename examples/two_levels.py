"""Many cheap labels, few dear ones: teach a model GFN1-xTB, then GFN2-xTB with a head of its own.

The second level starts from the first one's readout, on a trunk that stays as it is, so the cheap
level answers as before. Prints what is left of the force error of a model that sees the dear labels
alone: both levels' error over its error.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule

from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.isolated import isolated_atom
from tace_al.model.config import preset_config
from tace_al.model.evaluation import evaluate
from tace_al.model.trainer import TrainingOptions, train

SHAPE = preset_config("tiny", elements=("H", "C", "O"), channels=16, heads=("gfn2",))


def labelled(level: str, count: int, seed: int) -> list[Atoms]:
    """Return shaken methanols, labelled and marked with the level of theory."""
    rng = np.random.default_rng(seed)
    labeller = labeller_from_name(level)
    frames = [isolated_atom(symbol) for symbol in SHAPE.elements]
    for _ in range(count):
        atoms = molecule("CH3OH")
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        frames.append(atoms)
    for atoms in frames:
        label = labeller.label(atoms)
        atoms.info[ENERGY], atoms.arrays[FORCES] = label.energy, label.forces  # eV, eV/Angstrom
        atoms.info["head"] = level
    return frames


def force_error(frames: list[Atoms], **arguments: Any) -> float:
    """Return the error on GFN2-xTB forces not trained on, meV/Angstrom."""
    result = train(frames, [], **arguments)
    return evaluate(result.model, test, head="gfn2").forces_rmse_mev_per_angstrom


few, test = labelled("gfn2", 10, seed=1), labelled("gfn2", 30, seed=2)[3:]

# 1. The cheap level, from many labels.
options = TrainingOptions(epochs=40, batch_size=4, learning_rate=0.01, seed=0)
cheap = train(
    labelled("gfn1", 80, seed=0), [], config=replace(SHAPE, heads=("gfn1",)), options=options
).model

# 2. The dear level, from ten labels, on the trunk of the cheap one.
both = replace(cheap.config, heads=("gfn1", "gfn2"))
brief = replace(options, learning_rate=0.002)
together = force_error(few, config=both, options=replace(brief, frozen=("trunk",)), start=cheap)

# 3. The same ten labels without the cheap level.
alone = force_error(few, config=SHAPE, options=replace(options, epochs=80))
print(f"{together / alone:.2f}")
