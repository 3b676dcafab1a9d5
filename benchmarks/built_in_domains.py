"""Built-in domains as datasets for benchmarks: some people train, others test.

With few people an interval says more of them than of what was trained on: "real" images are of 60
people, and other 30 people test.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simgan_core.simulator.eyes import render, sample_scenes
from storage.errors import StorageError
from storage.reader import open_dataset

NUM_IMAGES = 6000
SYNTHETIC_SEED = 1
REAL_SEEDS, TEST_SEEDS = (2, 3, 4, 5), (6, 7)
"""Each seed of the simulator is of 15 people of its own."""


class Domains(NamedTuple):
    """Places of the three datasets: 6,000 synthetic eyes, 6,000 "real" ones, 3,000 to test."""

    synthetic: Path
    real: Path
    test: Path


def write_domains(folder: Path) -> Domains:
    """Render and ingest what is not in `folder` yet; equalised, as MPIIGaze's images are."""
    domains = Domains(*(folder / f"{name}.zarr" for name in Domains._fields))
    if all(is_complete(dataset) for dataset in domains):
        return domains
    frames = folder / "frames"
    run_simgan(
        *("simulate", "synthetic", "--out", frames),
        *("--count", NUM_IMAGES, "--seed", SYNTHETIC_SEED),
    )
    run_simgan("ingest", "unityeyes", frames, "--to", domains.synthetic, "--preprocess", "equalize")
    for dataset, seeds in ((domains.real, REAL_SEEDS), (domains.test, TEST_SEEDS)):
        arrays = dataset.with_suffix(".npz")
        if not arrays.exists():
            _write_people(arrays, seeds, NUM_IMAGES // len(REAL_SEEDS))
        run_simgan(
            *("ingest", "arrays", arrays, "--to", dataset, "--domain", "real"),
            *("--images", "image", "--gaze", "gaze", "--id", "id", "--person", "person"),
            *("--preprocess", "equalize"),
        )
    return domains


def is_complete(dataset: Path) -> bool:
    """Return whether a whole dataset is there."""
    try:
        open_dataset(str(dataset))
    except StorageError:
        return False
    return True


def run_simgan(*words: object) -> dict[str, Any]:
    """Run a command to its end, its log shown; returns what it found."""
    command = [sys.executable, "-m", "flows.cli", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _write_people(path: Path, seeds: tuple[int, ...], count: int) -> None:
    """Write `count` real eyes of the 15 people of each seed, right ones mirrored."""
    parts = [sample_scenes("real", count, seed) for seed in seeds]
    images = np.concatenate([render(scenes, "crop", 35, 55).images[..., 0] for scenes in parts])
    gaze = np.concatenate([scenes.gaze for scenes in parts])
    mirrored = np.concatenate([scenes.is_right for scenes in parts])
    images[mirrored] = images[mirrored, :, ::-1]
    gaze[mirrored, 0] *= -1
    person = [f"p{seed}-{who:02d}" for seed, part in zip(seeds, parts, strict=True)
              for who in part.person]  # fmt: skip
    names = [f"{path.stem}-{row:05d}" for row in range(len(images))]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, image=images, gaze=gaze, person=np.array(person), id=np.array(names))
    partial.replace(path)
