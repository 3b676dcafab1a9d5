"""Benchmark the realism of a finished demo's refined images against that of other real people.

    python -m benchmarks.demo_realism .simgan/demo/seed-0

Both figures have a floor that is not that of images of one kind: real people differ. So the KID of
refined from real images stands beside that of two halves of the real people and of the people to
test on, and the classifier's accuracy beside that on the people to test on.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.quality.kid import KernelDistance
from simgan_core.quality.label_drift import classifier_accuracy
from storage.reader import open_dataset

Pixels = NDArray[np.uint8]

NUM_IMAGES = 1000
NUM_HALVES = 24
"""Random divisions of the real people into halves."""
CLASSIFIERS = {"as in validation": (250, 60), "harder": (1000, 200)}
"""Images of a kind and training steps of the classifier."""


def main() -> None:
    """Print the figures of one demo's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that simgan demo wrote its datasets to")
    folder = parser.parse_args().demo
    for name, value in measure(folder).items():
        print(f"{name}: {value:.3f}")


def measure(folder: Path) -> dict[str, float]:
    """Return KIDs and classifier accuracies by name."""
    blocks = {
        name: open_dataset(str(folder / f"{name}.zarr")).load()
        for name in ("synthetic", "refined", "real", "test")
    }
    random = np.random.default_rng(0)
    images: dict[str, Pixels] = {
        name: np.asarray(block.images)[random.permutation(len(block.images))]
        for name, block in blocks.items()
    }
    to_real = KernelDistance(torch.from_numpy(images["real"][:NUM_IMAGES]))
    results = {
        f"KID, {name} to real": to_real(torch.from_numpy(images[name][:NUM_IMAGES]))
        for name in ("synthetic", "refined", "test")
    }
    people = np.array([name.split("/")[0] for name in blocks["real"].ids])
    results["KID, halves of the real people"] = _kid_of_halves(
        blocks["real"].images, people, random
    )
    for name in ("synthetic", "refined", "test"):
        for how, (count, steps) in CLASSIFIERS.items():
            accuracy = classifier_accuracy(images[name][:count], images["real"][:count], 0, steps)
            results[f"classifier {how}, {name} from real"] = accuracy
    return results


def _kid_of_halves(images: Pixels, people: NDArray[np.str_], random: np.random.Generator) -> float:
    """Return the mean KID between the images of one random half of the people and of the other."""
    names = np.unique(people)
    kids = []
    for _ in range(NUM_HALVES):
        first = np.isin(people, random.permutation(names)[: len(names) // 2])
        halves = (images[first], images[~first])
        one, other = (
            torch.from_numpy(half[random.permutation(len(half))[:NUM_IMAGES]]) for half in halves
        )
        kids.append(KernelDistance(one)(other))
    return float(np.mean(kids))


if __name__ == "__main__":
    main()
