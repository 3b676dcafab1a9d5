"""Benchmark a comparison: speed of its parts, and the order of the arms on the built-in domains.

python -m benchmarks.evaluate speed      # training against a plain loop
python -m benchmarks.evaluate knn        # k-NN at full size
python -m benchmarks.evaluate landmarks  # eye landmarks, against one image after another
python -m benchmarks.evaluate order DIR  # rendered, refined and compared in DIR
"""

import argparse
import subprocess
import sys
import time
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.built_in_domains import run_simgan, write_domains
from benchmarks.results_file import ResultsFile
from simgan_core.config import EstimatorConfig
from simgan_core.data.images import to_network
from simgan_core.estimation.gaze_training import train_estimator
from simgan_core.landmarks.model import LandmarkModel
from simgan_core.landmarks.network import means_and_spreads, to_canvas
from simgan_core.models.estimator import build_estimator

PAPER = EstimatorConfig(architecture="paper", steps=4, batch_size=512, validation_share=0)
ROUNDS = 5
NUM_IMAGES = 4096
NUM_THREADS = torch.get_num_threads()


def speed(rounds: int, steps: int, num_images: int, results: ResultsFile) -> None:
    """Print images a second in training the paper's network.

    Each loop has a process of its own, so that what one sets holds for it alone; in turn, so that
    a busy machine is busy for both.
    """
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    sizes = ["--steps", str(steps), "--images", str(num_images)]
    for _ in range(rounds):
        for loop, found in rates.items():
            command = [sys.executable, "-m", "benchmarks.evaluate", loop, *sizes]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append(float(done.stdout))
            results.update({"images_a_second": rates})
    for loop, found in rates.items():
        print(f"paper's network, {loop}, images a second:", *(f"{rate:.0f}" for rate in found))
    ratios = np.divide(rates["ours"], rates["plain"])
    print(
        f"ours, times the plain fp32 DataLoader loop: median of pairs {np.median(ratios):.2f} "
        f"({ratios.min():.2f} to {ratios.max():.2f}), "
        f"best by best {max(rates['ours']) / max(rates['plain']):.2f}"
    )
    results.update({"ratio": float(np.median(ratios))})


def knn() -> None:
    """Print the seconds of k-NN at full size."""
    # Here, since it brings half the orchestration with it.
    from tasks.comparison.classical_baselines import predict_by  # noqa: PLC0415

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100_000, 35, 55, 1), dtype=np.uint8)
    labels = rng.normal(0, 0.2, (100_000, 3)) - [0, 0, 1]
    started = time.perf_counter()
    predict_by("knn", images, labels, images[:3000], seed=0)
    print(f"k-NN, 100,000 images and 3,000 tests: {time.perf_counter() - started:.1f} s")


def landmarks(rounds: int, num_images: int) -> None:
    """Print images a second in finding eye landmarks, by numbers of threads, in turn."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 35, 55, 1), dtype=np.uint8)
    model = LandmarkModel.load()

    @torch.no_grad()
    def plain() -> None:
        for image in images:
            pixels = torch.from_numpy(image[None])
            means_and_spreads(model.network(to_canvas(to_network(pixels))))

    ways = {
        "plain loop, 1 thread": (1, plain),
        "ours, 1 thread": (1, lambda: model.predict(images)),
        f"ours, {NUM_THREADS} threads": (NUM_THREADS, lambda: model.predict(images)),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (num_threads, run) in ways.items():
            torch.set_num_threads(num_threads)
            begun = time.perf_counter()
            run()
            rates[way].append(num_images / (time.perf_counter() - begun))
    plain_rates = np.array(rates["plain loop, 1 thread"])
    for way, found in rates.items():
        ratio = np.median(np.array(found) / plain_rates)
        print(
            f"landmarks, {way}, images a second:",
            *(f"{rate:.0f}" for rate in found),
            f"({ratio:.2f} times plain, median of pairs)",
        )


def rate_of(loop: str, steps: int, num_images: int) -> None:
    """Print the images a second of one loop, "plain" or "ours", its first step left out."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (num_images, 35, 55, 1), dtype=np.uint8))
    gaze = rng.normal(0, 0.2, (num_images, 3)).astype(np.float32) - np.array([0, 0, 1], np.float32)
    # A batch takes no more images than there are.
    config = PAPER.model_copy(
        update={"steps": steps, "batch_size": min(PAPER.batch_size, num_images)}
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times: list[float] = []
    if loop == "plain":
        _train_plainly(config, images, gaze, device, times)
    else:
        train_estimator(
            config,
            images.to(device),
            gaze,
            seed=0,
            on_progress=lambda _step, _total, _loss: times.append(time.perf_counter()),
        )
    print((len(times) - 1) * config.batch_size / (times[-1] - times[0]))


def _train_plainly(
    config: EstimatorConfig,
    images: torch.Tensor,
    gaze: np.ndarray,
    device: str,
    times: list[float],
) -> None:
    """A loop as one writes it first: floats in a DataLoader, NCHW, fp32, no changes of the crop."""
    floats = to_network(images).contiguous()
    targets = nn.functional.normalize(torch.from_numpy(gaze), dim=1)
    loader = DataLoader(TensorDataset(floats, targets), batch_size=config.batch_size, shuffle=True)
    network = build_estimator(config, 35, 55, 1).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for batch, truth in islice(chain.from_iterable(repeat(loader)), config.steps):
        optimizer.zero_grad()
        loss = ((network(batch.to(device)) - truth.to(device)) ** 2).mean()
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter())


def order(folder: str) -> None:
    """Print the comparison on the built-in domains: is real < refined < synthetic, are 4× better.

    Datasets that are there already are used again.
    """
    place = Path(folder)
    synthetic, real, test = write_domains(place)
    domains = ("--synthetic", synthetic, "--real", real)
    refiner = run_simgan("train", *domains, "--preset", "demo")["refiner"]
    refined = place / "refined.zarr"
    run_simgan("refine", synthetic, "--refiner", refiner, "--to", refined)
    arms = [f"--arms={name}" for name in ("synthetic", "refined", "real")]
    shares = [f"--shares={share}" for share in (1 / 16, 1 / 4)]
    tested = ("--refined", refined, "--test", test)
    result = run_simgan(
        *("compare", *domains, *tested, *arms, *shares, "--empty-methods", "--seeds=5"),
        "--architecture=compact",  # as in docs/benchmarks.md
    )
    for name, arm in result["arms"].items():
        print(name, f"{arm['error_deg']:.2f}", "to".join(f" {end:.2f} " for end in arm["ci95"]))
    for name, each in result["differences"].items():
        print(name, f"{each['error_deg']:+.2f}", "to".join(f" {end:+.2f} " for end in each["ci95"]))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["order", "speed", "knn", "landmarks", "plain", "ours"])
    parser.add_argument("folder", nargs="?", help="of the datasets of order")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of speed and landmarks")
    parser.add_argument("--steps", type=int, default=PAPER.steps, help="a loop of speed")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="of speed and landmarks")
    parser.add_argument("--json", type=Path, help="file for the results of speed")
    asked = parser.parse_args()
    match asked.what:
        case "order":
            order(asked.folder)
        case "speed":
            speed(asked.rounds, asked.steps, asked.images, ResultsFile(asked.json))
        case "knn":
            knn()
        case "landmarks":
            landmarks(asked.rounds, asked.images)
        case loop:
            rate_of(loop, asked.steps, asked.images)


if __name__ == "__main__":
    main()
