"""How accurate a potential is after a given time of training: tace-al, MACE and TensorNet.

    python -m benchmarks.accuracy_vs_time acac --minutes 15 [--seeds 0 1] [--engines tace mace]

All train from nothing on the same frames, one after the other, in float32, each on one pinned
thread for the same time by the clock: ours by the command `tace-al train FILE --time-limit 15m
--out MODEL` with no other flag, the others with batches of 10, Adam, a cosine schedule and averaged
weights (`benchmarks.peers.peer_training`), their own losses and customary rates. A tenth of the
frames that train chooses the best epoch, the same for all. They are judged on frames that none has
seen: by default a tenth of the training file set aside beforehand, and where the data have them,
validation frames of other conditions. `--test NAME=FILE` trains on the whole file and judges on
published test files; nothing was ever chosen by looking at those.

Writes `accuracy_vs_time_NAME.json`, `.md` and `.png`. Data are read from $TACE_AL_DATA.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from rich.console import Console

from benchmarks.accuracy_tasks import DATA, random_split, read
from benchmarks.accuracy_vs_time_report import markdown, plot
from benchmarks.machine import processor
from benchmarks.peers.connection import REPOSITORY, VARIABLES, quietest_core
from benchmarks.peers.environments import OWN, PeerUnavailable, engine_module, interpreter
from benchmarks.peers.training_job import TrainingJob
from tace_al.cli.train import split
from tace_al.core.atomic_write import write_bytes
from tace_al.data.extxyz import is_isolated_atom, read_labelled
from tace_al.model.trainer import validation_interval

RESULTS = Path(__file__).parent / "results"
ENGINES: Mapping[str, str] = {"tace": OWN, "mace": "mace", "tensornet": "tensornet"}
SET_ASIDE = 0.1
"""Share of the training file that is judged, where no test files are given."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A training file, and validation files of other conditions by name."""

    title: str
    train: str
    others: Mapping[str, str]


DATA_SETS: Mapping[str, DataSet] = {
    "acac": DataSet(
        title="acetylacetone, 500 structures at 300 K",
        train="acac_train_300K",
        others={"600 K": "acac_valid_600K"},
    ),
    "3bpa": DataSet(title="3BPA, 500 structures at 300 K", train="3bpa_train_300K", others={}),
    "aspirin": DataSet(title="aspirin (rMD17)", train="rmd17_aspirin_train", others={}),
}


def main() -> None:
    """Train and judge every engine, show the table and write it."""
    options = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    shared = REPOSITORY.parent / "shared" / "data"
    if shared.is_dir():
        os.environ.setdefault(DATA, str(shared))
    data = DATA_SETS[options.name]
    core = options.core if options.core is not None else quietest_core()
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            job = prepared(data, options, Path(folder), seed=seed, core=core)
            for engine in options.engines:
                rows.append(trained(engine, job, Path(folder)))
                logger.info("%s: %s", engine, rows[-1].get("errors") or rows[-1]["failure"])
    content = {
        "name": options.name,
        "title": data.title,
        "minutes": options.minutes,
        "test": bool(options.test),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "torch": metadata.version("torch"),
        "rows": rows,
    }
    write(content, options.out)
    Console().print(markdown(content), markup=False, highlight=False)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(DATA_SETS))
    parser.add_argument("--minutes", type=float, default=15.0, help="of training, each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--test", nargs="+", metavar="NAME=FILE", help="published test files")
    parser.add_argument(
        "--rates",
        nargs="+",
        metavar="ENGINE=RATE",
        default=[],
        help="of mace and tensornet",
    )
    parser.add_argument("--core", type=int, help="processor core; the quietest by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to")
    return parser.parse_args(arguments)


def prepared(
    data: DataSet, options: argparse.Namespace, folder: Path, *, seed: int, core: int
) -> TrainingJob:
    """Write the frames of a run into a folder and return the job, the same for every engine."""
    frames = read(data.train)
    if options.test:
        given = (entry.partition("=") for entry in options.test)
        judged = {name: read_labelled(Path(file)) for name, _, file in given}
        used = frames
    else:
        count = round(SET_ASIDE * sum(not is_isolated_atom(atoms) for atoms in frames))
        parts = random_split(frames, count, seed=0)
        used = parts.train
        judged = {"set aside": parts.held_out["held out"]}
        judged |= {name: read(file) for name, file in data.others.items()}
    train, validation = split(used, 0.1, seed=seed)
    files = {"whole": used, "train": train, "validation": validation}
    paths = {name: written(some, folder / f"{name}.xyz") for name, some in files.items()}
    judged_paths = {
        name: written(some, folder / f"judged_{index}.xyz")
        for index, (name, some) in enumerate(judged.items())
    }
    return TrainingJob(
        **paths,
        judged=judged_paths,
        seconds=60.0 * options.minutes,
        validate_every=validation_interval(len(train), len(validation)),
        learning_rates={
            name: float(rate) for name, _, rate in (entry.partition("=") for entry in options.rates)
        },
        seed=seed,
        core=core,
        result=str(folder / "result.json"),
    )


def written(frames: Sequence[Atoms], path: Path) -> str:
    """Write frames as extended XYZ and return the path."""
    ase.io.write(path, list(frames), format="extxyz")
    return str(path)


def trained(engine: str, job: TrainingJob, folder: Path) -> dict[str, Any]:
    """Return the row of one engine, trained in a process of its own."""
    name = ENGINES[engine]
    row: dict[str, Any] = {"engine": engine, "seed": job.seed}
    path, result = folder / "job.json", Path(job.result)
    job.save(path)
    result.unlink(missing_ok=True)
    try:
        python = str(interpreter(name))
    except PeerUnavailable as error:
        return {**row, "failure": str(error)}
    module = ["benchmarks.peers.train_own"]
    if name != OWN:
        module = ["benchmarks.peers.train_peer", engine_module(name)]
    done = subprocess.run(
        [python, "-W", "ignore", "-m", *module, str(path)],
        cwd=REPOSITORY,
        env={**os.environ, **VARIABLES, "PYTHONPATH": ""},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode or not result.exists():
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        return {**row, "failure": lines[-1]}
    return {**row, **json.loads(result.read_text())}


def write(content: Mapping[str, Any], folder: Path) -> None:
    """Write the results as JSON, as a table and as a figure."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"accuracy_vs_time_{content['name']}.json"
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    write_bytes(path.with_suffix(".md"), markdown(content).encode())
    plot(content, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
