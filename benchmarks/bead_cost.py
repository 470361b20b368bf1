"""What beads cost: wall time of a path-integral step in a real i-PI, by beads and by transport.

    python -m benchmarks.bead_cost [--steps N] [--repeats N] [--members 1 4]

A molecule of 27 atoms, preset small. The network is untrained, which costs the same, and its forces
are replaced by springs to the starting positions, so that nothing flies apart. A case is one run of
i-PI with our driver; a step is the time from one call of the potential to the next, which holds
i-PI's own work, both ends of the socket and the network. Of the steps the tenth percentile counts,
of the repeats, which alternate between cases, the least: other processes can only add. The promise
is that eight beads cost at most three times one. Writes benchmarks/results/bead_cost.json and .md.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import final
from xml.etree import ElementTree

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from benchmarks.machine import processor
from tace_al.engines.sampling.committee_potential import CommitteePotential
from tace_al.engines.sampling.ipi_driver import Driver, DriverSettings
from tace_al.engines.sampling.ipi_input import PimdSettings, StartState, pimd_input
from tace_al.engines.sampling.ipi_server import IpiServer
from tace_al.engines.sampling.potential import Potential
from tace_al.model.committee import Committee
from tace_al.model.prediction import Prediction
from tace_al.model.tace import Tace

HERE = Path(__file__).parent
BEADS = (1, 8, 16)
PROMISE = 3.0
THREADS = 2  # of the driver, as `tace-al driver` has them: i-PI waits meanwhile
TRANSPORTS = {
    "one message": "one connection, `batch_size` beads a message (what the sampler writes)",
    "connections": "a connection a bead, i-PI's defaults (a hand-written input)",
    "not consolidated": "a connection a bead, `consolidate_messages` False",
    "one by one": "one connection, one bead after the other (what a plain client does)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is measured."""

    members: int
    beads: int
    transport: str


@final
class Timed(Potential):
    """A committee whose cost is kept and whose forces are replaced by springs."""

    def __init__(self, committee: Committee, atoms: Atoms) -> None:
        self.potential = CommitteePotential(committee, skin=0.5)
        self.start, self.members = np.array(atoms.positions), len(committee)
        self.calls: list[float] = []
        self.busy: list[float] = []

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Ask the committee, answer springs."""
        begin = time.perf_counter()
        self.potential.predict(frames)
        self.calls.append(begin)
        self.busy.append(time.perf_counter() - begin)
        return [self._springs(atoms) for atoms in frames]

    def _springs(self, atoms: Atoms) -> Prediction:
        away = atoms.positions - self.start
        return Prediction(
            member_energies=np.full(self.members, 2.0 * (away**2).sum()),
            member_forces=np.repeat(-4.0 * away[None], self.members, axis=0),
        )


def measure(case: Case, committee: Committee, atoms: Atoms, *, steps: int) -> tuple[float, float]:
    """Return the time of one undisturbed step and the network's share of it, in ms."""
    timed = Timed(committee, atoms)
    start = StartState(
        atoms=atoms,
        positions=np.repeat(atoms.positions[None], case.beads, axis=0),
        momenta=None,
        seed=1,
    )
    settings = PimdSettings(temperature=300.0, beads=case.beads, steps=steps, checkpoint_every=1000)
    with tempfile.TemporaryDirectory() as folder:
        server = IpiServer(Path(folder))
        try:
            text = pimd_input(settings, start, socket=server.address.path)
            server.start(with_transport(text, case.transport))
            server.wait_until_listening(60.0)
            connections = 1 if case.transport in ("one message", "one by one") else case.beads
            chosen = DriverSettings(connections=connections, max_connections=connections)
            Driver(timed, atoms, server.address, settings=chosen).serve()
        finally:
            server.close()
    calls_a_step = max(1, round(len(timed.calls) / (steps + 1)))
    begins = np.array(timed.calls[::calls_a_step])
    busy = np.array(timed.busy[: len(begins) * calls_a_step - calls_a_step])
    shares = busy.reshape(-1, calls_a_step).sum(axis=1)
    return (
        1e3 * float(np.quantile(np.diff(begins), 0.1)),
        1e3 * float(np.quantile(shares, 0.1)),
    )


def with_transport(text: str, transport: str) -> str:
    """Return an input whose beads travel in another way."""
    if transport == "one message":
        return text
    root = ElementTree.fromstring(text)
    socket = root.find("ffsocket")
    assert socket is not None
    for old in socket.findall("batch_size"):
        socket.remove(old)
    if transport == "not consolidated":
        ElementTree.SubElement(socket, "consolidate_messages").text = " False "
    return ElementTree.tostring(root, encoding="unicode")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--note", default="", help="How it was run, where that matters.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    atoms = read(HERE / "molecule_27_atoms.xyz")
    cases = [
        Case(members=members, beads=beads, transport=transport)
        for members in options.members
        for transport in TRANSPORTS
        for beads in BEADS
        if members == options.members[0] or transport == "one message"
    ]
    committees = {members: committee_of(members, atoms) for members in options.members}
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(options.repeats):
        for case in cases:
            found[case].append(measure(case, committees[case.members], atoms, steps=options.steps))
            print(case, found[case][-1], flush=True)
    rows = [
        {
            "members": case.members,
            "transport": case.transport,
            "beads": case.beads,
            "step_ms": min(step for step, _ in times),
            "network_ms": min(network for _, network in times),
        }
        for case, times in found.items()
    ]
    write(rows, options)


def committee_of(members: int, atoms: Atoms) -> Committee:
    """Return untrained members of preset small."""
    elements = sorted(set(atoms.get_chemical_symbols()))
    models = []
    for seed in range(members):
        torch.manual_seed(seed)
        models.append(Tace.from_preset("small", elements=elements))
    return Committee(models, threads=THREADS)


def write(rows: list[dict[str, float | int | str]], options: argparse.Namespace) -> None:
    """Write the result as JSON and as a table."""
    ratios = {}
    for row in rows:
        alone = next(
            one
            for one in rows
            if one["beads"] == 1
            and one["members"] == row["members"]
            and one["transport"] == row["transport"]
        )
        row["times_one_bead"] = float(row["step_ms"]) / float(alone["step_ms"])
        ratios[row["members"], row["transport"], row["beads"]] = row["times_one_bead"]
    where = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "ipi": version("ipi"),
        "threads": THREADS,
        "steps": options.steps,
        "repeats": options.repeats,
        "note": options.note,
    }
    folder = HERE / "results"
    content = {"promise": PROMISE, "rows": rows, **where}
    (folder / "bead_cost.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [
        "# What beads cost",
        "",
        f"Wall time of a step of i-PI {where['ipi']} with our driver, {PROMISE:g} times one bead "
        f"being what eight may cost. 27 atoms, preset small in float32, {THREADS} threads, "
        f"{where['processor']}, {where['date']}; `python -m benchmarks.bead_cost`. "
        f"{options.note}".strip(),
        "",
        "| members | beads travel as | beads | step, ms | network, ms | times one bead |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['members']} | {row['transport']} | {row['beads']} | {row['step_ms']:.1f} | "
        f"{row['network_ms']:.1f} | {row['times_one_bead']:.2f} |"
        for row in rows
    ]
    lines += ["", *(f"- *{name}*: {meaning}." for name, meaning in TRANSPORTS.items())]
    lines += ["- Extras are full: every member's forces as JSON.", ""]
    (folder / "bead_cost.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
