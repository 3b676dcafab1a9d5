"""Benchmark the paper's second experiment on the built-in hands: depth images, K_g = 2.

    python -m benchmarks.hands DIR [--refiners N]

Synthetic hands are clean depth; "real" ones are other people's, as a structured-light sensor sees
them, 15 people to train towards and 15 others to test on. By the commands that a user has:
simulate, ingest, train, refine, compare; and how the images look: ragged contours, noise. What is
done in DIR is not done again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.built_in_domains import is_complete, run_simgan
from benchmarks.results_file import ResultsFile
from flows.cli.environment import prepare
from simgan_core.config import EstimatorConfig
from simgan_core.simulator.hands import CUBE_MM
from simgan_core.stats.bootstrap import joint_errors_px
from storage.reader import open_dataset
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.estimate import find_estimates
from tasks.comparison.planning import plan_comparison
from tasks.comparison.predictions import read_predictions
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.pictures import png

DATASETS = {
    "synthetic": ("synthetic", 3000, 1),
    "real": ("real", 2000, 2),
    "test": ("real", 1000, 3),
}
"""Domain, frames and seed of each dataset; each seed of "real" hands is of people of its own."""
SIZE = "64x64"
TRAINING = (
    *("--preset", "hand", "--refiner.num-features", 32, "--refiner.num-blocks", 4),
    *("--refiner.kernel-size", 3, "--refiner.residual", "--refiner-pretraining-steps", 0),
    *("--discriminator.architecture", "eyes", "--batch-size", 16, "--learning-rate", 3e-4),
    *("--steps", 600, "--stopping.evaluate-every", 100, "--stopping.num-images", 250),
)
"""The preset at a size for one core. The discriminator for eyes has patches of 23 pixels, as great
a part of 64 as the 71 pixels of the one for hands are of 224."""
COMPARISON = ComparisonConfig(
    arms=("synthetic", "synthetic_augmented", "refined", "real"), methods=(), shares=()
)
ESTIMATOR = EstimatorConfig(
    architecture="hourglass", num_features=32, steps=400, batch_size=16, learning_rate=2e-3
)
NUM_SEEDS = 2
"""Estimators of each arm."""
WITHIN_PX, OF_PX = 5, 224
"""Limit of a right joint in the paper's images, and their width."""
NUM_SHOWN = 10
FAR = np.iinfo(np.uint16).max
NOTHING = 0.97
"""Depth beyond which there is nothing, as a part of the cube: refined backgrounds are not flat."""


def main() -> None:
    """Run what is missing in the folder and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--refiners", type=int, default=1, help="seeds of the refiner")
    options = parser.parse_args()
    folder = options.folder.resolve()
    prepare(folder / "home")
    # As a busy machine wants it: a second thread that spins costs more than it computes.
    torch.set_num_threads(1)
    results = ResultsFile(folder / "results.json")
    for name, (domain, count, seed) in DATASETS.items():
        write_hands(folder, name, domain, count, seed)
    for name in DATASETS:
        results.update({f"looks, {name}": looks(folder / f"{name}.zarr")})
    for seed in range(options.refiners):
        refined = folder / f"refined-{seed}.zarr"
        found = compare(folder, refined, seed)
        results.update({f"looks, refined {seed}": looks(refined), f"errors {seed}": found})
        (folder / f"hands-{seed}.png").write_bytes(png(sheet(folder, refined)))
    for name, values in results.values.items():
        print(name, *(f"{key} {value}" for key, value in values.items()), sep="\n    ")


def write_hands(folder: Path, name: str, domain: str, count: int, seed: int) -> None:
    """Render and ingest one dataset, unless it is there."""
    if is_complete(folder / f"{name}.zarr"):
        return
    frames = folder / "frames" / name
    run_simgan(
        *("simulate", "hand", "--domain", domain, "--out", frames),
        *("--count", count, "--seed", seed),
    )
    run_simgan(
        *("ingest", "nyu-hand", frames, "--labels", frames / "labels.txt", "--domain", domain),
        *("--size", SIZE, "--to", folder / f"{name}.zarr"),
    )


def compare(folder: Path, refined: Path, seed: int) -> dict[str, str]:
    """Train a refiner, refine, and compare; return each arm's error and share, and differences."""
    synthetic, real, test = (folder / f"{name}.zarr" for name in DATASETS)
    words = ("--synthetic", synthetic, "--real", real)
    refiner = run_simgan("train", *words, *TRAINING, "--seed", seed)["refiner"]
    run_simgan("refine", synthetic, "--refiner", refiner, "--to", refined)
    changed = ESTIMATOR.model_dump(exclude_defaults=True)
    found = run_simgan(
        *("compare", *words, "--refined", refined, "--test", test, "--seeds", NUM_SEEDS),
        *("--empty-methods", "--empty-shares"),
        *(
            word
            for name, value in changed.items()
            for word in (f"--{name.replace('_', '-')}", value)
        ),
        *(word for arm in COMPARISON.arms for word in ("--arms", arm)),
    )
    shares = fine_shares(synthetic, real, refined, test)
    lines = {}
    for name, each in found["arms"].items():
        low, high = each["ci95"]
        lines[name] = (
            f"{each['error_px']:.2f} px ({low:.2f} to {high:.2f}), "
            f"{each['joints_within_5px']:.1%} within 5 px, {shares[name]:.1%} within 5 px of 224"
        )
    for name, each in found["differences"].items():
        low, high = each["ci95"]
        lines[name] = f"{each['error_px']:+.2f} px ({low:+.2f} to {high:+.2f})"
    return lines


