"""Measure ingestion; every ratio is of one run, its sides in turn.

    python -m benchmarks.ingest frames   UnityEyes frames of 800×600 against a plain Pillow loop
    python -m benchmarks.ingest arrays   array rows against zarr's own writing of the same bytes
    python -m benchmarks.ingest memory   peak memory at 20,000 and at 200,000 pairs of files
    python -m benchmarks.ingest kills    killed at 20 random moments of 20,000 pairs, and resumed

Everything is kept in `--folder` (a temporary one by default); frames that are there already are
taken. `frames` and `arrays` write some GB: on a disk that stalls, give a folder in memory.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import zarr
from PIL import Image

from flows.cli.environment import prepare
from simgan_core.simulator.eyes import render, sample_scenes
from storage.layout import create_arrays, open_arrays
from storage.location import locate
from storage.reader import open_dataset
from storage.schema import GAZE, PUPIL_PX, DatasetSpec
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.unityeyes import UnityEyesOptions, write_unityeyes_pair
from storage.sources.head_pose import to_unityeyes
from storage.sources.options import SourceOptions

NUM_FRAMES = 10_000
HEIGHT, WIDTH = 600, 800
SKIN = np.array([1.05, 0.85, 0.72])
NUM_ROWS = 200_000
ROUNDS = 5
FEW, MANY = 20_000, 200_000
NUM_DRAWN = 500
"""Pairs that are rendered for FEW and MANY; the others are links to them."""
MEASURED = ("the process that writes", "a process that decodes", "all together")
NUM_KILLS, KILLED_SHARD = 20, 256


def main() -> None:
    """Run the parts that are named."""
    parts: dict[str, Callable[[Path], None]] = {
        "frames": frames,
        "arrays": arrays,
        "memory": memory,
        "kills": kills,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=parts)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    for part in given.parts:
        print(f"\n{part}, load {os.getloadavg()[0]:.1f}", flush=True)
        with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
            prepare(Path(temporary) / "home")
            # Before anything is timed: it takes longer than a round.
            importlib.import_module("tasks.ingestion.ingest")
            parts[part](given.folder or Path(temporary))


# Frames


def frames(folder: Path) -> None:
    """Print pairs a second of the plain loop, of our reading and writing, and of the command."""
    pairs = folder / "frames"
    draw_frames(pairs, NUM_FRAMES, HEIGHT, WIDTH)
    source = UnityEyesOptions(folder=str(pairs))
    size = statistics.mean(path.stat().st_size for path in pairs.glob("1*.jpg")) / 1000
    print(f"{NUM_FRAMES} frames of {WIDTH}×{HEIGHT} in colour, {size:.0f} KB each")
    _compare(
        {
            "plain Pillow loop, one process": lambda: _plain_loop(pairs, folder / "plain.zarr"),
            "ours, without the orchestrator": lambda: ingest(source, folder / "ours.zarr"),
            "simgan ingest unityeyes, whole command": lambda: _command(
                "ingest", "unityeyes", pairs, "--to", folder / "command.zarr"
            ),
        },
        NUM_FRAMES,
        rounds=3,
    )


def draw_frames(folder: Path, count: int, height: int, width: int) -> None:
    """Render pairs 1 … count in colour, with all cores; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [start for start in range(0, count, 32) if not (folder / f"{start + 32}.jpg").exists()]
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        list(pool.map(partial(_draw_some, folder, count, height, width), todo))


def _draw_some(folder: Path, count: int, height: int, width: int, start: int) -> None:
    scenes = sample_scenes("synthetic", min(32, count - start), seed=0, start=start)
    drawn = render(scenes, "frame", height, width)
    for row, grey in enumerate(drawn.images):
        write_unityeyes_pair(
            folder,
            start + row + 1,
            frame=(grey * SKIN).clip(0, 255).astype(np.uint8),
            look_vec_y_up=scenes.gaze[row] * [1, -1, 1],
            head_pose_deg=to_unityeyes(scenes.head_pose)[row],
            iris_px=drawn.iris_px[row],
            lid_margin_px=drawn.lid_px[row],
            caruncle_px=drawn.caruncle_px[row],
            details={},
        )


