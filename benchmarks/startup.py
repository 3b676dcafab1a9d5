"""Measure what a command costs before and after its work: processor time and wall.

    python -m benchmarks.startup [--rounds 3]

Processor time is that of the command and its children, and what Prefect's local server used
meanwhile. The baseline is the commit before commands shared that server, taken from git into a
temporary folder and run with the packages of today: each of its commands starts a server of its own
and stops it. Where git has no such commit there is no baseline.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from flows.cli.environment import prepare
from tasks.ops.local_server import LocalServer

BASELINE = "5f2fe4bc2f364423c1532b9739e16e4463c7aa14"
CHECKOUT = Path(__file__).parents[1]
NUM_ROWS = 1500
RENDERED = {"synthetic": 60, "real": 90}


class Cost(NamedTuple):
    """What one command cost, in seconds."""

    processor_s: float
    wall_s: float


def main() -> None:
    """Print the median of the rounds for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(temporary), rounds)


def measure(folder: Path, rounds: int) -> None:
    """Measure everything in turn, so that a busy moment meets all of it."""
    write_arrays(folder / "eyes.npz")
    home = folder / "home"
    ours = Simgan(CHECKOUT, home)
    compare = prepare_comparison(ours, folder)
    ours(*compare)
    print(f"work of ingesting {NUM_ROWS} rows: {work_of_ingestion(folder):.2f} s of wall")
    measured: dict[str, Callable[[int], Cost]] = {
        "simgan --help": lambda _: ours("--help"),
        f"ingest arrays, {NUM_ROWS} rows": lambda n: ours(*ingest(folder, f"ours-{n}")),
        "compare, all estimates finished": lambda _: ours(*compare),
    }
    earlier = checkout_of_baseline(folder / "baseline")
    if earlier is not None:
        theirs = Simgan(earlier, folder / "baseline-home")
        theirs(*ingest(folder, "baseline-first"))  # makes Prefect's database
        measured["the same ingest, baseline"] = lambda n: theirs(*ingest(folder, f"theirs-{n}"))
    costs: dict[str, list[Cost]] = {name: [] for name in measured}
    for number in range(rounds):
        for name, run in measured.items():
            costs[name].append(run(number))
    for name, each in costs.items():
        processor_s, wall_s = (statistics.median(values) for values in zip(*each, strict=True))
        spread = f"{min(c.processor_s for c in each):.2f} to {max(c.processor_s for c in each):.2f}"
        print(f"{name:<34}{processor_s:6.2f} s processor ({spread}) {wall_s:6.2f} s wall")
    LocalServer(home).stop()


class Simgan:
    """The command of one checkout, in a home of its own."""

    def __init__(self, checkout: Path, home: Path) -> None:
        self._checkout, self._home = checkout, home
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
        # Of two checkouts the first one on the path counts, the one that is installed comes last.
        self._environment = kept | {"SIMGAN_HOME": str(home), "PYTHONPATH": str(checkout)}

    def __call__(self, *words: object) -> Cost:
        """Run to the end; raises where the command fails."""
        server_before = self._server_s()
        began = time.monotonic()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *map(str, words)],
                env=self._environment,
                cwd=self._checkout,
                stdout=said,
                stderr=said,
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            wall_s = time.monotonic() - began
            if process.returncode != 0:
                said.seek(0)
                raise SystemExit(f"simgan {words[0]}: {said.read().decode()}")
        own_s = used.ru_utime + used.ru_stime
        return Cost(own_s + self._server_s() - server_before, wall_s)

    def _server_s(self) -> float:
        """Return the processor time so far of the home's server; 0 where there is none."""
        try:
            record = json.loads((self._home / "prefect" / "local-server.json").read_bytes())
            used = psutil.Process(record["pid"]).cpu_times()
        except (FileNotFoundError, psutil.NoSuchProcess):
            return 0.0
        return float(used.user + used.system)


def write_arrays(file: Path) -> None:
    """Write eyes of noise with gaze, as named arrays."""
    rng = np.random.default_rng(0)
    gaze = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    gaze /= np.linalg.norm(gaze, axis=1, keepdims=True)
    np.savez(file, images=rng.integers(0, 256, (NUM_ROWS, 35, 55), dtype=np.uint8), gaze=gaze)


def ingest(folder: Path, name: str) -> list[str]:
    """Return the words of the ingestion into a new dataset."""
    return ["ingest", "arrays", f"{folder}/eyes.npz", "--images", "images", "--gaze", "gaze",
            "--to", f"{folder}/{name}.zarr"]  # fmt: skip


def work_of_ingestion(folder: Path) -> float:
    """Return the seconds of reading and writing alone, in a process that has imported all."""
    prepare(folder / "work-home")
    from benchmarks.ingest import ingest as ingest_directly  # noqa: PLC0415  after `prepare`
    from storage.sources.formats.arrays import ArraysOptions  # noqa: PLC0415

    source = ArraysOptions(file=f"{folder}/eyes.npz", images="images", gaze="gaze")
    times = []
    for number in range(3):
        began = time.monotonic()
        ingest_directly(source, folder / f"direct-{number}.zarr")
        times.append(time.monotonic() - began)
    return min(times)


def prepare_comparison(simgan: Simgan, folder: Path) -> list[str]:
    """Render and ingest both domains; return the words of a comparison of tiny estimators.

    The "refined" images are another crop of the synthetic ones.
    """
    for domain, count in RENDERED.items():
        simgan("simulate", domain, "--out", folder / domain, "--count", count)
    for name, crop in (("synthetic", "eye-width"), ("refined", "margin")):
        simgan("ingest", "unityeyes", folder / "synthetic", "--to", folder / f"{name}.zarr",
               "--crop", crop, "--preprocess", "equalize")  # fmt: skip
    for name, people in (("real", "p00,p01,p02,p03,p04,p05,p06,p07,p08,p09"), ("test", "p10,p11")):
        simgan("ingest", "mpiigaze", folder / "real", "--to", folder / f"{name}.zarr",
               "--people", people)  # fmt: skip
    datasets = [
        word
        for name in ("synthetic", "refined", "real", "test")
        for word in (f"--{name}", f"{folder}/{name}.zarr")
    ]
    return ["compare", *datasets, "--steps", "2", "--batch-size", "8"]


def checkout_of_baseline(to: Path) -> Path | None:
    """Unpack the baseline's files; None where git does not have it."""
    to.mkdir()
    archive = subprocess.run(
        ["git", "archive", BASELINE], cwd=CHECKOUT, capture_output=True, check=False
    )
    if archive.returncode != 0:
        print("git has no baseline here: it is left out")
        return None
    subprocess.run(["tar", "x"], cwd=to, input=archive.stdout, check=True)
    return to


if __name__ == "__main__":
    main()
