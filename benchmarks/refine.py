"""Measure bulk refinement; every figure of a part comes from one run.

    python -m benchmarks.refine rates           compute-only, end to end and the plain loop; on a
                                                GPU also eager, compiled and matrix rates
    python -m benchmarks.refine waiting         end to end where a GPU like an H100 is waited for,
                                                and the same without what makes it fast
    python -m benchmarks.refine families        computing alone: the bilateral family and
                                                the paper's network, on one and two threads
    python -m benchmarks.refine checks          the same with and without the checks on reading
    python -m benchmarks.refine memory          peak memory at 100,000 and at 1,000,000 images
    python -m benchmarks.refine scaling         one and two Dask workers, one core each
    python -m benchmarks.refine orchestration   what Prefect takes at 200,000 images
    python -m benchmarks.refine kills           killed at 20 random moments, and resumed

Everything is kept in a temporary folder; OMP_NUM_THREADS and the like are as you set them. With
`--json FILE` the results of `rates` and `waiting` are there too, after every measurement.
"""

import argparse
import copy
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import torch

from benchmarks.results_file import ResultsFile
from flows.cli.environment import prepare
from simgan_core.compute.settings import choose_inference_settings
from simgan_core.data.images import to_network, to_pixels
from simgan_core.inference import (
    Block,
    BulkRefiner,
    PixelName,
    RefinedImages,
    StyledImages,
)
from simgan_core.models.checkpoint import load_refiner
from simgan_core.models.refiner import Refiner
from simgan_core.quality.gate import Inspection
from storage import reader, writer
from storage.layout import read_root, recorded_shards
from storage.location import locate
from storage.reader import open_dataset
from tests.refinement_inputs import make_bilateral_refiner, make_refiner, make_synthetic
from tests.s3_proxy import S3Proxy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAPER = {"num_features": 64, "num_blocks": 4}
SMALL = {"num_features": 4, "num_blocks": 1}
FLOP_PER_IMAGE = 1.14e9
"""Of the paper's refiner on 35×55."""
ROUNDS = 2 if DEVICE == "cuda" else 10
"""On shared cores neighbours take up to a half of the matrix units, for seconds: the more rounds,
the more a best one says of the machine."""
NUM_SCALED = 6144
GPU_REFINING_S, GPU_INSPECTING_S, GPU_BATCH = 3.2e-6, 1.3e-6, 2048
"""What an image takes an H100 with the paper's refiner, and of how many at once."""
LARGE_SHARD_ROWS = 65536
RATES_ROWS = 1_200_000 if DEVICE == "cuda" else 4096
WAITING_ROWS = 12 * 16384


