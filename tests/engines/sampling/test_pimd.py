"""Path integrals against exact energies, and a sampler that survives its server."""

import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ase import Atoms, units
from ase.build import molecule

from tace_al.core.errors import ConfigError, SamplerError, StructureError
from tace_al.core.units import BOLTZMANN
from tace_al.engines.sampling.pimd import PimdSampler, diverse_beads
from tace_al.engines.sampling.potential import Potential
from tace_al.engines.sampling.sampler import Thresholds
from tace_al.model.prediction import Prediction

pytestmark = [pytest.mark.ipi, pytest.mark.slow]
TRUSTING = Thresholds(low=1.0, high=2.0)
CENTRES = np.array([[4.0 * index, 0.0, 0.0] for index in range(80)])
HBAR = units._hbar / np.sqrt(units._amu * units._e) * 1e10
"""hbar in A sqrt(amu eV): times sqrt(k / m) in sqrt(eV / amu) / A it is an energy in eV."""
K = 4.0  # eV/A^2


class Wells(Potential):
    """Every coordinate of every atom in a one-dimensional well of its own.

    The first half of the atoms is harmonic, V = K x^2 / 2; the others are Morse oscillators of the
    same curvature, V = D (1 - exp(-a x))^2 with D = K / (2 a^2) of four quanta. Both groups'
    potential and centroid-virial kinetic energies are kept a step, in eV per coordinate.
    """

    def __init__(self, *, temperature: float = 300.0) -> None:
        self.temperature = temperature
        self.depth = 4.0 * quantum()
        self.a = np.sqrt(K / (2.0 * self.depth))
        self.energies: list[list[float]] = []

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        x = np.array([atoms.positions for atoms in frames]) - CENTRES
        half = len(CENTRES) // 2
        falling = np.exp(-self.a * x[:, half:])
        energies, forces = 0.5 * K * x**2, -K * x
        energies[:, half:] = self.depth * (1.0 - falling) ** 2
        forces[:, half:] = -2.0 * self.depth * self.a * (1.0 - falling) * falling
        kinetic = 0.5 * BOLTZMANN * self.temperature - 0.5 * (x - x.mean(axis=0)) * forces
        total = energies + kinetic
        self.energies.append([float(total[:, :half].mean()), float(total[:, half:].mean())])
        return [
            Prediction(member_energies=energy.sum(keepdims=True).ravel(), member_forces=force[None])
            for energy, force in zip(energies, forces, strict=True)
        ]


def hydrogens() -> Atoms:
    return Atoms(f"H{len(CENTRES)}", positions=CENTRES)


def quantum() -> float:
    """Return hbar omega of a hydrogen atom in these wells, in eV."""
    return float(HBAR * np.sqrt(K / hydrogens().get_masses()[0]))


def test_oscillators_have_their_quantum_energies_and_estimators_agree() -> None:
    step = quantum()
    temperature = step / (4.0 * BOLTZMANN)
    wells = Wells(temperature=temperature)
    chunk = PimdSampler(
        wells,
        TRUSTING,
        temperature=temperature,
        beads=16,
        steps=800,
        timestep_fs=0.5,
        thermostat_fs=10.0,
        fix_centre=False,
        equilibration=100,
        max_separation=50.0,
        seed=1,
    ).run(hydrogens())
    harmonic, morse = np.mean(wells.energies[100:], axis=0)

    assert harmonic == pytest.approx(0.5 * step / np.tanh(2.0), rel=0.02)  # classical: 0.25 step
    n = np.arange(7) + 0.5  # bound levels
    levels = step * n - (step * n) ** 2 / (4.0 * wells.depth)
    weights = np.exp(-4.0 * (levels - levels[0]) / step)
    exact = float((weights * levels).sum() / weights.sum())
    assert exact < 0.99 * 0.5 * step / np.tanh(2.0)
    assert morse == pytest.approx(exact, rel=0.02)

    found = chunk.observables
    assert chunk.reason == "all steps done"
    assert found["mean_kinetic_td_ev"] == pytest.approx(found["mean_kinetic_cv_ev"], rel=0.05)
    total = (found["mean_potential_ev"] + found["mean_kinetic_cv_ev"]) / CENTRES.size
    assert total == pytest.approx(0.5 * (harmonic + morse), rel=0.01)


