"""Measure how many images a second the simulator renders on one core.

    python benchmarks/simulate.py

Rendering is numpy without threads; the BLAS behind its matrix products is held to one by the
environment variables set here, before numpy is loaded. Prints the best of five runs.
"""

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import time

from simgan_core.simulator.eyes import Domain, Framing, render, sample_scenes

CASES: list[tuple[Domain, Framing, int, int]] = [
    ("synthetic", "crop", 35, 55),
    ("real", "crop", 35, 55),
    ("real", "crop", 36, 60),
    ("synthetic", "frame", 120, 160),
]


def main() -> None:
    """Print the rate of every case."""
    for domain, framing, height, width in CASES:
        rate = max(images_per_second(domain, framing, height, width) for _ in range(5))
        print(f"{domain:9} {framing:5} {height:3}×{width:3}: {rate:6.0f} images/s on one core")


def images_per_second(
    domain: Domain, framing: Framing, height: int, width: int, count: int = 256
) -> float:
    """Return the rate of sampling and rendering `count` scenes."""
    started = time.perf_counter()
    render(sample_scenes(domain, count, seed=0), framing, height, width)
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
