"""Measure what spreads over machines: a comparison on Dask's workers, and opening a large dataset.

    python -m benchmarks.cluster estimators            # 12 estimators, 1 worker and 2, in turns
    python -m benchmarks.cluster ingest                # 10,000 frames, 1 worker and 2, in turns
    python -m benchmarks.cluster open                  # 60,000 shard records on S3, 20 ms away
    python -m benchmarks.cluster scaling               # 1, 2, 4, 8 workers on S3, 20 ms away

Every worker computes with one thread. A run with one worker has one core for all of its processes,
one with two workers two, so that the ratio is of equal cores a worker. Stated are the time from the
begin of the first task to the end of the last one, and that of the whole command. Idle cores are
needed, and less than 10 minutes each; `open` and `scaling` mind other work less, since most of
their time is latency.

`scaling` reads and writes shards as bulk refinement does, and sleeps in place of computing: a few
cores can then play many machines. The line to S3 has a bandwidth that all workers share.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
import psutil
from mlflow import MlflowClient

from simgan_core.simulator.eyes import Domain, render, sample_scenes
from storage.layout import create_arrays, write_complete_root, write_record_list, write_root
from storage.location import locate
from storage.manifest import ShardRecord, dataset_digest
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import GAZE, DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter
from tasks.refinement.refine import SHARDS_FINISHING
from tests.s3_proxy import S3Proxy

LATENCY_S = 0.02
ROWS_OF_SHARD = 2048
NUM_WORKERS = (1, 2, 4, 8)
"""Processes of the load test, in turn."""
SERVER_IDLE_S = 10
"""After a command its local Prefect server ends; by then all ends of tasks are noted."""


class Seconds(NamedTuple):
    """How long a run took."""

    work: float
    """From the begin of the first task to the end of the last one."""
    command: float
    """Of the whole command, with the start of Prefect and of Dask's workers."""


