"""Where the time of a shard or of a training step goes, by `torch.profiler`.

    python -m benchmarks.gpu.trace refinement --json FILE   shards, zarr to zarr
    python -m benchmarks.gpu.trace training --json FILE     ten steps

The traces are written beside FILE, for Perfetto or chrome://tracing.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.results_file import ResultsFile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUM_LISTED = 25
"""Kernels and gaps that a summary lists."""
NUM_STEPS = 10


def main() -> None:
    """Profile one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["refinement", "training"])
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--rows", type=int, default=16384, help="of a shard")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=512, help="of a training step")
    asked = parser.parse_args()
    if asked.what == "training":
        found = training(asked.json, asked.batch_size)
    else:
        found = refinement(asked.json, asked.rows, asked.shards)
    ResultsFile(asked.json).update(found)


def refinement(path: Path, rows_per_shard: int, num_shards: int) -> dict[str, Any]:
    """Profile the refinement of some shards by the paper's refiner."""
    # A part that fails for want of a package fails alone.
    from benchmarks.refine import PAPER, end_to_end  # noqa: PLC0415
    from flows.cli.environment import prepare  # noqa: PLC0415
    from tests.refinement_inputs import make_refiner, make_synthetic  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder / "home")
        make_refiner(folder / "refiner.pt", **PAPER)
        num_rows = num_shards * rows_per_shard
        make_synthetic(str(folder / "synthetic.zarr"), num_rows, rows_per_shard)
        end_to_end(folder)  # captures the refiner, and the inspection in its fourth call
        found = profiled(lambda: end_to_end(folder), path)
    return found | {"num_shards": num_shards, "rows_per_shard": rows_per_shard}


def training(path: Path, batch_size: int) -> dict[str, Any]:
    """Profile refiner steps of `paper`, and one of the discriminator."""
    from simgan_core.config import PRESETS, StoppingConfig  # noqa: PLC0415
    from simgan_core.training.trainer import Trainer  # noqa: PLC0415

    config = PRESETS["paper"].model_copy(
        update={
            "batch_size": batch_size,
            "history_size": 10 * batch_size,
            "refiner_steps_per_round": NUM_STEPS,
            "refiner_pretraining_steps": 0,
            "discriminator_pretraining_steps": 0,
            "stopping": StoppingConfig(evaluate_every=0),
        }
    )
    generator = torch.Generator().manual_seed(0)
    synthetic, real = torch.randint(
        0, 256, (2, 4 * batch_size, 35, 55, 1), dtype=torch.uint8, generator=generator
    )
    trainer = Trainer(config, synthetic, real, DEVICE)

    def steps(count: int) -> None:
        taken = iter(range(count + 1))
        trainer.run(None, lambda: next(taken) == count)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    # A GPU captures each network's update in its fourth call.
    steps(4 * NUM_STEPS if DEVICE == "cuda" else 1)
    found = profiled(lambda: steps(NUM_STEPS), path)
    return found | {"num_steps": NUM_STEPS, "batch_size": batch_size}


def profiled(work: Callable[[], object], path: Path) -> dict[str, Any]:
    """Return where a call's time goes on the device, and write its trace beside `path`."""
    activities = [ProfilerActivity.CPU]
    if DEVICE == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        work()
        wall_us = (time.perf_counter() - started) * 1e6
    profiler.export_chrome_trace(str(path.with_suffix(".trace.json.gz")))
    events = [event for event in profiler.events() or [] if _is_on_device(event)]
    busy_us, gaps = busy_and_gaps(
        Interval(event.time_range.start, event.time_range.end)
        for event in events
        if not event.name.startswith(("Memcpy", "Memset"))
    )
    by_name: dict[str, list[float]] = defaultdict(list)
    for event in events:
        by_name[event.name].append(event.time_range.elapsed_us())
    longest = sorted((gap.end - gap.start for gap in gaps), reverse=True)
    kernels = sorted(by_name.items(), key=lambda item: -sum(item[1]))
    return {
        "wall_ms": wall_us / 1e3,
        "computing_ms": busy_us / 1e3,
        "computing_share": busy_us / wall_us,
        "gaps_ms": [gap / 1e3 for gap in longest[:NUM_LISTED]],
        "kernels": [
            {"name": name[:160], "ms": sum(each) / 1e3, "calls": len(each)}
            for name, each in kernels[:NUM_LISTED]
        ],
    }


class Interval(NamedTuple):
    """A stretch of time, in microseconds."""

    start: float
    end: float


def busy_and_gaps(intervals: Iterable[Interval]) -> tuple[float, list[Interval]]:
    """Return for how long at least one interval lasts, and the gaps between them."""
    merged: list[Interval] = []
    for each in sorted(intervals):
        if merged and each.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, each.end))
        else:
            merged.append(each)
    gaps = [Interval(before.end, after.start) for before, after in pairwise(merged)]
    return sum(each.end - each.start for each in merged), gaps


def _is_on_device(event: FunctionEvent) -> bool:
    if DEVICE == "cuda":
        # Annotations span kernels and the gaps between them.
        is_kernel = event.device_type == torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
        return is_kernel and not event.is_user_annotation
    # Operators that no other one calls.
    return event.cpu_parent is None


if __name__ == "__main__":
    main()
