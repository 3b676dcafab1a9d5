"""Speed of what a comparison computes, and the order of the arms on the built-in domains.

python -m benchmarks.evaluate speed      # training against a plain loop; k-NN at full size
python -m benchmarks.evaluate order DIR  # synthetic, refined, real.zarr, test.zarr in DIR
"""

import json
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from simgan_core.config import EstimatorConfig
from simgan_core.estimator import build_estimator
from simgan_core.estimator_training import train_estimator
from simgan_core.images import to_network
from tasks.methods import predict_by

PAPER = EstimatorConfig(architecture="paper", steps=4, batch_size=512, validation_share=0)


def speed() -> None:
    """Print images a second of the paper's network, and seconds of k-NN."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4096, 35, 55, 1), dtype=np.uint8)
    gaze = rng.normal(0, 0.2, (4096, 3)).astype(np.float32) - np.array([0, 0, 1], np.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(3):
        rates["plain"].append(_plain_rate(images, gaze, device))
        rates["ours"].append(_our_rate(images, gaze, device))
    plain, ours = (max(rates[name]) for name in ("plain", "ours"))
    print(f"paper's network on {device}, images a second, best of 3 in turn: plain fp32 DataLoader")
    print(f"loop {plain:.0f}, ours {ours:.0f}: {ours / plain:.1f} times")
    many = rng.integers(0, 256, (100_000, 35, 55, 1), dtype=np.uint8)
    labels = rng.normal(0, 0.2, (100_000, 3)) - [0, 0, 1]
    started = time.perf_counter()
    predict_by("knn", many, labels, images[:3000], seed=0)
    print(f"k-NN, 100,000 images and 3,000 tests: {time.perf_counter() - started:.1f} s")


def _plain_rate(images: np.ndarray, gaze: np.ndarray, device: str) -> float:
    """A loop as one writes it first: floats in a DataLoader, NCHW, fp32, no changes of the crop."""
    floats = to_network(torch.from_numpy(images)).contiguous()
    targets = nn.functional.normalize(torch.from_numpy(gaze), dim=1)
    loader = DataLoader(TensorDataset(floats, targets), batch_size=512, shuffle=True)
    network = build_estimator(PAPER, 35, 55, 1).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    started = time.perf_counter()
    for step, (batch, truth) in enumerate(loader, 1):
        optimizer.zero_grad()
        loss = ((network(batch.to(device)) - truth.to(device)) ** 2).mean()
        loss.backward()
        optimizer.step()
        loss.item()
        if step == PAPER.steps:
            break
    return PAPER.steps * 512 / (time.perf_counter() - started)


def _our_rate(images: np.ndarray, gaze: np.ndarray, device: str) -> float:
    started = time.perf_counter()
    train_estimator(PAPER, torch.from_numpy(images).to(device), gaze, seed=0)
    return PAPER.steps * 512 / (time.perf_counter() - started)


def order(folder: str) -> None:
    """Print the comparison of the datasets in a folder: is real < refined < synthetic."""
    places = [f"--{name}={folder}/{name}.zarr" for name in ("synthetic", "refined", "real", "test")]
    arms = ["--arms", "synthetic", "refined", "real", "--empty-methods", "--seeds", "5"]
    command = [sys.executable, "-m", "flows.cli", "compare", *places, *arms, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout)
    for name, arm in result["arms"].items():
        print(name, f"{arm['error_deg']:.2f}", "to".join(f" {end:.2f} " for end in arm["ci95"]))
    for name, each in result["differences"].items():
        print(name, f"{each['error_deg']:+.2f}", "to".join(f" {end:+.2f} " for end in each["ci95"]))


if __name__ == "__main__":
    order(sys.argv[2]) if sys.argv[1] == "order" else speed()