def main() -> None:
    """Print the figures of one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("estimators", "ingest", "open", "scaling"))
    parser.add_argument("--repeats", type=int, default=2, help="runs of each number of workers")
    parser.add_argument("--steps", type=int, default=300, help="of each estimator")
    parser.add_argument("--rows", type=int, default=2000, help="of each training set")
    parser.add_argument("--frames", type=int, default=10_000, help="to ingest")
    parser.add_argument("--shards", type=int, default=60_000, help="records of the large dataset")
    parser.add_argument("--line", type=float, default=10.0, help="MB/s to S3, of all workers")
    parser.add_argument("--compute", type=float, default=4.0, help="seconds that a shard takes")
    parser.add_argument("--refined", type=int, default=32, help="shards that are refined")
    given = parser.parse_args()
    if given.refined < max(NUM_WORKERS):
        parser.error(f"--refined should be at least {max(NUM_WORKERS)}, a shard for each worker")
    # The local Prefect server of each run lives on for some seconds.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        if given.what == "open":
            measure_opening(given.shards)
        elif given.what == "scaling":
            measure_scaling(given.refined, given.compute, given.line)
        elif given.what == "ingest":
            measure_ingestion(folder, given.frames, given.repeats)
        else:
            measure_estimators(folder, given.steps, given.rows, given.repeats)


def measure_estimators(folder: Path, steps: int, num_rows: int, repeats: int) -> None:
    """Print how much faster two workers train the 12 estimators of a comparison than one."""
    for name, domain, seed in (
        ("synthetic", "synthetic", 0),
        ("refined", "refined", 0),
        ("test", "real", 1),
    ):
        write_eyes(folder / f"{name}.zarr", domain, 400 if name == "test" else num_rows, seed)
    words = ["compare", "--synthetic", "synthetic.zarr", "--refined", "refined.zarr", "--test",
             "test.zarr", "--seeds", "6", "--steps", str(steps), "--arms", "synthetic", "--arms",
             "refined", "--empty-methods", "--empty-shares", "--json"]  # fmt: skip
    tables: set[str] = set()

    def run(num_workers: int, home: Path) -> Seconds:
        seconds, result = command(folder, home, num_workers, words)
        tables.add(json.dumps([result["comparison"], result["arms"], result["differences"]]))
        return Seconds(span_of_trainings(home), seconds)

    print_ratio(run, folder, repeats)
    print(f"same results in all runs: {len(tables) == 1}")


def measure_ingestion(folder: Path, num_frames: int, repeats: int) -> None:
    """Print how much faster two workers ingest a folder of frames than one."""
    simulate = ["simulate", "synthetic", "--out", "frames", "--count", str(num_frames)]
    seconds, _ = command(folder, folder / "simulation", None, simulate)
    print(f"{num_frames:,} frames rendered in {seconds:.0f} s", flush=True)
    digests: set[str] = set()

    def run(num_workers: int, home: Path) -> Seconds:
        to = folder / "ingested.zarr"
        shutil.rmtree(to, ignore_errors=True)
        words = ["ingest", "unityeyes", "frames", "--to", to.name, "--rows-per-shard", "512",
                 "--json"]  # fmt: skip
        seconds, result = command(folder, home, num_workers, words)
        digests.add(str(result["digest"]))
        return Seconds(span_of_tasks(home, "ingest-shards"), seconds)

    print_ratio(run, folder, repeats)
    print(f"same digest in all runs: {len(digests) == 1}")


def print_ratio(run: Callable[[int, Path], Seconds], folder: Path, repeats: int) -> None:
    """Run with one and with two workers in turns, and print medians and their ratios."""
    taken: dict[int, list[Seconds]] = {1: [], 2: []}
    empty = folder / "empty" / "mlflow.db"
    empty.parent.mkdir()
    MlflowClient(f"sqlite:///{empty}").search_experiments()
    for repeat in range(repeats):
        for num_workers, found in taken.items():
            home = folder / f"home-{num_workers}-{repeat}"
            home.mkdir()
            shutil.copy(empty, home)
            found.append(run(num_workers, home))
            work, whole = found[-1]
            print(
                f"run {2 * repeat + num_workers} of {2 * repeats}: {num_workers} workers, tasks "
                f"{work:.1f} s, command {whole:.1f} s",
                flush=True,
            )
    for what in Seconds._fields:
        one, two = (
            statistics.median(getattr(each, what) for each in found) for found in taken.values()
        )
        print(f"{what}: 1 worker {one:.1f} s, 2 workers {two:.1f} s, ratio {one / two:.2f}")


def command(
    folder: Path, home: Path, num_workers: int | None, words: list[str]
) -> tuple[float, dict[str, object]]:
    """Run a command of `simgan` on as many cores as it has workers; its seconds and its result."""
    cores = sorted(os.sched_getaffinity(0))[: num_workers or 1]
    runner = [] if num_workers is None else ["--runner", "dask", "--workers", str(num_workers)]
    pinned = ["taskset", "-c", ",".join(map(str, cores))]
    started = time.perf_counter()
    done = subprocess.run(
        [*pinned, sys.executable, "-m", "flows.cli", *words, *runner],
        env={
            **os.environ,
            "SIMGAN_HOME": str(home),
            "SIMGAN_SERVER_IDLE_S": str(SERVER_IDLE_S),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    taken = time.perf_counter() - started
    last = (done.stdout.splitlines() or ["{}"])[-1]
    return taken, json.loads(last) if last.startswith("{") else {}


def span_of_trainings(home: Path) -> float:
    """Return the seconds from the begin of the first training to the end of the last, by MLflow."""
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("comparisons")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'evaluate'")
    assert len(runs) == 12
    begun, ended = (
        [getattr(run.info, name) for run in runs] for name in ("start_time", "end_time")
    )
    return float(max(ended) - min(begun)) / 1000


def span_of_tasks(home: Path, name: str) -> float:
    """Return the seconds from the begin of the first task run to the end of the last, by Prefect.

    The server notes ends a moment later than the command learns of them.
    """
    query = (
        "select sum(end_time is null), max(julianday(end_time)) - min(julianday(start_time)) "
        "from task_run where name like ?"
    )
    for _ in range(60):
        with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
            under_way, days = database.execute(query, (f"{name}%",)).fetchone()
        if under_way == 0:
            return float(days) * 86400
        time.sleep(0.5)
    raise RuntimeError(f"{under_way} task runs {name} did not end in 30 s")


def write_eyes(to: Path, domain: Domain | str, num_rows: int, seed: int) -> None:
    """Write eyes of the built-in simulator with their gaze; refined ones look like real ones."""
    scenes = sample_scenes("synthetic" if domain == "synthetic" else "real", num_rows, seed)
    images = render(scenes, "crop", 35, 55).images
    spec = DatasetSpec(
        num_rows=num_rows,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE,),
        domain=domain,  # type: ignore[arg-type]
        source={"name": "benchmark", "seed": seed},
        preprocess="none",
    )
    valid = scenes.gaze[:, 0] < 2
    ids = [f"{domain}/{row}" for row in range(num_rows)]
    block = SampleBlock(images, valid, ids, {"gaze": scenes.gaze.astype("float32")})
    writer = DatasetWriter.open(str(to), spec)
    writer.write_shard(0, block)
    writer.finish()


def measure_opening(num_shards: int) -> None:
    """Print what opening a dataset of many shards costs on S3 with 20 ms of latency."""
    with moto_server(), S3Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        url = write_records("s3://datasets/large.zarr", num_shards).url
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        proxy.latency_s = LATENCY_S
        with multiprocessing.get_context("spawn").Pool(1) as reader:
            seconds, mebibytes = reader.apply(cost_of_opening, (url,))
        print(
            f"{num_shards:,} records, {LATENCY_S * 1000:.0f} ms a request: {seconds:.2f} s, "
            f"{proxy.counted} requests, {mebibytes:.0f} MiB of memory at the peak"
        )


def cost_of_opening(url: str) -> tuple[float, float]:
    """Open a dataset; returns the seconds and the MiB that this process grew by at the peak."""
    before = peak_kibibytes()
    started = time.perf_counter()
    open_dataset(url)
    taken = time.perf_counter() - started
    return taken, (peak_kibibytes() - before) / 1024


def peak_kibibytes() -> int:
    """Return the most memory that this process had; `getrusage` begins with its parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def spec_of_eyes(num_shards: int, rows_of_shard: int) -> DatasetSpec:
    """Return the specification of a dataset of so many shards of grey eyes."""
    return DatasetSpec(
        num_rows=num_shards * rows_of_shard,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE,),
        domain="synthetic",
        source={"name": "benchmark"},
        preprocess="none",
        rows_per_chunk=1024,
        rows_per_shard=rows_of_shard,
    )


