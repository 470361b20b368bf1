"""The event loop of a campaign.

Nothing here waits for anything but the next finished task. After each one the loop asks what can be
started: labels first, then what the serving generation still has to explore, then the choice of
frames, then the next generation; workers that would be idle meanwhile run more dynamics. All state
lies in the Store and in result files named by their content, so that the same command goes on after
any death of any process.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from rich.console import Console

from tace_al import __version__
from tace_al.campaign.choosing import Choosing
from tace_al.campaign.config import Campaign
from tace_al.campaign.end_states import EndStates
from tace_al.campaign.exploration import Exploration
from tace_al.campaign.generations import Generations
from tace_al.campaign.labelling import Labelling
from tace_al.campaign.outcome import (
    CampaignResult,
    campaign_result,
    generation_outcomes,
    label_saddles,
    stopping_rule,
    target_text,
)
from tace_al.campaign.targets import Targets
from tace_al.campaign.workplace import Workplace, cheap_level
from tace_al.core.atomic_write import require_free_space
from tace_al.core.errors import ConfigError, RecordNotFound
from tace_al.dispatch.dispatcher import Dispatcher
from tace_al.dispatch.request import Envelope
from tace_al.engines.labelling.catalogue import labeller_from_name
from tace_al.engines.labelling.guards import check_structure
from tace_al.report.report import write_report
from tace_al.store.store import Store

POLL_SECONDS = 1.0


def run_campaign(
    campaign: Campaign, *, directory: Path, uri: str | None, console: Console
) -> CampaignResult:
    """Run a campaign to its end, or go on with the one in `directory`.

    Parameters
    ----------
    campaign
        What to do. A campaign that was begun must be the same, but for machine and stopping.
    directory
        Where its database, results and report go.
    uri
        MongoDB server, or None for the embedded database.
    console
        Where progress is shown.

    Raises
    ------
    TaceError
        What cannot go on; all state is kept.
    KeyboardInterrupt
        Ctrl-C; all state is kept.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    require_free_space(directory)
    labeller = labeller_from_name(campaign.labeller.name, campaign.labeller.options)
    for structure in campaign.start_structures:
        check_structure(structure.to_atoms())
    with _only_run(directory), Store.open(directory, uri=uri) as store:
        _enter(store, campaign)
        store.add_fidelity(labeller.fidelity)
        cheap = cheap_level(campaign, labeller.fidelity)
        if cheap is not None:
            store.add_fidelity(cheap.fidelity)
        with Dispatcher(campaign.machine, directory, on_event=_event_logger(store)) as dispatcher:
            workplace = Workplace(
                campaign=campaign,
                store=store,
                dispatcher=dispatcher,
                directory=directory,
                fidelity=labeller.fidelity,
                cheap=cheap,
            )
            loop = _Loop(workplace, console)
            try:
                result = loop.run()
            except BaseException as error:
                state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
                loop.log_time()
                store.finish_campaign(state)
                raise
        store.finish_campaign("finished", result.to_dict())
        return replace(result, report=write_report(store, directory / "report"))


def _event_logger(store: Store) -> Callable[[str, dict[str, Any]], None]:
    """Return what writes the dispatcher's events into the Store."""

    def log(name: str, fields: dict[str, Any]) -> None:
        store.log("dispatch", name, **fields)

    return log


