"""Retries of a label that failed: each kind of failure has its own ladder of other ways.

A labeller says for each kind which variants of itself are worth trying (`Labeller.retries`): more
iterations, gentler mixing, second-order steps. All have its fidelity, so that whichever succeeds,
the label is the same number; a setting that changes the number is another level of theory and never
a retry. A crash may have been the machine's fault and is tried once again as it was. What a guard
refuses is not tried again at all: the structure is to blame.
"""

import time
from dataclasses import replace

from ase import Atoms

from tace_al.core.errors import LabelFailed
from tace_al.core.labels import Label
from tace_al.engines.labelling.labeller import Labeller

CRASH = "crash"


def laddered_label(labeller: Labeller, atoms: Atoms) -> Label:
    """Return the label of one structure by the first way that leads to one.

    Its `seconds` count every attempt.

    Raises
    ------
    LabelFailed
        Every way failed: the first failure, with the number of attempts and, as notes, what each
        of the others said.
    """
    start = time.perf_counter()
    try:
        return labeller.label(atoms)
    except LabelFailed as error:
        first = error
    for rung in _rungs(labeller, first.kind):
        first.attempts += 1
        try:
            label = rung.label(atoms)
        except LabelFailed as error:
            first.add_note(f"attempt {first.attempts} with {rung}: {error.kind}: {error.message}")
            for note in getattr(error, "__notes__", ()):
                first.add_note(note)
            if error.kind != first.kind:
                break  # another kind of failure has another ladder, which this one did not ask for
        else:
            return replace(label, seconds=time.perf_counter() - start)
    raise first


def _rungs(labeller: Labeller, kind: str) -> tuple[Labeller, ...]:
    """Return what to try after a failure of a kind."""
    rungs = labeller.retries(kind)
    for rung in rungs:
        assert rung.fidelity.key == labeller.fidelity.key, f"{rung} changes the level of theory"
    return rungs or ((labeller,) if kind == CRASH else ())