def write_records(url: str, num_shards: int) -> DatasetInfo:
    """Write a complete dataset of so many shards without the shards: what opening it reads."""
    spec = spec_of_eyes(num_shards, 16384)
    records = [
        ShardRecord(
            shard=shard,
            start=rows.start,
            stop=rows.stop,
            num_valid=len(rows),
            digest=f"{shard:064x}",
            rejections=(),
            # As many as refinement takes of a shard.
            figures={f"refinement/figure_{number}": shard / 7 + number for number in range(12)},
        )
        for shard in range(num_shards)
        for rows in (spec.shard_rows(shard),)
    ]
    place = locate(url)
    write_root(place, spec)
    create_arrays(place, spec)
    write_record_list(place, records)
    info = DatasetInfo(
        url=url,
        spec=spec,
        num_valid=spec.num_rows,
        num_rejected=0,
        digest=dataset_digest(spec, (record.digest for record in records)),
    )
    write_complete_root(place, info)
    return info


def measure_scaling(num_shards: int, compute_s: float, megabytes_per_s: float) -> None:
    """Print how fast 1 to 8 processes refine a dataset on S3 with latency and a narrow line."""
    with moto_server() as server, S3Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        synthetic = "s3://datasets/synthetic.zarr"
        write_noise(synthetic, num_shards)
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        proxy.latency_s = LATENCY_S
        print(
            f"{num_shards} shards of {ROWS_OF_SHARD} images, {compute_s:.0f} s of computing each, "
            f"{LATENCY_S * 1000:.0f} ms a request, {megabytes_per_s:.0f} MB/s, {os.cpu_count()} "
            "cores",
            flush=True,
        )
        alone = None
        for num_workers in NUM_WORKERS:
            to = f"s3://datasets/refined-{num_workers}.zarr"
            DatasetWriter.open(to, open_dataset(synthetic).info.spec)
            with multiprocessing.get_context("spawn").Pool(num_workers) as workers:
                # Imports are done before the clock starts.
                workers.map(open_dataset, [synthetic] * num_workers, chunksize=1)
                proxy.bytes_per_s = megabytes_per_s * 1e6
                requests, carried = proxy.counted, proxy.carried
                s3_cpu_s = sum(server.cpu_times()[:2]) + time.process_time()
                began = time.perf_counter()
                shards = [list(range(n, num_shards, num_workers)) for n in range(num_workers)]
                tasks = [(synthetic, to, each, compute_s) for each in shards]
                cpu_s = sum(workers.starmap(refine_asleep, tasks, chunksize=1))
                seconds = time.perf_counter() - began
                proxy.bytes_per_s = None
            alone = alone or seconds
            requests, carried = proxy.counted - requests, proxy.carried - carried
            s3_cpu_s = sum(server.cpu_times()[:2]) + time.process_time() - s3_cpu_s
            print(
                f"{num_workers} workers: {seconds:.1f} s, {alone / seconds:.2f} times one, "
                f"{num_shards * ROWS_OF_SHARD / seconds:,.0f} images/s, "
                f"{carried / seconds / 1e6:.1f} MB/s, {requests / num_shards:.0f} requests a "
                f"shard, {cpu_s / num_shards:.2f} s of processor a shard, "
                f"{s3_cpu_s / num_shards:.2f} s in the stand-in for S3",
                flush=True,
            )
            DatasetWriter.attach(to).finish()
            locate(to).delete_all()