def _plain_loop(pairs: Path, to: Path) -> None:
    """Read and write as one would do it first; nothing is checked."""
    images, gaze = [], []
    for number in range(1, NUM_FRAMES + 1):
        document = json.loads((pairs / f"{number}.json").read_text())
        image = Image.open(pairs / f"{number}.jpg").convert("L")
        margin = _points(document["interior_margin_2d"])
        inner = _points(document["caruncle_2d"]).mean(axis=0)
        x, y = (margin.min(axis=0) + margin.max(axis=0)) / 2
        width = 1.5 * np.linalg.norm(margin - inner, axis=1).max()
        height = width * 35 / 55
        left, top = x - width / 2, image.height - y - height / 2
        box = (round(left), round(top), round(left + width), round(top + height))
        images.append(np.asarray(image.crop(box).resize((55, 35), Image.Resampling.BOX)))
        look = np.array([float(x) for x in document["eye_details"]["look_vec"][1:-1].split(",")])
        gaze.append(look[:3] * [1, -1, 1])
    shutil.rmtree(to, ignore_errors=True)
    group = zarr.open_group(to, mode="w")
    group.create_array("images", data=np.stack(images)[..., None], chunks=(1024, 35, 55, 1))
    group.create_array("gaze", data=np.stack(gaze).astype(np.float32), chunks=(16384, 3))


def _points(vectors: list[str]) -> np.ndarray:
    return np.array([[float(x) for x in text[1:-1].split(",")[:2]] for text in vectors])


def ingest(source: SourceOptions, to: Path, rows_per_shard: int = 16384) -> str:
    """Ingest as the flow does, without an orchestrator; returns the digest."""
    # Prefect reads its settings when it is imported, so only after `prepare`.
    from tasks.ingestion.ingest import (  # noqa: PLC0415
        finish_ingestion,
        ingest_shards,
        plan_ingestion,
    )
    from tasks.ingestion.session import sole_ingestion  # noqa: PLC0415

    shutil.rmtree(to, ignore_errors=True)
    with sole_ingestion(source, str(to)) as session:
        plan = plan_ingestion.fn(session, rows_per_shard=rows_per_shard)
        with ThreadPoolExecutor(2) as pool:
            work = [
                pool.submit(ingest_shards.fn, group, session, plan.listing_digest)
                for group in plan.groups
            ]
            for done in work:
                done.result()
        return finish_ingestion.fn(session, 0.01).digest


def _command(*words: object) -> None:
    shutil.rmtree(str(words[-1]), ignore_errors=True)
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def _compare(cases: dict[str, Callable[[], object]], count: int, rounds: int = ROUNDS) -> None:
    """Print the rate of each and its ratio to the first one's, one of each in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, work in cases.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    for name, taken in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(first, taken, strict=True)]
        print(
            f"{name:40} {count / min(taken):9.0f} a second at best, "
            f"{min(first) / min(taken):.2f} times; by rounds "
            f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}",
            flush=True,
        )


# Arrays


def arrays(folder: Path) -> None:
    """Print rows a second of zarr's own writing, from memory and from zarr, and of ingesting."""
    random_rows = np.random.default_rng(0)
    images = random_rows.integers(0, 256, (NUM_ROWS, 35, 55), np.uint8)
    gaze = random_rows.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    pupil = random_rows.uniform(0, 35, (NUM_ROWS, 2)).astype(np.float32)
    named = {"image": images, "gaze": gaze, "pupil": pupil}
    places = _write_array_files(folder / "arrays", named)
    resharded = zarr.open_group(places["zarr"], mode="r")
    cases: dict[str, Callable[[], object]] = {
        "zarr itself, from memory": lambda: _raw_write(folder / "raw.zarr", images, gaze, pupil),
        "zarr itself, from zarr": lambda: _raw_write(
            folder / "raw.zarr", *(resharded[name] for name in named)
        ),
    }
    for kind, place in places.items():
        source = ArraysOptions(file=str(place), images="image", gaze="gaze", pupil="pupil")
        cases[f"ours, from {kind}"] = partial(ingest, source, folder / "ours.zarr")
    _compare(cases, NUM_ROWS)


def _write_array_files(folder: Path, named: dict[str, np.ndarray]) -> dict[str, Path]:
    (folder / "npy").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "eyes.h5", "w") as file:
        group = zarr.open_group(folder / "eyes.zarr", mode="w")
        for name, array in named.items():
            np.save(folder / "npy" / f"{name}.npy", array)
            file[name] = array
            # Other chunks than a dataset's, so that it is sharded anew.
            chunks = (5000, *array.shape[1:])
            group.create_array(name, data=array, chunks=chunks, compressors=None)
    return {"npy": folder / "npy", "h5": folder / "eyes.h5", "zarr": folder / "eyes.zarr"}