class Watched(Potential):
    """Wells whose spread grows along x of the first atom; does something at a round."""

    def __init__(self, *, spread: float = 0.0, at: int = -1, action: Any = None) -> None:
        self.spread, self.at, self.action = spread, at, action
        self.rounds = 0
        self.wells = Wells()

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        self.rounds += 1
        if self.rounds == self.at:
            self.action()
        found = []
        for atoms, one in zip(frames, self.wells.predict(frames), strict=True):
            shift = np.zeros_like(one.member_forces)
            shift[0, 0, 0] = self.spread * abs(atoms.positions[0, 0] - CENTRES[0, 0])
            forces = np.concatenate([one.member_forces - shift, one.member_forces + shift])
            found.append(
                replace(
                    one, member_energies=np.repeat(one.member_energies, 2), member_forces=forces
                )
            )
        return found


def sampler(potential: Potential, folder: Path | None = None, **options: Any) -> PimdSampler:
    settings = {"temperature": 300.0, "beads": 4, "steps": 30, "max_separation": 50.0, **options}
    return PimdSampler(
        potential, TRUSTING, folder=None if folder is None else str(folder), **settings
    )


def test_uncertain_beads_become_frames_and_known_ones_audits() -> None:
    chunk = sampler(
        Watched(spread=20.0),
        gap=3,
        record_every=5,
        coordinates=((0, 1), (0, 1, 2)),
        steps=40,
        equilibration=10,
        max_uncertain=6,
        bead_distance=0.01,
    ).run(hydrogens())
    assert chunk.outcome in ("uncertain", "broken")
    assert chunk.uncertain
    for atoms in chunk.uncertain:
        assert 1.0 <= atoms.info["uncertainty"] < 2.0
        assert 0 <= atoms.info["bead"] < 4
    steps = [atoms.info["step"] for atoms in chunk.uncertain]
    assert all(later == step or later - step >= 3 for step, later in pairwise(steps))
    assert max(steps.count(step) for step in steps) <= 2


def test_a_chunk_goes_on_where_the_ring_polymer_was() -> None:
    first = sampler(Wells(), coordinates=((0, 1),), equilibration=0).run(hydrogens())
    assert first.outcome == "known" and first.steps == 30
    assert first.state["bead_positions"].std(axis=0).max() > 0.01
    seen: list[np.ndarray] = []

    class Looking(Potential):
        def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
            seen.append(np.array([atoms.positions for atoms in frames]))
            return Wells().predict(frames)

    second = sampler(Looking(), coordinates=((0, 1),)).go_on(first.final, first.state)
    np.testing.assert_allclose(seen[0], first.state["bead_positions"], atol=1e-9)
    # the first step of the second chunk moves as the momenta of the first say
    moved = (seen[1] - seen[0]).ravel()
    expected = (first.state["bead_momenta"] / hydrogens().get_masses()[:, None]).ravel()
    assert np.corrcoef(moved, expected)[0, 1] > 0.9
    assert len(second.observables["samples"]) == 7  # steps 0, 5, ..., 30; nothing equilibrates
    assert len(second.observables["samples"][0][0]) == 4


def test_a_server_that_is_killed_is_replaced_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    from tace_al.engines.sampling import ipi_server

    real = ipi_server.IpiServer.start

    def start(self: ipi_server.IpiServer, text: str, **options: bool) -> None:
        real(self, text, **options)
        assert self.pid is not None
        pids.append(self.pid)

    monkeypatch.setattr(ipi_server.IpiServer, "start", start)
    (tmp_path / "checkpoint_a").write_text("of a run before, <cut off")
    potential = Watched(at=36, action=lambda: os.kill(pids[-1], signal.SIGKILL))
    chunk = sampler(potential, tmp_path, steps=60, coordinates=((0, 1),), equilibration=0).run(
        hydrogens()
    )
    assert len(pids) == 2
    assert chunk.reason == "all steps done" and chunk.steps == 60
    assert 61 < potential.rounds <= 36 + 1 + 41  # on from step 20, not from the start
    assert len(chunk.observables["samples"]) == 13


