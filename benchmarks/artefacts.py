"""Benchmark the artefacts that a history and a local adversary are against, where ψ is weak.

    python -m benchmarks.artefacts DIR

Refiners on the built-in domains, long trained and hardly regularised, with and without the history,
with a local and a global adversary: the share of artefacts among the refined images, and a picture
of each. What is done in DIR is not done again.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.built_in_domains import Domains, run_simgan, write_domains
from benchmarks.results_file import ResultsFile
from flows.cli.environment import prepare
from simgan_core.quality.artefacts import PATCH_PX, ArtefactDetector
from simgan_core.quality.kid import KernelDistance
from storage.reader import open_dataset
from tasks.runtime.pictures import png

NUM_SEEDS, NUM_SEARCHED, NUM_SHOWN = 2, 1000, 10
_SIZE = (
    *("--refiner.num-features", 16, "--batch-size", 16, "--steps", 1500),
    *("--discriminator-pretraining-steps", 100, "--stopping.evaluate-every", 0),
    *("--ema-decay", 0, "--cooling", 0, "--regularization.gradient", 0),
)
"""For one core, to the last step, without what else calms a training."""
TRAININGS = {
    "residual": (*("--preset", "stable", "--regularization.identity", 0.1), *_SIZE),
    "paper's": (
        *("--preset", "paper", "--regularization.identity", 0.05, *_SIZE),
        *("--refiner-pretraining-steps", 200, "--refiner-steps-per-round", 1),
        *("--learning-rate", 5e-4),
    ),
}
"""Networks of the presets `stable` and `paper`, with a ψ a twentieth as strong."""
HISTORY = {"history": ("--history-size", 2048), "no history": ("--history-size", 0)}
ADVERSARY = {
    "local": ("--discriminator.scope", "local"),
    "global": ("--discriminator.scope", "global"),
}


def main() -> None:
    """Run what is missing in the folder and print the shares of artefacts."""
    folder = Path(sys.argv[1]).resolve()
    prepare(folder / "home")
    # As a busy machine wants it: a second thread that spins costs more than it computes.
    torch.set_num_threads(1)
    domains = write_domains(folder)
    real = first_images(domains.real)
    detector, distance = ArtefactDetector(real), KernelDistance(torch.from_numpy(real))
    results = ResultsFile(folder / "artefacts.json")
    for name, path in (("synthetic", domains.synthetic), ("other people", domains.test)):
        images = first_images(path)
        results.update({name: figures(images, detector, distance)})
    for network, seed, history, adversary in product(
        TRAININGS, range(NUM_SEEDS), HISTORY, ADVERSARY
    ):
        name = f"{network}, {history}, {adversary}, seed {seed}"
        words = (*TRAININGS[network], *HISTORY[history], *ADVERSARY[adversary], "--seed", seed)
        path = refined(folder, domains, words, name)
        images = first_images(path)
        results.update({name: figures(images, detector, distance)})
        (folder / f"{name}.png").write_bytes(png(sheet(images, detector)))
    for name, values in results.values.items():
        print(name, *(f"{key} {value:.3f}" for key, value in values.items()), sep=", ")


def refined(folder: Path, domains: Domains, words: tuple[object, ...], name: str) -> Path:
    """Return the synthetic dataset as refined by a training with these words, found or made."""
    refiner = run_simgan(
        *("train", "--synthetic", domains.synthetic, "--real", domains.real), *words
    )["refiner"]
    to = folder / f"{name.replace(', ', '-').replace(' ', '-')}.zarr"
    run_simgan("refine", domains.synthetic, "--refiner", refiner, "--to", to)
    return to


def figures(
    images: NDArray[np.uint8], detector: ArtefactDetector, distance: KernelDistance
) -> dict[str, float]:
    """Return the share of artefacts, the median patch's distance by the limit, and the KID.

    The median tells smooth images, whose patches are all near some real one.
    """
    return {
        "artefacts": detector.share(images),
        "median distance": float(np.median(detector.distances(images[:100])) / detector.limit),
        "KID": distance(torch.from_numpy(images)),
    }


def first_images(dataset: Path) -> NDArray[np.uint8]:
    """Return the images that are searched."""
    images = open_dataset(str(dataset)).read(0, NUM_SEARCHED).images
    return images.astype(np.uint8, copy=False)


def sheet(images: NDArray[np.uint8], detector: ArtefactDetector) -> NDArray[np.uint8]:
    """Return a row of the first images and one with their artefacts' middles white."""
    shown = images[:NUM_SHOWN, :, :, 0]
    margin = PATCH_PX // 2
    marked = shown // 2
    inner = marked[:, margin:-margin, margin:-margin]
    inner[detector.distances(images[:NUM_SHOWN]) > detector.limit] = 255
    rows = [np.concatenate(list(row), axis=1) for row in (shown, marked)]
    return np.concatenate(rows).repeat(3, axis=0).repeat(3, axis=1)


if __name__ == "__main__":
    sys.exit(main())