def main() -> None:
    """Run the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help="of the dataset of rates or waiting")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of rates or waiting")
    parser.add_argument(
        "--processes",
        type=int,
        default=4 if DEVICE == "cuda" else 0,
        help="that share the device in a case of rates; 0: no such case",
    )
    parser.add_argument("--json", type=Path, help="file for the results of rates or waiting")
    parts: dict[str, Callable[[Path], None]] = {
        "rates": lambda folder: rates(
            folder, asked.rows or RATES_ROWS, asked.rounds, asked.processes, results
        ),
        "waiting": lambda folder: waiting(
            folder, asked.rows or WAITING_ROWS, asked.rounds, results
        ),
        "families": lambda folder: families(folder, asked.rounds),
        "checks": lambda folder: checks(folder, asked.rounds),
        "memory": memory,
        "scaling": scaling,
        "orchestration": orchestration,
        "kills": kills,
    }
    parser.add_argument("parts", nargs="+", choices=parts)
    asked = parser.parse_args()
    results = ResultsFile(asked.json)
    for part in asked.parts:
        print(f"\n{part}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder) / "home")
            parts[part](Path(folder))


# Rates


def rates(
    folder: Path, num_rows: int, rounds: int, num_processes: int, results: ResultsFile
) -> None:
    """Print images a second of the plain loop, of computing alone and of the whole way."""
    refiner = load_refiner(make_refiner(folder / "refiner.pt", **PAPER)).refiner
    make_synthetic(str(folder / "synthetic.zarr"), num_rows, min(16384, num_rows // 4))
    images = open_dataset(str(folder / "synthetic.zarr")).read(0, min(num_rows, 65536)).images
    # On CPUs all take about as long as each other, so that neighbours disturb all alike.
    few = images[: 16384 if DEVICE == "cuda" else 512]
    # 2,048 images at once in fp32 would hold 14 GB of a GPU, beside processes that share it.
    fp32 = choose_inference_settings(DEVICE, "fp32", 512 if DEVICE == "cuda" else None)
    bulk = {
        compute.precision: BulkRefiner(refiner, compute, few.shape[1:])
        for compute in (choose_inference_settings(DEVICE, "bf16"), fp32)
    }
    best = bulk[choose_inference_settings(DEVICE).precision]
    cases: dict[str, tuple[int, Callable[[], object]]] = {
        "plain loop: fp32, NCHW, batch 512, eager": (len(few), lambda: _plain(refiner, few)),
        "computing alone, fp32": (len(few), lambda: bulk["fp32"](few)),
        "computing alone, bf16": (len(images), lambda: bulk["bf16"](images)),
        "end to end, zarr to zarr": (num_rows, lambda: end_to_end(folder)),
    }
    for dtype in (torch.bfloat16, torch.float32):
        cases[f"matrix products, {dtype}, GFLOP"] = _matrix_products(dtype)
    if DEVICE == "cuda":
        large = folder / "large"
        make_synthetic(str(large / "synthetic.zarr"), num_rows, LARGE_SHARD_ROWS)
        (large / "refiner.pt").hardlink_to(folder / "refiner.pt")
        cases[f"end to end, shards of {LARGE_SHARD_ROWS}"] = (num_rows, lambda: end_to_end(large))
        cases |= _gpu_cases(refiner, few)
    with ExitStack() as stack:
        if num_processes:
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(num_processes, spawn))
            name = f"end to end, by {num_processes} processes"
            cases[name] = (num_rows, lambda: end_to_end(folder, pool, num_processes))
        counts = {name: count for name, (count, _) in cases.items()}
        seconds = _interleaved(
            {name: work for name, (_, work) in cases.items()},
            rounds,
            lambda taken: results.update({"a_second": _a_second(counts, taken)}),
        )
    rate = {name: count / np.array(seconds[name]) for name, count in counts.items()}
    for name, values in rate.items():
        print(f"{name:44} {values.max():10.0f} a second, median {np.median(values):.0f}")
    plain, alone, whole = (
        rate[name]
        for name in (
            *(next(iter(cases)), f"computing alone, {best.compute.precision}"),
            "end to end, zarr to zarr",
        )
    )
    peak = rate["matrix products, torch.bfloat16, GFLOP"] * 1e9 / FLOP_PER_IMAGE
    for name, above, below in (
        ("end to end / plain loop", whole, plain),
        ("end to end / computing alone", whole, alone),
        ("computing alone / bf16 matrix rate", alone, peak),
    ):
        by_rounds = ", ".join(f"{ratio:.2f}" for ratio in sorted(above / below))
        print(f"{name:34} best by best {above.max() / below.max():.2f}, rounds {by_rounds}")
        results.update({name: above.max() / below.max()})


def _a_second(counts: dict[str, int], seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return the rates of each case by rounds, as far as they are measured."""
    return {name: [counts[name] / each for each in taken] for name, taken in seconds.items()}