@contextmanager
def _only_run(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; the system releases it when the process dies."""
    with (directory / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process is running the campaign in {directory}; wait for it, or choose "
                "another directory with --dir"
            ) from error
        yield


def _enter(store: Store, campaign: Campaign) -> None:
    """Register the campaign, or check that the one in the directory is the same."""
    content = campaign.model_dump(mode="json")
    try:
        begun_with = store.campaign().config.get("content_key")
    except RecordNotFound:
        begun_with = campaign.content_key
    if begun_with != campaign.content_key:
        raise ConfigError(
            f"{store.directory} holds a campaign with other settings; choose another directory "
            "with --dir, or run with the settings it began with"
        )
    store.start_campaign(
        campaign.name,
        {**content, "content_key": campaign.content_key, "reference_barriers": _known(campaign)},
        seed=campaign.seed,
        code_version=__version__,
    )


def _known(campaign: Campaign) -> dict[str, float]:
    """Return the reference barriers for the report."""
    return {
        reaction.name: reaction.reference_barrier
        for reaction in campaign.reactions
        if reaction.reference_barrier is not None
    }


@final
class _Loop:
    """One session of a campaign."""

    def __init__(self, workplace: Workplace, console: Console) -> None:
        self.workplace, self.console = workplace, console
        self.started = time.monotonic()
        store = workplace.store
        self.former_seconds = sum(event.data["seconds"] for event in store.events(kind="session"))
        self.reactant_energy: dict[str, float] = {}
        self.labelling = Labelling(workplace, self._on_label)
        self.end_states = EndStates(workplace, self.labelling)
        self.anchors: dict[str, str] = {}
        self.generations = Generations(workplace, self.anchors)
        self.exploration = Exploration(workplace, self.end_states, self._on_label)
        self.targets = Targets(workplace, self.end_states, self.exploration)
        self.choosing = Choosing(workplace, self.labelling)
        self._explored = 0
        self._reported = 0

    @property
    def seconds(self) -> float:
        """Wall time of this and all former sessions."""
        return self.former_seconds + time.monotonic() - self.started

    def log_time(self) -> None:
        """Remember the time spent since the last such entry."""
        seconds = time.monotonic() - self.started
        self.workplace.store.log("session", "time spent", seconds=seconds)
        self.former_seconds += seconds
        self.started = time.monotonic()

    def run(self) -> CampaignResult:
        """Go round until the stopping rule says why not to."""
        with self.console.status("relaxing the start states") as status:
            self.end_states.start()
            reason = None
            while reason is None and not self.end_states.ready:
                for envelope in self.workplace.dispatcher.wait(POLL_SECONDS):
                    self._log_task(envelope)
                    self.end_states.receive(envelope)
                reason = self._out_of_time()
            if reason is None:
                self._anchor()
                self.generations.resume()
                self._report_start()
                reason = self._advance()
            while reason is None:
                status.update(self._status())
                for envelope in self.workplace.dispatcher.wait(POLL_SECONDS):
                    self._log_task(envelope)
                    self._receive(envelope)
                reason = self._out_of_time() or self._advance()
        self.choosing.expire()
        self.log_time()
        return campaign_result(
            self.workplace,
            reason=reason,
            num_labels=self.labelling.num_labels,
            seconds=self.seconds,
        )

    def _anchor(self) -> None:
        """Find the labels of the first start states, from which energies are measured."""
        energies = {record.key: record.energy for record in self.workplace.store.labels()}
        for channel in self.workplace.campaign.channels:
            key = self.end_states.anchor(channel)
            self.anchors[channel] = key
            self.reactant_energy[channel] = energies[key]

    def _advance(self) -> str | None:
        """Start whatever can be started; return why the campaign is over, or None."""
        self.labelling.submit()
        serving, generations = self.generations.serving, self.generations
        if serving is None:
            if self.labelling.idle and not generations.training:
                generations.start()
            return None
        if self._explored != serving.number:
            self.exploration.start(serving)
            self._explored = serving.number
        if generations.training:
            if self.workplace.dispatcher.idle_workers > 0:
                self.exploration.extend(serving)
            return None
        if not self.exploration.finished(serving) or self.choosing.running:
            return None
        judged = self.targets.finished(serving)
        if not self.choosing.done(serving):
            self.choosing.start(serving)
            return None
        if not (judged and self.labelling.idle):
            return None
        self._report_generation()
        reason = self._reason()
        if (
            reason is None
            and generations.number >= self.workplace.campaign.stopping.max_generations
        ):
            reason = f"generation budget spent: {generations.number} generations"
        if reason is None:
            generations.start()
        return reason

    def _reason(self) -> str | None:
        """Return what the stopping rule says of the generations so far."""
        reason = stopping_rule(self.workplace).reason(
            generation_outcomes(self.workplace),
            num_labels=self.labelling.num_labels,
            seconds=self.seconds,
        )
        return reason or self.labelling.reason

    def _out_of_time(self) -> str | None:
        """Return why the campaign is over when its time is, whatever still runs."""
        limit = self.workplace.campaign.stopping.max_seconds
        return self._reason() if limit is not None and self.seconds >= limit else None

    def _receive(self, envelope: Envelope) -> None:
        """Hand a finished task to the part that asked for it."""
        if envelope.kind == "label":
            self.labelling.receive(envelope)
        elif envelope.kind == "train":
            self.generations.receive_member(envelope)
        elif self.exploration.expects(envelope.key):
            self.exploration.receive(envelope)
        elif self.targets.expects(envelope.key):
            self.targets.receive(envelope)
        elif self.generations.expects(envelope.key):
            self.generations.receive_assessment(envelope)
        elif self.choosing.expects(envelope.key) and self.generations.serving is not None:
            self.choosing.receive(envelope, self.generations.serving)

    def _on_label(self, structure: str) -> None:
        """Check a barrier when the label of its saddle point arrives."""
        if self.reactant_energy:
            label_saddles(self.workplace, structure, self.reactant_energy)

    def _log_task(self, envelope: Envelope) -> None:
        """Write a task into the timeline."""
        self.workplace.store.log(
            "task",
            f"{envelope.kind} {'done' if envelope.ok else envelope.error_kind}",
            task_kind=envelope.kind,
            key=envelope.key,
            worker=envelope.worker,
            started=envelope.started,
            ended=envelope.ended,
            ok=envelope.ok,
        )

    def _status(self) -> str:
        """Return one line on what goes on."""
        running = sorted(request.kind for request in self.workplace.dispatcher.in_flight.values())
        serving = self.generations.serving
        number = serving.number if serving is not None else 0
        return (
            f"generation {number} serves, {self.labelling.num_labels} labels, "
            f"{self.seconds / 60:.1f} min, running: {', '.join(running) or 'nothing'}"
        )

    def _report_start(self) -> None:
        """Print that the start states are there, or which generation goes on."""
        serving = self.generations.serving
        text = "start states relaxed" if serving is None else f"generation {serving.number} goes on"
        number = self.labelling.num_labels
        self.console.print(f"{text}: {number} labels ({self.seconds / 60:.1f} min)")

    def _report_generation(self) -> None:
        """Print one line a generation."""
        serving = self.generations.serving
        assert serving is not None
        if serving.number == self._reported:
            return
        self._reported = serving.number
        self.log_time()
        record = self.workplace.store.generation(serving.number)
        found = [
            f"{channel} {barrier['barrier']:.3f} ± {barrier['error_bar']:.3f} eV"
            for channel, barrier in record.barriers.items()
        ]
        found += [f"{name} {target_text(target)}" for name, target in record.targets.items()]
        error = record.errors.get("force_rmse")
        quality = f"force error {error:.0f} meV/A" if error is not None else "no calibration yet"
        known = ", ".join([quality, *found])
        self.console.print(
            f"generation {serving.number}: {record.num_labels} labels, {known} "
            f"({self.seconds / 60:.1f} min)",
            soft_wrap=True,
        )
