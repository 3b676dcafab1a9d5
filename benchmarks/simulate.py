"""Measure how many images a second the simulators render on one core.

    python benchmarks/simulate.py                      # the built-in simulator
    python benchmarks/simulate.py --assets FOLDER      # UnityEyes' eyes, by 1 and 2 processes
    python -m benchmarks.simulate --device cuda --json FILE [--assets FOLDER]      # and on a GPU

Rendering is numpy without threads; the BLAS behind its matrix products is held to one by the
environment variables set here, before numpy is loaded. The built-in simulator's rates are the best
of five runs. UnityEyes' are stated by the clock and by processor time, which other work on the
machine disturbs less, the best of three runs; memory is the process's peak after each. On a device
they are rendered in whole batches; without a folder of assets, from the tests' own, whose mesh has
fewer triangles.
"""

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from simgan_core.simulator.eyes import Domain, Framing, render, sample_scenes
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.placement import Picture
from simgan_core.simulator.unityeyes.render import Renderer
from tasks.simulation.unityeyes_assets import load_assets

CASES: list[tuple[Domain, Framing, int, int]] = [
    ("synthetic", "crop", 35, 55),
    ("real", "crop", 35, 55),
    ("real", "crop", 36, 60),
    ("synthetic", "frame", 120, 160),
]
PICTURES = [
    Picture("crop", 80, 120, 2),
    Picture("crop", 35, 55, 3),
    Picture("frame", 480, 640, 1),
]


def main() -> None:
    """Print the rate of every case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", help="folder of UnityEyes2's assets")
    parser.add_argument("--count", type=int, default=256, help="images of a run of UnityEyes'")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="render UnityEyes' in batches")
    parser.add_argument("--json", type=Path, help="file for the results of a device")
    given = parser.parse_args()
    if given.device is not None:
        with tempfile.TemporaryDirectory() as folder:
            assets = given.assets or own_assets(Path(folder))
            measure_device(assets, given.device, given.count, given.json)
        return
    if given.assets is None:
        for domain, framing, height, width in CASES:
            rate = max(images_per_second(domain, framing, height, width) for _ in range(5))
            print(f"{domain:9} {framing:5} {height:3}×{width:3}: {rate:6.0f} images/s on one core")
        return
    for picture in PICTURES:
        print_unityeyes(given.assets, given.count, picture)


def images_per_second(
    domain: Domain, framing: Framing, height: int, width: int, count: int = 256
) -> float:
    """Return the rate of sampling and rendering `count` scenes."""
    started = time.perf_counter()
    render(sample_scenes(domain, count, seed=0), framing, height, width)
    return count / (time.perf_counter() - started)


def own_assets(folder: Path) -> str:
    """Write the tests' tiny assets; returns their folder."""
    from tests.unityeyes_folder import write_assets  # noqa: PLC0415  a checkout has them

    return str(write_assets(folder))


def measure_device(assets: str, device: str, count: int, json: Path | None) -> None:
    """Print, and keep, images a second of the batched renderer, and its memory on a GPU."""
    import torch  # noqa: PLC0415  the other benchmarks do without

    from benchmarks.results_file import ResultsFile  # noqa: PLC0415
    from simgan_core.simulator.unityeyes.batched.render import BatchRenderer  # noqa: PLC0415

    results, on = ResultsFile(json), torch.device(device)
    loaded = load_assets(assets)
    rates: dict[str, float] = {}
    for picture in PICTURES[:2]:
        renderer = BatchRenderer(loaded, UnityEyesConfig(), 1, device=on)
        renderer.render(range(count), picture)
        best = 0.0
        for run in range(1, 4):
            started = time.perf_counter()
            renderer.render(range(run * count, (run + 1) * count), picture)
            best = max(best, count / (time.perf_counter() - started))
        rates[f"{picture.height}x{picture.width}, {picture.samples} samples"] = best
        peak = torch.cuda.max_memory_allocated() >> 20 if device == "cuda" else None
        results.update(
            {"images_a_second": rates, "triangles": len(loaded.triangles), "peak_mb": peak}
        )
        print(
            f"{device}, {loaded.triangles.shape[0]} triangles: {rates}, peak MB {peak}", flush=True
        )


def print_unityeyes(assets: str, count: int, picture: Picture) -> None:
    """Print rates of one process and of two at a time, and the memory that one took."""
    size = f"{picture.framing:5} {picture.height:3}×{picture.width:3}, {picture.samples} samples"
    for num_processes in (1, 2):
        started = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
            jobs = [(assets, count, picture, process) for process in range(num_processes)]
            rates = pool.starmap(unityeyes_rates, jobs)
        by_clock, by_processor, peaks = zip(*rates, strict=True)
        print(
            f"{size}, {num_processes} processes: {sum(by_clock):5.1f} images/s, "
            f"{min(by_processor):5.1f} a second of processor time; peak MB after each run "
            f"{peaks[0]} ({time.perf_counter() - started:.0f} s)",
            flush=True,
        )


def unityeyes_rates(
    assets: str, count: int, picture: Picture, seed: int
) -> tuple[float, float, list[int]]:
    """Return images a second, images a second of processor time, and peaks of memory in MB."""
    renderer = Renderer(load_assets(assets), UnityEyesConfig(), seed)
    renderer.render(range(16), picture)
    by_clock, by_processor, peaks = 0.0, 0.0, []
    for run in range(3):
        clock, processor = time.perf_counter(), time.process_time()
        # As a simulation does: some at a time, the next rows in the next run.
        for first in range(run * count, (run + 1) * count, 64):
            renderer.render(range(first, min(first + 64, (run + 1) * count)), picture)
        by_clock = max(by_clock, count / (time.perf_counter() - clock))
        by_processor = max(by_processor, count / (time.process_time() - processor))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return by_clock, by_processor, peaks


if __name__ == "__main__":
    main()