def families(folder: Path, rounds: int) -> None:
    """Print images a second of the families and of the paper's network, each in turn."""
    refiners = {
        "the paper's network": load_refiner(make_refiner(folder / "paper.pt", **PAPER)).refiner,
        "convolutional, stable": load_refiner(
            make_refiner(folder / "stable.pt", num_features=32, num_blocks=3)
        ).refiner,
        "bilateral": load_refiner(make_bilateral_refiner(folder / "bilateral.pt")).refiner,
    }
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (512, 35, 55, 1), np.uint8)
    style = generator.standard_normal((512, 8)).astype(np.float32)
    cases: dict[str, Callable[[], object]] = {
        f"{name}, {precision}": partial(
            BulkRefiner(refiner, choose_inference_settings(DEVICE, precision), images.shape[1:]),
            images,
            style if refiner.style_size else None,
        )
        for name, refiner in refiners.items()
        for precision in ("fp32", "bf16")
    }
    for num_threads in (1, 2) if DEVICE == "cpu" else (1,):
        torch.set_num_threads(num_threads)
        rates = {
            name: len(images) / min(each) for name, each in _interleaved(cases, rounds).items()
        }
        paper = max(rate for name, rate in rates.items() if name.startswith("the paper"))
        print(f"{num_threads} threads, best of {rounds} rounds")
        for name, rate in rates.items():
            print(f"  {name:28} {rate:8,.0f} images a second, {rate / paper:5.1f} times")


def _plain(refiner: Refiner, images: np.ndarray) -> np.ndarray:
    """Refine as one would write it first."""
    on_device = LayerByLayer(refiner).to(DEVICE)
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 512):
            batch = torch.from_numpy(images[start : start + 512]).to(DEVICE)
            refined = on_device(to_network(batch).contiguous())
            parts.append(to_pixels(refined).cpu().numpy())
    return np.concatenate(parts)


