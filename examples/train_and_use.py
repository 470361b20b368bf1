"""Label a few structures, train a model on them, and run molecular dynamics with it.

Prints the model's force error on structures it has never seen, in meV/Angstrom.
"""

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin

from tace_al import TaceCalculator
from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.isolated import isolated_atom
from tace_al.model.config import preset_config
from tace_al.model.evaluation import evaluate
from tace_al.model.trainer import TrainingOptions, train

# 1. Forty shaken water molecules and the two isolated atoms, labelled with GFN2-xTB.
labeller = labeller_from_name("gfn2")
rng = np.random.default_rng(0)
frames = [isolated_atom("H"), isolated_atom("O")]
for _ in range(40):
    water = molecule("H2O")
    water.positions += rng.normal(0.0, 0.08, (3, 3))
    frames.append(water)
for atoms in frames:
    label = labeller.label(atoms)
    atoms.info[ENERGY], atoms.arrays[FORCES] = label.energy, label.forces  # eV, eV/Angstrom

# 2. A small network; eight molecules choose the best epoch and are never trained on.
trained = train(
    frames[:-8],
    frames[-8:],
    config=preset_config("tiny", elements=("H", "O"), channels=16),
    options=TrainingOptions(epochs=60, batch_size=4, learning_rate=0.01, seed=0),
)

# 3. The model drives half a picosecond at 300 K like any ASE calculator.
water = molecule("H2O")
water.calc = TaceCalculator(trained.model)
rng = np.random.RandomState(0)
dynamics = Langevin(
    water, 0.5 * units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=rng
)
visited = []
for _ in range(10):
    dynamics.run(100)
    visited.append(water.copy())

# 4. How right was it where it went? Ask the labeller.
for atoms in visited:
    label = labeller.label(atoms)
    atoms.info[ENERGY], atoms.arrays[FORCES] = label.energy, label.forces
print(f"{evaluate(trained.model, visited).to_dict()['forces_rmse_mev_per_angstrom']:.0f}")