def _raw_write(to: Path, images: Any, gaze: Any, pupil: Any) -> None:
    """Write the same arrays, NumPy's or zarr's, by zarr alone, laid out as a dataset's."""
    shutil.rmtree(to, ignore_errors=True)
    spec = DatasetSpec(
        num_rows=NUM_ROWS,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE, PUPIL_PX),
        domain="synthetic",
        source={},
        preprocess="none",
    )
    place = locate(to)
    create_arrays(place, spec)
    values: dict[str, Any] = {
        "images": images,
        "valid": np.ones(NUM_ROWS, bool),
        "id": np.array([str(row) for row in range(NUM_ROWS)], np.dtypes.StringDType()),
        "labels/gaze": gaze,
        "labels/pupil_px": pupil,
    }
    for name, array in open_arrays(place.store(read_only=False), spec).items():
        for shard in range(spec.num_shards):
            rows = spec.shard_rows(shard)
            array[rows.start : rows.stop] = values[name][rows.start : rows.stop].reshape(
                len(rows), *array.shape[1:]
            )


# Memory and kills


def memory(folder: Path) -> None:
    """Print peak memory of ingesting few and many pairs: of a process of its own, and of all."""
    peaks = {}
    for count in (FEW, MANY):
        pairs = link_pairs(folder, count)
        code = (
            "import sys; from pathlib import Path; from benchmarks.ingest import peak; "
            "peak(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        command = [sys.executable, "-c", code, str(pairs), str(folder / "d.zarr")]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - started
        peaks[count] = [int(words) for words in done.stdout.splitlines()[-1].split()]
        own, child, everyone = peaks[count]
        print(f"{count:7} pairs: {own} MB, a decoding process {child} MB, all {everyone} MB, "
              f"{count / seconds:.0f} pairs a second", flush=True)  # fmt: skip
    for name, few, many in zip(MEASURED, *peaks.values(), strict=True):
        print(f"{name}: {many / few - 1:+.1%}")


def peak(pairs: Path, to: Path) -> None:
    """Ingest, and print the peaks of resident memory in MB: of this process and of its largest."""
    prepare(to.parent / "home")
    sizes, over = [(0, 0)], threading.Event()
    sampler = threading.Thread(target=_sample_memory, args=(sizes, over))
    sampler.start()
    ingest(UnityEyesOptions(folder=str(pairs)), to)
    over.set()
    sampler.join()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(own, max(largest for _, largest in sizes), max(of_all for of_all, _ in sizes))


def _sample_memory(sizes: list[tuple[int, int]], over: threading.Event) -> None:
    """Note every 50 ms the memory in MB of this process with its children, and of the largest."""
    this = psutil.Process()
    while not over.wait(0.05):
        found = []
        for child in this.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                # Before it runs a program of its own a child has this process' memory.
                if child.cmdline() != this.cmdline():
                    found.append(child.memory_info().rss >> 20)
        sizes.append((sum(found) + (this.memory_info().rss >> 20), max(found, default=0)))


def link_pairs(folder: Path, count: int) -> Path:
    """Return a folder of pairs 1 … count, of which NUM_DRAWN differ."""
    drawn, pairs = folder / "drawn", folder / f"pairs-{count}"
    if not pairs.exists():
        draw_frames(drawn, NUM_DRAWN, 120, 160)
        pairs.mkdir()
        for number in range(count):
            for suffix in ("jpg", "json"):
                original = drawn / f"{number % NUM_DRAWN + 1}.{suffix}"
                (pairs / f"{number + 1}.{suffix}").hardlink_to(original)
    return pairs


def kills(folder: Path) -> None:
    """Kill the command at NUM_KILLS random moments; print whether the digest is the same."""
    source = UnityEyesOptions(folder=str(link_pairs(folder, FEW)))
    undisturbed = ingest(source, folder / "undisturbed.zarr", KILLED_SHARD)
    to, draw = folder / "killed.zarr", random.Random(0)
    shutil.rmtree(to, ignore_errors=True)
    words = ["ingest", "unityeyes", source.folder, "--to", str(to)]
    words += ["--rows-per-shard", str(KILLED_SHARD)]
    command = [sys.executable, "-m", "flows.cli", *words]
    for num_done in sorted(draw.sample(range(FEW // KILLED_SHARD - 4), NUM_KILLS)):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while _num_records(to) <= num_done and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            print(f"it ended before it had more than {num_done} shards: {process.returncode}")
        # The embedded Prefect server outlives its command, and is of no use to the next one.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    subprocess.run(command, check=True, capture_output=True)
    same = open_dataset(str(to)).info.digest == undisturbed
    print(f"killed {NUM_KILLS} times, {_num_records(to)} shards; the same digest: {same}")


def _num_records(dataset: Path) -> int:
    return len(list((dataset / "records").glob("*/zarr.json")))


if __name__ == "__main__":
    main()