def fine_shares(synthetic: Path, real: Path, refined: Path, test: Path) -> dict[str, float]:
    """Return each arm's share of joints within the limit, scaled to the images' width."""
    plan = plan_comparison.fn(
        DatasetCache(),
        synthetic=str(synthetic),
        refined=str(refined),
        real=str(real),
        test=str(test),
        seeds=NUM_SEEDS,
        estimator=ESTIMATOR,
        config=COMPARISON,
    )
    limit_px = WITHIN_PX / OF_PX * open_dataset(str(test)).info.spec.width
    return {
        name: float(
            np.mean([joint_errors_px(each, arm.truth) <= limit_px for each in arm.predicted])
        )
        for name, arm in read_predictions(find_estimates.fn(plan).values(), "joints").items()
    }


def looks(dataset: Path) -> dict[str, float]:
    """Return what a sensor changes in images of hands, means over a dataset's first 1,000.

    contour: steps between hand and nothing from a pixel to the next, by the root of the hand's
    pixels; holes: share of pixels without depth among those with depth on two opposite sides;
    roughness: mean second difference of depth along rows on the hand, below 30 mm, in mm.
    """
    images = np.asarray(open_dataset(str(dataset)).read(0, 1000).images[..., 0], np.int64)
    hand = images < NOTHING * FAR
    steps = (hand[:, 1:] != hand[:, :-1]).sum((1, 2)) + (hand[:, :, 1:] != hand[:, :, :-1]).sum(
        (1, 2)
    )
    enclosed = _between(hand, 1) | _between(hand, 2)
    second = np.abs(np.diff(images * (CUBE_MM / FAR), n=2, axis=2))
    inside = hand[:, :, 2:] & hand[:, :, 1:-1] & hand[:, :, :-2] & (second < 30)
    return {
        "contour": float((steps / np.sqrt(hand.sum((1, 2)))).mean()),
        "holes": float((enclosed & ~hand).sum() / (enclosed | hand).sum()),
        "roughness_mm": float(second[inside].mean()),
    }


def _between(hand: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Return which pixels have a pixel of the hand on either side, next to them, along an axis."""
    before, after = np.roll(hand, 1, axis), np.roll(hand, -1, axis)
    return before & after


def sheet(folder: Path, refined: Path) -> NDArray[np.uint8]:
    """Return a row of hands as they are, one of the same refined, and one of real ones."""
    rows = [
        np.concatenate(list(_shown(path)), axis=1)
        for path in (folder / "synthetic.zarr", refined, folder / "real.zarr")
    ]
    return np.concatenate(rows, axis=0).repeat(2, axis=0).repeat(2, axis=1)


def _shown(dataset: Path) -> NDArray[np.uint8]:
    images: NDArray[Any] = open_dataset(str(dataset)).read(0, NUM_SHOWN).images[..., 0]
    return (images >> 8).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
