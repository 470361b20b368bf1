"""How long one call of the Store takes with 100 000 structures in the embedded database.

Structures, candidates and labels are put in by bulk (as documents that the verbs would have
written), then single verbs are timed by the clock, one kind after the other in turn: claims by
priority, inserts of new and of known keys, keyed reads, moves. Beside the clock stands processor
time, of the calling process and the server together, which other work on the machine stretches
less. Then several processes claim from one queue, and the server is killed and started again.

    python -m benchmarks.store_speed            100 000 structures
    python -m benchmarks.store_speed --structures 3000 --out FOLDER
"""

import argparse
import datetime
import functools
import json
import multiprocessing
import os
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ase import Atoms
from ase.build import molecule

from benchmarks.machine import processor
from tace_al.core.hashing import content_hash
from tace_al.core.labels import Fidelity, Label, label_key
from tace_al.data.frames import structure_key
from tace_al.store.blobs import pack_arrays
from tace_al.store.embedded.launch import stop_server
from tace_al.store.store import Store
from tace_al.store.structures import packed_frame
from tace_al.store.table import now

RESULTS = Path(__file__).parent / "results"
FIDELITY = Fidelity(name="gfn2", code="tblite 0.8.0", settings={"method": "GFN2-xTB"})
BATCH = 2000
GOAL_MS = 2.0
REAL_SHARE = 50
CLAIMERS = 4
CLAIMS_EACH = 250


@functools.cache
def frame(number: int) -> Atoms:
    """Return ethanol, displaced as no other number's; made once, outside what is timed."""
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(number + 1).normal(0.0, 0.1, (len(atoms), 3))
    return atoms


def fill(store: Store, num_structures: int) -> list[int]:
    """Put structures, candidates (half queued, half labelled) and labels in.

    Returns the numbers of those that have frames of their own, one of fifty; the others share one
    frame under a key of their own, which spares making 10^5 archives and weighs the same.
    """
    real = range(0, num_structures, REAL_SHARE)
    shared = packed_frame(frame(-1))
    forces = pack_arrays({"forces": np.zeros((9, 3))})
    for start in range(0, num_structures, BATCH):
        bodies: dict[str, list[dict[str, Any]]] = {"structure": [], "candidate": [], "label": []}
        for number in range(start, min(start + BATCH, num_structures)):
            own = number in real
            atoms = frame(number) if own else None
            key = structure_key(atoms) if atoms is not None else content_hash(number)
            content = packed_frame(atoms) if atoms is not None else shared
            structure, candidate, label = documents(number, key, content, forces)
            bodies["structure"].append(structure)
            bodies["candidate"].append(candidate)
            if number % 2 == 0:
                bodies["label"].append(label)
        for name, batch in bodies.items():
            common = {"campaign": store.campaign_id, "created": now()}
            complete = [{**common, **body} for body in batch]
            store.connection.documents[name].insert_many(complete, ordered=False)
    return list(real)


def documents(number: int, key: str, content: bytes, forces: bytes) -> tuple[dict[str, Any], ...]:
    """Return structure, candidate and label as the verbs would write them."""
    structure = {
        "key": key,
        "formula": "C2H6O",
        "num_atoms": 9,
        "charge": 0,
        "multiplicity": 1,
        "channel": "c",
        "origin": {"kind": "md", "walker": f"w{number % 50}", "step": number},
        "frame": content,
    }
    candidate = {
        "key": key,
        "kind": "uncertain",
        "state": "queued" if number % 2 else "labelled",
        "channel": "c",
        "generation": 1,
        "priority": float((number * 7919) % 10007),
        "uncertainty": 0.2,
        "attempts": 0,
        "updated": now(),
    }
    label = {
        "key": label_key(key, FIDELITY.key),
        "structure": key,
        "fidelity": FIDELITY.key,
        "fidelity_name": "gfn2",
        "state": "labelled",
        "energy": -1.0,
        "arrays": forces,
        "seconds": 0.1,
        "role": "train",
        "sequence": number,
        "generation": 1,
    }
    return structure, candidate, label


