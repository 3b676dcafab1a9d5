"""What computes, and its bf16 matrix rate: `python -m benchmarks.gpu.machine --json FILE`."""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from benchmarks.results_file import ResultsFile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PACKAGES = ("torch", "triton", "numpy", "pydantic", "zarr", "prefect", "mlflow")
REPEATS, ROUNDS = 20, 6


def main() -> None:
    """Record the device, its driver, versions, and the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--size", type=int, default=8192, help="side of the matrices")
    asked = parser.parse_args()
    results = ResultsFile(asked.json)
    results.update(
        {
            "kind": DEVICE,
            "num_cores": os.cpu_count(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PACKAGES},
            "commit": _first_line("git", "rev-parse", "HEAD"),
        }
    )
    if DEVICE == "cuda":
        properties = torch.cuda.get_device_properties(0)
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        results.update(
            {
                "device": properties.name,
                "memory_gib": properties.total_memory / 2**30,
                "driver": _first_line(*query),
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
            }
        )
    rates = _matrix_rates(asked.size)
    results.update({"bf16_matrix_tflops": max(rates), "bf16_matrix_tflops_by_rounds": rates})


def _matrix_rates(size: int) -> list[float]:
    """Return TFLOP/s of square products in bf16 by rounds, without the first, which warms up."""
    a, b = (torch.randn(size, size, device=DEVICE).to(torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(REPEATS):
            torch.mm(a, b)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * size**3 * REPEATS / (time.perf_counter() - started) / 1e12)
    return rates[1:]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.partition("\n")[0]


if __name__ == "__main__":
    main()
