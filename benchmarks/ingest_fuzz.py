"""Fuzz every source format with randomly damaged files.

    python -m benchmarks.ingest_fuzz            1,000 damaged files a format
    python -m benchmarks.ingest_fuzz --count 50 --formats unityeyes

A format is read in a process of its own, so that a crash is seen as one, with the number of the
file (which is its seed). Everything is in a temporary folder.
"""

import argparse
import logging
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from damage import damage, read_damaged
from source_samples import SAMPLES


def main() -> None:
    """Print a line a format, and one for everything that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--formats", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for name in given.formats:
        at = context.Value("q", -1)
        process = context.Process(target=fuzz, args=(name, given.count, at))
        process.start()
        process.join()
        if process.exitcode:
            print(f"{name}: the process died ({process.exitcode}) of file {at.value}", flush=True)


def fuzz(name: str, count: int, at: "Synchronized[int]") -> None:
    """Damage and read `count` times; `at` is the one under way."""
    warnings.simplefilter("error")
    logging.disable()
    sample = SAMPLES[name]
    outcomes: Counter[str] = Counter()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        whole, damaged = Path(folder) / "whole", Path(folder) / "damaged"
        whole.mkdir()
        sample.write(whole)
        read_damaged(sample, whole)
        before_mb = _peak_mb()
        for number in range(count):
            at.value = number
            shutil.copytree(whole, damaged)
            what = damage(damaged, random.Random(f"{name} {number}"))
            started = time.perf_counter()
            try:
                outcomes[read_damaged(sample, damaged)] += 1
            except Exception as error:  # noqa: BLE001  every one is a finding
                outcomes["wrong"] += 1
                print(f"{name} {number}, {what}: {type(error).__name__}: {error}", flush=True)
            slowest = max(slowest, (time.perf_counter() - started, what))
            shutil.rmtree(damaged)
    counts = ", ".join(f"{outcomes[key]} {key}" for key in ("read", "rejected", "refused", "wrong"))
    print(f"{name:18} {counts}; slowest {slowest[0]:.2f} s ({slowest[1]}); "
          f"peak memory +{_peak_mb() - before_mb:.0f} MB", flush=True)  # fmt: skip


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
