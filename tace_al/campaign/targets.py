"""The campaign's target, evaluated on a worker once a generation, when its exploration is in.

Barriers are not among them: they come from the bands (`exploration.py`). What a target says is kept
with the generation; one that fails leaves a warning, and the campaign goes on to its budget.
"""

from typing import final

from tace_al.campaign.end_states import EndStates
from tace_al.campaign.exploration import Exploration
from tace_al.campaign.generations import Serving
from tace_al.campaign.sampling import OWN_TARGETS
from tace_al.campaign.workplace import Workplace, failed_task, raise_if_hopeless
from tace_al.core.errors import ConfigError
from tace_al.core.random_generators import random_seed
from tace_al.dispatch.request import Envelope


@final
class Targets:
    """Evaluates what must converge."""

    def __init__(
        self, workplace: Workplace, end_states: EndStates, exploration: Exploration
    ) -> None:
        self.workplace, self.end_states, self.exploration = workplace, end_states, exploration
        self._running: dict[str, int] = {}

    def expects(self, key: str) -> bool:
        """Whether an envelope is a target's."""
        return key in self._running

    def finished(self, serving: Serving) -> bool:
        """Whether this generation has said what it knows of the target; starts asking if not."""
        choice = self.workplace.campaign.target
        if choice is None or choice.name in OWN_TARGETS:
            return True
        if serving.number in self._running.values():
            return False
        if "target" in self.workplace.store.generation(serving.number).audit:
            return True
        calibration, end_states = serving.calibration, self.end_states
        payload = {
            "target": choice.name,
            "options": choice.options,
            "models": list(serving.models),
            **self.workplace.head,
            "starts": {
                channel: self.workplace.frame_file(end_states.starts(channel))
                for channel in self.workplace.campaign.channels
            },
            "observables": self.exploration.observables(serving),
            "calibration": {
                "force_scale": calibration.scale,
                "energy_scale": calibration.energy_scale,
                "energy_floor": calibration.energy_floor,
            },
            "seed": random_seed(self.workplace.campaign.seed, "target", serving.number),
        }
        self._running[self.workplace.submit("target", payload).key] = serving.number
        return False

    def receive(self, envelope: Envelope) -> None:
        """Keep what a target said with its generation."""
        number = self._running.pop(envelope.key)
        raise_if_hopeless(envelope)
        store = self.workplace.store
        record = store.generation(number)
        values = {}
        if envelope.ok and envelope.result is not None:
            values = {
                _plain_key(name): {
                    **value,
                    "labels": record.num_labels,
                    "folder": self.workplace.kept_path(envelope.folder),
                }
                for name, value in envelope.result["values"].items()
            }
        elif envelope.error_kind == ConfigError.__name__:
            raise failed_task(envelope, "no generation can be judged")
        else:
            store.log("warning", f"target of generation {number} failed: {envelope.error_message}")
        audit = {**record.audit, "target": "known" if values else "failed"}
        store.update_generation(number, targets=values, audit=audit)


def _plain_key(name: str) -> str:
    """Return the name of a value as a key of the database.

    >>> _plain_key("band gap (eV)")
    'band_gap__eV'
    """
    plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)
    return plain.strip("_")[:64] or "value"