class LayerByLayer(torch.nn.Module):
    """A refiner as PyTorch's own layers compute it, one after the other."""

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Refine [N, C, H, W] in [−1, 1]."""
        refiner = self.refiner
        features = refiner.first(images.to(refiner.first.weight.dtype)).relu_()
        for block in refiner.blocks:
            change = block.second(block.first(features).relu_())
            features = change.add_(features).relu_()
        return torch.clamp(images + refiner.last(features).float(), -1, 1)


def _gpu_cases(refiner: Refiner, images: np.ndarray) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return what the product is compared with on a GPU; images stay there."""
    on_gpu = torch.from_numpy(images).to(DEVICE)
    eager = {
        dtype: LayerByLayer(load_copy(refiner))
        .to(DEVICE, dtype)
        .to(memory_format=torch.channels_last)
        for dtype in (torch.float32, torch.bfloat16)
    }
    compiled = torch.compile(eager[torch.bfloat16])

    def through(network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        def work() -> None:
            with torch.no_grad():
                for part in torch.split(on_gpu, 1024):
                    to_pixels(network(to_network(part)))
            torch.cuda.synchronize()

        return work

    networks = {
        "eager fp32": eager[torch.float32],
        "eager bf16": eager[torch.bfloat16],
        "torch.compile bf16": compiled,
    }
    return {
        f"on the GPU: {name}, 1024": (len(images), through(network))
        for name, network in networks.items()
    }


def load_copy(refiner: Refiner) -> Refiner:
    """Return a copy on the CPU in fp32."""
    return copy.deepcopy(refiner).cpu().float()


def end_to_end(folder: Path, pool: Executor | None = None, num_processes: int = 1) -> Path:
    """Refine the folder's dataset into a new one, without an orchestrator; returns where it is.

    With a pool its processes refine, as Dask's workers do.
    """
    # Prefect reads its settings when it is imported, so only after `prepare`.
    from tasks.refinement.refine import finish_refinement, plan_refinement  # noqa: PLC0415

    to = folder / f"refined-{time.monotonic_ns()}.zarr"
    places = str(folder / "synthetic.zarr"), str(folder / "refiner.pt"), str(to)
    (shards,) = plan_refinement.fn(*places).groups
    if pool is None:
        _refine_shards(shards, *places)
    else:
        parts = [shards[first::num_processes] for first in range(num_processes)]
        for done in [pool.submit(_refine_shards, part, *places) for part in parts]:
            done.result()
    finish_refinement.fn(str(to))
    return to


def _refine_shards(shards: list[int], source: str, weights: str, to: str) -> None:
    from tasks.refinement.refine import refine_shards  # noqa: PLC0415  after `prepare`

    refine_shards.fn(shards, source, weights, to)


def _interleaved(
    cases: dict[str, Callable[[], object]],
    rounds: int = ROUNDS,
    report: Callable[[dict[str, list[float]]], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Return each one's seconds in every round, one of each in turn: all meet one machine.

    `report` gets what is measured so far after each case. A dataset that a case made is removed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(rounds + 1):
        for name, work in cases.items():
            started = time.perf_counter()
            made = work()
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
                report(seconds)
            if isinstance(made, Path):
                shutil.rmtree(made)
    return seconds


def _matrix_products(dtype: torch.dtype) -> tuple[int, Callable[[], None]]:
    """Return square matrix products, and how many GFLOP they are."""
    size, repeats = (8192, 50) if DEVICE == "cuda" else (2048, 10)
    a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))

    def work() -> None:
        for _ in range(repeats):
            torch.mm(a, b)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return round(2 * size**3 * repeats / 1e9), work


# Waiting


class WaitingGpu:
    """A GPU that is not there: it takes one batch at a time, as long as an H100, and no memory."""

    def __init__(self) -> None:
        self.ready_at = 0.0
        self.idle_s = 0.0

    def compute(self, num_images: int) -> float:
        """Return when a batch that arrives now is refined; count the time without work."""
        now = time.perf_counter()
        if self.ready_at:
            self.idle_s += max(0.0, now - self.ready_at)
        self.ready_at = max(self.ready_at, now) + num_images * GPU_REFINING_S
        return self.ready_at


class WaitingSlot:
    """Copies a batch as for a GPU, and waits as long as that would compute it."""

    def __init__(self, gpu: WaitingGpu) -> None:
        self._gpu = gpu
        self._arriving, self._leaving = (
            torch.zeros(GPU_BATCH, 35, 55, 1, dtype=torch.uint8) for _ in range(2)
        )

    def start(self, block: Block, rows: slice) -> None:
        """Copy the batch to where a GPU fetches it."""
        self._arriving[: rows.stop - rows.start].copy_(block.images[rows])
        self._target = block.refined[rows]
        self._refined_at = self._gpu.compute(len(self._target))

    def finish(self) -> None:
        """Wait, and copy the batch from where a GPU left it."""
        time.sleep(max(0.0, self._refined_at - time.perf_counter()))
        self._target.copy_(self._leaving[: len(self._target)])


class WaitingRefiner(BulkRefiner):
    """Streams images through a GPU that is not there."""

    gpu = WaitingGpu()

    def __init__(
        self,
        refiner: Refiner,
        _: object,
        image_shape: tuple[int, int, int],
        pixels: PixelName = "uint8",
    ) -> None:
        compute = choose_inference_settings("cpu", "fp32", GPU_BATCH)
        super().__init__(refiner, compute, image_shape, pixels)
        self._slots = [WaitingSlot(self.gpu) for _ in range(3)]


def _shard_by_shard(
    refiner: WaitingRefiner, blocks: Iterable[StyledImages]
) -> Generator[RefinedImages, None, None]:
    """Refine each block to its end before the next one begins."""
    for block in blocks:
        yield from BulkRefiner.refine_each(refiner, [block])


def _inspect_by_waiting(synthetic: torch.Tensor, *_: object) -> Inspection:
    time.sleep(len(synthetic) * GPU_INSPECTING_S)
    return Inspection(None, np.zeros(len(synthetic), bool))


def _inspect_sent_again(synthetic: torch.Tensor, refined: torch.Tensor, *_: object) -> Inspection:
    """Copy the images as a driver does that fetches them from memory that is not page-locked."""
    for images in (synthetic, refined):
        for part in images.split(GPU_BATCH):
            torch.empty_like(part).copy_(part)
    return _inspect_by_waiting(synthetic)


def waiting(folder: Path, num_rows: int, rounds: int, results: ResultsFile) -> None:
    """Print what the program lets an H100 do: nothing is computed, all else is as it is.

    Beside it, in turn, what it would do without each of three things.
    """
    from tasks.refinement import backends, refine  # noqa: PLC0415  after `prepare`

    make_refiner(folder / "refiner.pt", **SMALL)
    make_synthetic(str(folder / "synthetic.zarr"), num_rows, min(16384, num_rows // 4))
    changes: dict[str, list[Callable[[], AbstractContextManager[object]]]] = {
        "zarr's codecs": [
            lambda: patch.object(reader, "read_images", return_value=False),
            lambda: patch.object(writer, "write_images", return_value=False),
        ],
        "shard by shard": [lambda: patch.object(WaitingRefiner, "refine_each", _shard_by_shard)],
        "images sent again": [lambda: patch.object(refine, "inspect", _inspect_sent_again)],
        "ours": [],
    }
    idle_s: dict[str, list[float]] = {name: [] for name in changes}

    def changed(name: str) -> Path:
        gpu = WaitingRefiner.gpu
        gpu.ready_at, gpu.idle_s = 0.0, 0.0
        with ExitStack() as stack:
            for change in changes[name]:
                stack.enter_context(change())
            made = end_to_end(folder)
        idle_s[name].append(gpu.idle_s)
        return made

    with (
        patch.object(backends, "BulkRefiner", WaitingRefiner),
        patch.object(refine, "inspect", _inspect_by_waiting),
    ):
        seconds = _interleaved({name: partial(changed, name) for name in changes}, rounds)
    rates = {name: num_rows / np.array(values) for name, values in seconds.items()}
    for name, each in rates.items():
        idle = np.array(idle_s[name][1:])
        results.update({name: {"images_a_second": each.tolist(), "gpu_idle_s": idle.tolist()}})
        print(f"{name:18} {each.max():8,.0f} images a second, median {np.median(each):,.0f}, "
              f"{each.max() * GPU_REFINING_S:.2f} of refining alone; GPU idle for "
              f"{idle.min() * 1e6 / num_rows:.2f} µs an image, median "
              f"{np.median(idle) * 1e6 / num_rows:.2f}; ours / it by rounds, median "
              f"{np.median(rates['ours'] / each):.2f}")  # fmt: skip


# Checks


def checks(folder: Path, rounds: int) -> None:
    """Print what it costs to hold every shard that is read against its record."""
    from tasks.refinement import backends, refine  # noqa: PLC0415  after `prepare`

    def unchecked() -> None:
        with patch.object(reader.Dataset, "_require_whole"):
            end_to_end(folder)

    cases: dict[str, Callable[[], object]] = {
        "unchecked": unchecked,
        "checked": lambda: end_to_end(folder),
    }
    make_refiner(folder / "refiner.pt", **SMALL)
    make_synthetic(str(folder / "synthetic.zarr"), 12 * 16384, 16384)
    with (
        patch.object(backends, "BulkRefiner", WaitingRefiner),
        patch.object(refine, "inspect", _inspect_by_waiting),
    ):
        _print_cost("waiting for an H100", _interleaved(cases, rounds))
    subprocess.run(["rm", "-rf", str(folder / "synthetic.zarr")], check=True)
    make_synthetic(str(folder / "synthetic.zarr"), 2048, 1024)
    _print_cost(f"a small refiner on {DEVICE}", _interleaved(cases, rounds))


def _print_cost(name: str, seconds: dict[str, list[float]]) -> None:
    best = seconds["checked"], seconds["unchecked"]
    of_best, of_medians = (of(best[0]) / of(best[1]) - 1 for of in (min, np.median))
    print(f"{name:24} checks take {of_best:+.1%} (best), {of_medians:+.1%} (median)")


# Memory


def memory(folder: Path) -> None:
    """Print the peak of a process that refines 100,000 images and of one that refines 1,000,000."""
    make_refiner(folder / "refiner.pt", **SMALL)
    peaks = {}
    for num_rows in (100_000, 1_000_000):
        place = folder / str(num_rows)
        make_synthetic(str(place / "synthetic.zarr"), num_rows, 16384, pupils=False)
        (place / "refiner.pt").hardlink_to(folder / "refiner.pt")
        program = (
            "import resource; from pathlib import Path; from benchmarks.refine import end_to_end\n"
            f"end_to_end(Path({str(place)!r}))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
        )
        peaks[num_rows] = int(done.stdout.split()[-1]) / 1024
        print(f"{num_rows:9,} images: {peaks[num_rows]:6.0f} MiB at most, "
              f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    print(f"ratio {peaks[1_000_000] / peaks[100_000]:.3f}")


# Scaling


def scaling(folder: Path) -> None:
    """Print the rate of one and of two Dask workers, each pinned to a core."""
    make_refiner(folder / "refiner.pt", **PAPER)
    make_synthetic(str(folder / "warm.zarr"), 64, 16)
    make_synthetic(str(folder / "synthetic.zarr"), NUM_SCALED, 512)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with _prefect_server(folder) as environment:
        for _ in range(2):
            for workers, taken in seconds.items():
                with _cluster(folder, environment, workers) as address:
                    for name in ("warm", "synthetic"):
                        to = folder / f"{name}-{time.monotonic_ns()}.zarr"
                        _simgan(environment, "refine", folder / f"{name}.zarr", "--refiner",
                                      folder / "refiner.pt", "--to", to, "--runner", "dask",
                                      "--dask-address", address)  # fmt: skip
                    taken.append(_seconds_of_records(to))
                print(f"{workers} workers: {NUM_SCALED / taken[-1]:.1f} images/s", flush=True)
    print(f"1 → 2 workers: {min(seconds[1]) / min(seconds[2]):.2f} times the rate")


def _seconds_of_records(dataset: Path) -> float:
    """Return how long the shards took: from the root document to the last record."""
    written = [path.stat().st_mtime for path in (dataset / "records").glob("*/zarr.json")]
    begun = (dataset / "records" / "zarr.json").stat().st_mtime
    return max(written) - begun


@contextmanager
def _cluster(folder: Path, environment: dict[str, str], workers: int) -> Iterator[str]:
    """Start a scheduler and pinned workers as processes of their own."""
    # Here, so that the other parts run where Dask is not.
    from distributed import Client  # noqa: PLC0415

    port = random.randint(20000, 40000)
    address = f"tcp://127.0.0.1:{port}"
    log = (folder / "dask.log").open("a")
    start = [sys.executable, "-m", "dask"]
    commands = [[*start, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]]
    for core in range(workers):
        commands.append(
            ["taskset", "-c", str(core), *start, "worker", address, "--nthreads", "1",
             "--no-dashboard", "--host", "127.0.0.1"]
        )  # fmt: skip
    started = [
        subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        for command in commands
    ]
    try:
        with Client(address, timeout=120) as client:
            client.wait_for_workers(workers, timeout=120)
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=60)


# Orchestration


def orchestration(folder: Path) -> None:
    """Print how much longer the flow takes than its tasks' bodies, at 200,000 images."""
    from flows.refine import refine  # noqa: PLC0415  after `prepare`

    make_refiner(folder / "refiner.pt", **SMALL)
    make_synthetic(str(folder / "synthetic.zarr"), 200_000, 16384, pupils=False)
    with _prefect_server(folder) as environment:
        os.environ.update(environment)
        source, weights = str(folder / "synthetic.zarr"), str(folder / "refiner.pt")

        def flow() -> Path:
            to = folder / f"flow-{time.monotonic_ns()}.zarr"
            refine(source, weights, str(to))
            return to

        seconds = _interleaved({"bodies": lambda: end_to_end(folder), "flow": flow})
    bodies, whole = min(seconds["bodies"]), min(seconds["flow"])
    over = whole - bodies
    print(f"bodies {bodies:.2f} s, flow {whole:.2f} s: {over:.2f} s more")
    for rate in (100, 1000, 5000):
        print(f"{over / (200_000 / rate):.2%} of 200,000 images at {rate} a second")


# Kills


def kills(folder: Path, num_kills: int = 20) -> None:
    """Kill processes, Dask workers and the way to S3 at random moments, and go on each time."""
    draw = random.Random(0)
    make_refiner(folder / "refiner.pt", num_features=16, num_blocks=2)
    make_synthetic(str(folder / "synthetic.zarr"), 3000, 100)
    with ExitStack() as stack:
        environment = stack.enter_context(_prefect_server(folder))
        proxy_url, outage = stack.enter_context(_s3_with_outages())
        server = {
            "AWS_ENDPOINT_URL": proxy_url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
        }
        environment |= server
        os.environ.update(server)
        command = (
            "refine",
            folder / "synthetic.zarr",
            "--refiner",
            folder / "refiner.pt",
            "--json",
        )
        expected = _simgan(environment, *command, "--to", folder / "undisturbed.zarr")
        print(f"undisturbed: digest {expected['digest'][:12]}", flush=True)
        for number in range(num_kills):
            what = ("process", "worker", "s3")[number % 3]
            to = f"s3://bench/{number}/r.zarr" if what == "s3" else folder / f"{number}.zarr"
            more = ("--runner", "dask", "--workers", 2) if what == "worker" else ()
            process = _start(environment, *command, "--to", to, *more)
            num_done = _wait_for_shards(process, str(to), draw.randrange(28))
            time.sleep(draw.uniform(0, 0.2))
            _disturb(process, what, outage, draw)
            found, again = _go_on(process, environment, (*command, "--to", to, *more))
            same = found["digest"] == expected["digest"] and found["num_rows"] == 3000
            print(f"{number + 1:2} {what:8} after {num_done:2} of 30 shards, started again {again} "
                  f"times: {'same digest' if same else 'ANOTHER DIGEST'}", flush=True)  # fmt: skip


def _wait_for_shards(process: "subprocess.Popen[str]", to: str, count: int) -> int:
    """Wait until so many shards are done and one more may be under way; returns how many are."""
    place, num_done = locate(to), 0
    while process.poll() is None:
        num_done = len(recorded_shards(place)) if read_root(place, to) else 0
        if num_done >= count and read_root(place, to):
            return num_done
        time.sleep(0.01)
    return num_done


def _disturb(
    process: "subprocess.Popen[str]",
    what: str,
    outage: Callable[[float], None],
    draw: random.Random,
) -> None:
    """Kill the command or a worker of it, or shut the way to S3 for a while."""
    if what == "s3":
        outage(5.0)
    elif what == "process":
        process.kill()
    elif process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        draw.choice(workers).kill()


def _go_on(
    process: "subprocess.Popen[str]", environment: dict[str, str], words: tuple[object, ...]
) -> tuple[dict[str, Any], int]:
    """Wait for a command, and repeat it until it ends well."""
    out, _ = process.communicate()
    again = 0
    while process.returncode != 0:
        again += 1
        assert again < 5, "it does not end"
        process = _start(environment, *words)
        out, _ = process.communicate()
    return json.loads(out.splitlines()[-1]), again


@contextmanager
def _s3_with_outages() -> Iterator[tuple[str, Callable[[float], None]]]:
    """Start an S3 server behind a door, and give the door's address and what shuts it a while.

    The server itself keeps its objects in memory, and would lose them with its process.
    """
    # Here, so that the other parts run where moto is not.
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    upstream = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{upstream}/bench", method="PUT")).close()
    door = S3Proxy(upstream).__enter__()
    door_port = int(door.url.rsplit(":", 1)[1])

    def outage(seconds: float) -> None:
        nonlocal door
        door.faults = lambda _: "reset"
        door.__exit__()
        time.sleep(seconds)
        door = S3Proxy(upstream, door_port).__enter__()

    yield door.url, outage
    door.__exit__()
    server.stop()


# What they share


@contextmanager
def _prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """Start a Prefect server and give the environment in which commands use it."""
    port = random.randint(20000, 40000)
    environment = {
        **os.environ,
        "SIMGAN_HOME": str(folder / "home"),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": str(Path.cwd()),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with (folder / "prefect.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(
                    f"{environment['PREFECT_API_URL']}/health", timeout=2
                ).close()
                break
            except OSError:
                time.sleep(0.5)
        yield environment
    finally:
        server.terminate()
        server.wait(timeout=60)


def _start(environment: dict[str, str], *words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _simgan(environment: dict[str, str], *words: object) -> dict[str, str]:
    """Run a command and return its result."""
    process = _start(environment, *words, *([] if "--json" in words else ["--json"]))
    out, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{words} failed")
    result: dict[str, str] = json.loads(out.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