def refine_asleep(synthetic: str, to: str, shards: list[int], compute_s: float) -> float:
    """Read and write shards as bulk refinement does; returns the processor time in seconds."""
    cpu_s = time.process_time()
    parent, writer = open_dataset(synthetic), DatasetWriter.attach(to)

    def read(shard: int) -> SampleBlock:
        rows = parent.shard_rows(shard)
        return parent.read(rows.start, rows.stop)

    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(SHARDS_FINISHING) as finishing:
        written: deque[Future[ShardRecord]] = deque()
        coming = ahead.submit(read, shards[0])
        for shard, after in zip(shards, [*shards[1:], None], strict=True):
            block = coming.result()
            if after is not None:
                coming = ahead.submit(read, after)
            time.sleep(compute_s)
            if len(written) >= SHARDS_FINISHING:
                written.popleft().result()
            written.append(finishing.submit(writer.write_shard, shard, block))
        for each in written:
            each.result()
    return time.process_time() - cpu_s


def write_noise(to: str, num_shards: int) -> None:
    """Write a dataset of shards that no codec makes smaller."""
    spec = spec_of_eyes(num_shards, ROWS_OF_SHARD)
    writer = DatasetWriter.open(to, spec)
    generator = np.random.default_rng(0)
    size = (ROWS_OF_SHARD, 35, 55, 1)
    gaze = np.tile(np.float32([0, 0, -1]), (ROWS_OF_SHARD, 1))
    for shard in range(num_shards):
        images = generator.integers(0, 256, size, dtype=np.uint8)
        ids = [f"noise/{row}" for row in writer.shard_rows(shard)]
        valid = np.ones(ROWS_OF_SHARD, bool)
        writer.write_shard(shard, SampleBlock(images, valid, ids, {"gaze": gaze}))
    writer.finish()


@contextmanager
def moto_server() -> Iterator[psutil.Process]:
    """Run an S3 server in a process of its own, and name it in the environment."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(
            found[0]
            for line in server.stderr
            if (found := re.findall(r"http://127\.0\.0\.1:\d+", line))
        )
        # It writes a line a request, and waits where nobody reads them.
        Thread(target=server.stderr.read, daemon=True).start()
        os.environ |= {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
        }
        create = urllib.request.Request(f"{address}/datasets", method="PUT")
        urllib.request.urlopen(create).close()
        try:
            yield psutil.Process(server.pid)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