def verbs(store: Store, real: list[int], first_new: int) -> dict[str, Callable[[int], object]]:
    """Return the calls to time, each given the number of its turn."""
    keys = {number: structure_key(frame(number)) for number in real}
    fresh: dict[int, str] = {}

    def known(turn: int) -> int:
        return real[(turn * 7727) % len(real)]

    def add_structure(turn: int) -> str:
        atoms = frame(first_new + turn)
        fresh[turn] = store.add_structure(atoms, channel="c", origin={"kind": "md", "step": turn})
        return fresh[turn]

    def add_candidate(turn: int) -> bool:
        arguments = {"kind": "uncertain", "channel": "c", "generation": 2, "uncertainty": 0.3}
        return store.add_candidate(fresh[turn], **arguments)  # type: ignore[arg-type]

    def add_label(turn: int) -> bool:
        label = Label(
            structure_key=fresh[turn],
            fidelity_key=FIDELITY.key,
            energy=-2.0,
            forces=np.zeros((9, 3)),
        )
        return store.add_label(label, fidelity_name="gfn2", role="train", generation=2)

    return {
        "claim the next candidate": lambda turn: store.claim_candidates("bench", 1),
        "insert a new structure": add_structure,
        "insert a known structure": lambda turn: store.add_structure(
            frame(known(turn)), channel="c", origin={}
        ),
        "insert a new candidate": add_candidate,
        "insert a known candidate": lambda turn: store.add_candidate(
            keys[known(turn)], kind="seed", channel="c", generation=2
        ),
        "insert a new label": add_label,
        "read a structure by key": lambda turn: store.structure(keys[known(turn)]),
        "read a candidate by key": lambda turn: store.candidate(keys[known(turn)]),
        "ask whether a label exists": lambda turn: store.has_label(keys[known(turn)], FIDELITY.key),
        "move a candidate": lambda turn: store.move_candidate(
            fresh[turn], source="flagged", target="queued", priority=0.5
        ),
    }


def timed(
    calls: dict[str, Callable[[int], object]], turns: int, *, first_new: int, server: Path
) -> dict[str, dict[str, float]]:
    """Return percentiles and processor time in ms of each call, all kinds taken in turn.

    `server` is the file in which Linux counts the processor time of the server, in ns.
    """
    for turn in range(turns + 1):
        frame(first_new + turn)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    work: dict[str, list[float]] = {name: [] for name in calls}

    def worked() -> float:
        return time.process_time() + 1e-9 * int(server.read_text().split()[0])

    for turn in range(turns + 1):
        for name, call in calls.items():
            before, begin = worked(), time.perf_counter()
            call(turn)
            if turn:  # the first call of a kind pays for sorting its index
                seconds[name].append(time.perf_counter() - begin)
                work[name].append(worked() - before)
    return {
        name: {
            "p10_ms": round(1e3 * float(np.percentile(values, 10)), 3),
            "median_ms": round(1e3 * statistics.median(values), 3),
            "p95_ms": round(1e3 * float(np.percentile(values, 95)), 3),
            "processor_ms": round(1e3 * statistics.median(work[name]), 3),
        }
        for name, values in seconds.items()
    }


def _claim(directory: str, owner: str, answers: Any) -> None:
    """Claim one by one; send the keys and the time each claim took."""
    with Store.open(Path(directory), create=False) as store:
        keys, seconds = [], []
        for _ in range(CLAIMS_EACH):
            begin = time.perf_counter()
            (record,) = store.claim_candidates(owner, 1)
            seconds.append(time.perf_counter() - begin)
            keys.append(record.key)
    answers.put((keys, seconds))


