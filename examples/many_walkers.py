"""Run many walkers in one batch, each until a committee of models no longer knows where it is.

Prints how much sooner hot walkers leave known ground than cool ones: time to doubt, hot over cool.
"""

import numpy as np
from ase.build import molecule

from tace_al.data.extxyz import ENERGY, FORCES
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.isolated import isolated_atom
from tace_al.engines.sampling.batched_md import BatchedDynamics
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.integrators import Langevin
from tace_al.engines.sampling.walkers import UncertaintyAbove, Unphysical, Walker
from tace_al.model.committee import Committee
from tace_al.model.config import preset_config
from tace_al.model.trainer import TrainingOptions, train

# 1. Shaken water and methanol, labelled with GFN2-xTB; two models that differ by their seed.
labeller = labeller_from_name("gfn2")
rng = np.random.default_rng(0)
frames = [isolated_atom(symbol) for symbol in "HCO"]
for index in range(50):
    atoms = molecule(("H2O", "CH3OH")[index % 2])
    atoms.positions += rng.normal(0.0, 0.05, (len(atoms), 3))
    frames.append(atoms)
for atoms in frames:
    label = labeller.label(atoms)
    atoms.info[ENERGY], atoms.arrays[FORCES] = label.energy, label.forces  # eV, eV/Angstrom
config = preset_config("tiny", elements=("H", "C", "O"), channels=16)
members = [
    train(
        frames[:-10],
        frames[-10:],
        config=config,
        options=TrainingOptions(epochs=30, batch_size=4, learning_rate=0.01, seed=seed),
    ).model
    for seed in range(2)
]
committee = Committee(members)

# 2. A limit for doubt: well above what it is on structures like those it was trained on.
usual = [prediction.force_spread.max() for prediction in committee.predict(frames[-10:])]
stops = (UncertaintyAbove(limit=2.0 * max(usual)), Unphysical())

# 3. Forty walkers of two sizes and two temperatures; the batch shrinks as they stop.
walkers = [
    Walker(molecule(name), steps=400, temperature=temperature, seed=seed, stops=stops)
    for temperature in (150.0, 1500.0)
    for name in ("H2O", "CH3OH")
    for seed in range(10)
]
potential = CommitteePotential(committee, skin=0.5)
trajectories = BatchedDynamics(potential, walkers, Langevin(friction=0.02)).run()

# 4. `trajectory.trigger` is the frame worth a label; here only the times are looked at.
times = np.array([trajectory.steps * 0.5 for trajectory in trajectories])  # fs
print(f"{times[20:].mean() / times[:20].mean():.2f}")
