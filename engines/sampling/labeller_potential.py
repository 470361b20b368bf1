"""A labeller behind the `Potential` interface: dynamics and bands on the reference method itself.

What plain molecular dynamics or a plain nudged elastic band would cost in labels: every prediction
is one label. The yardstick for a campaign.
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from ase import Atoms

from tace_al.engines.labelling.labeller import Labeller
from tace_al.engines.sampling.potential import Potential
from tace_al.model.prediction import Prediction


@final
class LabellerPotential(Potential):
    """Any labeller as a committee of one.

    Parameters
    ----------
    labeller
        What computes energies and forces; its `LabelFailed` passes through.

    Attributes
    ----------
    num_labels
        Labels made so far.
    """

    def __init__(self, labeller: Labeller) -> None:
        self.labeller = labeller
        self.num_labels = 0

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Return one prediction a frame, labelled one by one."""
        return [self._predict(atoms) for atoms in frames]

    def _predict(self, atoms: Atoms) -> Prediction:
        label = self.labeller.label(atoms)
        self.num_labels += 1
        return Prediction(
            member_energies=np.asarray([label.energy]),
            member_forces=label.forces[None],
            stress=label.stress,
        )