def test_a_refused_bead_breaks_the_chunk_and_keeps_the_last_good_state() -> None:
    def refuse() -> None:
        raise StructureError("atoms 0 and 1 are 0.01 A apart; move them")

    chunk = sampler(Watched(at=12, action=refuse)).run(hydrogens())
    assert chunk.outcome == "broken"
    assert chunk.reason == "atoms 0 and 1 are 0.01 A apart"
    assert chunk.steps == 10
    assert chunk.state["bead_positions"].shape == (4, len(CENTRES), 3)


def test_a_users_input_decides_thermostat_and_beads(tmp_path: Path) -> None:
    own = tmp_path / "own.xml"
    own.write_text(
        "<simulation><ffsocket name='x' mode='inet'><address>localhost</address>"
        "<port>31415</port></ffsocket><system><initialize nbeads='3'/>"
        "<forces><force forcefield='x'/></forces><motion mode='dynamics'><dynamics mode='nvt'>"
        "<timestep units='femtosecond'>0.7</timestep><thermostat mode='svr'>"
        "<tau units='femtosecond'>10</tau></thermostat></dynamics></motion>"
        "<ensemble><temperature units='kelvin'>300</temperature></ensemble></system></simulation>"
    )
    chunk = sampler(Wells(), input_file=str(own), record_every=4, steps=9).run(hydrogens())
    assert chunk.steps == 9
    assert chunk.observables["beads"] == 3
    assert [atoms.info["time_fs"] for atoms in chunk.known] == pytest.approx([2.8, 5.6])
    with pytest.raises(ConfigError, match="cannot be read"):
        sampler(Wells(), input_file=str(tmp_path / "nowhere.xml"))


def test_diverse_beads_are_far_from_each_other() -> None:
    positions = np.zeros((5, 2, 3))
    positions[:, 0, 0] = [0.0, 0.01, 0.5, 0.51, 1.0]
    scores = np.array([1.0, 0.9, 0.8, 0.7, -1.0])
    assert diverse_beads(positions, scores, count=3, distance=0.1) == [0, 3]
    assert diverse_beads(positions, scores, count=1, distance=0.1) == [0]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="`beads` is 0"):
        PimdSampler(Wells(), TRUSTING, beads=0)
    with pytest.raises(ConfigError, match="names an atom that is not there"):
        sampler(Wells(), coordinates=((0, 99),)).run(molecule("H2O"))


def test_a_sampler_that_is_killed_takes_its_server_along(tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("tace-al-ipi-*"))
    context = multiprocessing.get_context("fork")
    begun = context.Semaphore(0)
    child = context.Process(
        target=sampler(Watched(at=3, action=begun.release), tmp_path, steps=100_000).run,
        args=(hydrogens(),),
    )
    child.start()
    assert begun.acquire(timeout=30)
    servers = [
        one for one in psutil.Process(child.pid).children() if "ipi_server" in str(one.cmdline())
    ]
    assert len(servers) == 1
    child.kill()
    child.join()
    _, alive = psutil.wait_procs(servers, timeout=10)
    assert not alive
    assert set(Path(tempfile.gettempdir()).glob("tace-al-ipi-*")) <= before


def test_a_socket_that_is_taken_is_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        with pytest.raises(SamplerError, match="is taken: a server listens there"):
            sampler(Wells(), socket=f"{folder}/s").run(hydrogens())
    with tempfile.TemporaryDirectory() as folder:
        assert sampler(Wells(), socket=f"{folder}/s", steps=2).run(hydrogens()).steps == 2
