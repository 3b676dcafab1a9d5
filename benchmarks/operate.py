"""Measure operation, on the servers and the worker of a `simgan up` of its own.

    python -m benchmarks.operate start     from nothing to all green, and down again, three times
    python -m benchmarks.operate latency   from Run to the first image on a warm worker, and what
                                           a run costs that has nothing to do
    python -m benchmarks.operate soak      every failure of tests/flows/operate, five times over

Everything is kept in a temporary folder; OMP_NUM_THREADS and the like are as you set them.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from storage.reader import open_dataset
from tests.operating_team import (
    Team,
    cancel,
    digest_of,
    finish_by_retry,
    kill_worker_with_its_runs,
    make_work,
    start_refinement,
    take_a_small_run,
    wait_until_found_dead,
)

ROUNDS = 5
RUNS = 5


def main() -> None:
    """Run the parts that are named."""
    parts = {"start": start, "latency": latency, "soak": soak}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=parts)
    for part in parser.parse_args().parts:
        print(f"\n{part}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            parts[part](Path(folder))


def start(folder: Path) -> None:
    """Print how long `simgan up` and `simgan down` take."""
    for round_ in range(3):
        team = Team(folder / str(round_))
        began = time.monotonic()
        team.up()
        green = time.monotonic()
        team.down()
        left = team.processes()
        print(f"green after {green - began:.1f} s, down after {time.monotonic() - green:.1f} s, "
              f"{len(left)} processes left", flush=True)  # fmt: skip


def latency(folder: Path) -> None:
    """Print the time from Run to the first shard of 16 images, and of a run without work."""
    with up(folder) as team:
        work = make_work(team, num_shards=4)
        first, idle = [], []
        for number in range(RUNS + 1):
            began = time.monotonic()
            run = start_refinement(team, work, f"r{number}", num_shards=1)
            first.append(time.monotonic() - began)
            assert team.wait(run.run_id) == "COMPLETED"
            began = time.monotonic()
            assert team.wait(team.run("bulk-refine", {**work, "to": run.to})) == "COMPLETED"
            idle.append(time.monotonic() - began)
        # The worker's first run finds nothing in the system's file cache.
        say("Run to first image", first[1:])
        say("Run to Completed, nothing to do", idle[1:])


def soak(folder: Path) -> None:
    """Do every failure again and again; the first miss ends it with an AssertionError."""
    with up(folder) as team:
        work = make_work(team)
        run = start_refinement(team, work, "undisturbed")
        assert team.wait(run.run_id) == "COMPLETED"
        expected = digest_of(team, run.to)
        to_stop, to_find = [], []
        for number in range(ROUNDS):
            run = start_refinement(team, work, f"cancelled{number}")
            to_stop.append(cancel(team, run))
            assert finish_by_retry(team, run) == expected
            print(f"cancelled and retried: {number + 1}", flush=True)
        for number in range(ROUNDS):
            run = start_refinement(team, work, f"server{number}")
            team.kill("prefect server start")
            assert team.wait(run.run_id) == "COMPLETED", team.history(run.run_id)
            assert digest_of(team, run.to) == expected
            print(f"server killed, the run went on: {number + 1}", flush=True)
        for number in range(ROUNDS):
            run = start_refinement(team, work, f"dead{number}")
            kill_worker_with_its_runs(team)
            take_a_small_run(team)
            to_find.append(wait_until_found_dead(team, run))
            assert finish_by_retry(team, run) == expected
            print(f"worker and run killed, found and retried: {number + 1}", flush=True)
        say("Cancel to the end of the work", to_stop)
        say("death to Crashed, its slot free", to_find)
        rows = open_dataset(str(team.folder / run.to)).info.spec.num_rows
        print(f"every one of {3 * ROUNDS} refinements ended in the same {rows} rows, bit for bit")


@contextmanager
def up(folder: Path) -> Iterator[Team]:
    """`simgan up` as long as the block lasts; nothing of it may be left after."""
    team = Team(folder / "team")
    try:
        team.up()
        yield team
    finally:
        team.down()
    assert team.processes() == []


def say(what: str, seconds: list[float]) -> None:
    """Print a line of figures."""
    print(f"{what}: median {median(seconds):.1f} s, {min(seconds):.1f} to {max(seconds):.1f} s, "
          f"of {len(seconds)}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