def claimed_together(directory: Path) -> dict[str, Any]:
    """Have several processes claim from one queue; return what a claim costs them."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    owners = [
        spawn.Process(target=_claim, args=(str(directory), f"owner-{n}", answers))
        for n in range(CLAIMERS)
    ]
    for owner in owners:
        owner.start()
    reports = [answers.get(timeout=300) for _ in owners]
    for owner in owners:
        owner.join()
    keys = [key for own, _ in reports for key in own]
    seconds = [value for _, own in reports for value in own]
    return {
        "processes": CLAIMERS,
        "claims": len(keys),
        "claimed_twice": len(keys) - len(set(keys)),
        "median_ms": round(1e3 * statistics.median(seconds), 3),
        "p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 3),
    }


def restarted(store: Store, folder: Path) -> dict[str, float]:
    """Kill the server, start it by a verb, and return how long that took and what it weighs."""
    before = store.counts()
    os.kill(json.loads((folder / "address.json").read_text())["pid"], signal.SIGKILL)
    begin = time.perf_counter()
    store.log("note", "after kill -9")
    seconds = time.perf_counter() - begin
    after = store.counts()
    assert after == {**before, "events": before["events"] + 1}, "kill -9 lost something"
    process = psutil.Process(json.loads((folder / "address.json").read_text())["pid"])
    return {
        "restart_after_kill_s": round(seconds, 2),
        "server_memory_mb": round(process.memory_info().rss / 1e6),
        "file_mb": round(sum(path.stat().st_size for path in folder.glob("journal.sqlite*")) / 1e6),
    }


def markdown(content: dict[str, Any]) -> str:
    """Return the results as a page."""
    together, server = content["together"], content["server"]
    lines = [
        "# The Store on the embedded database",
        "",
        f"{content['date']}; {content['machine']}; {content['versions']}; load average "
        f"{content['load']}.",
        "",
        f"{content['structures']} structures of nine atoms with as many candidates and half as "
        f"many labels; {content['turns']} calls of each kind, taken in turn, by the clock, and "
        f"processor time of caller and server together. Goal: {GOAL_MS:g} ms each. Of a busy "
        "machine the 10 % tell most: other work only ever adds to them.",
        "",
        "| call | 10 %, ms | median, ms | 95 %, ms | processor, ms |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['p10_ms']:.2f} | {row['median_ms']:.2f} | {row['p95_ms']:.2f} "
            f"| {row['processor_ms']:.2f} |"
            for name, row in content["calls"].items()
        ),
        "",
        f"{together['processes']} processes that claim at once: {together['median_ms']:.2f} ms a "
        f"claim (95 %: {together['p95_ms']:.2f} ms), {together['claims']} claims, "
        f"{together['claimed_twice']} claimed twice. The server killed with -9 answers again after "
        f"{server['restart_after_kill_s']:.1f} s with nothing lost; it takes "
        f"{server['server_memory_mb']} MB of memory and {server['file_mb']} MB of disk. Filling: "
        f"{content['fill_s']:.0f} s.",
        "",
        "Written by `python -m benchmarks.store_speed`.",
    ]
    return "\n".join(lines) + "\n"


def measure(num_structures: int, turns: int) -> dict[str, Any]:
    """Run the benchmark in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="store-speed-") as name:
        directory = Path(name) / "campaign"
        os.environ.pop("TACE_AL_MONGO_URI", None)
        try:
            with Store.open(directory) as store:
                store.start_campaign("speed", {}, seed=0, code_version=version("tace-al"))
                store.add_fidelity(FIDELITY)
                begin = time.perf_counter()
                real = fill(store, num_structures)
                fill_s = time.perf_counter() - begin
                pid = json.loads((directory / "db/address.json").read_text())["pid"]
                calls = timed(
                    verbs(store, real, num_structures),
                    turns,
                    first_new=num_structures,
                    server=Path(f"/proc/{pid}/schedstat"),
                )
                together = claimed_together(directory)
                server = restarted(store, directory / "db")
        finally:
            stop_server(directory / "db")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ("pymongo", "mongoengine", "mongomock", "numpy", "tace-al")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, "
        f"{os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages),
        "load": load,
        "structures": num_structures,
        "turns": turns,
        "fill_s": round(fill_s, 1),
        "goal_ms": GOAL_MS,
        "calls": calls,
        "together": together,
        "server": server,
    }


def main() -> None:
    """Measure, and write both results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.structures < 3000:
        parser.error("--structures must be at least 3000, so that there is enough to claim")
    content = measure(options.structures, options.turns)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "store_speed.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.out / "store_speed.md").write_text(markdown(content))
    print(markdown(content))


if __name__ == "__main__":
    main()
