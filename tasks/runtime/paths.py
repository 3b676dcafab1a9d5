"""Paths under SIMGAN_HOME: refiners, comparisons, the embedded MLflow."""

import os
from pathlib import Path


def home() -> Path:
    """The folder named by SIMGAN_HOME, by default `.simgan` in the working directory."""
    return Path(os.environ.get("SIMGAN_HOME", ".simgan")).expanduser().resolve()


def refiner_folder(refiner_id: str) -> Path:
    """Where a refiner's checkpoint and finished weights are kept."""
    return home() / "refiners" / refiner_id


def comparison_folder(comparison_id: str) -> Path:
    """Where a comparison's per-image errors, pictures and report are kept."""
    return home() / "comparisons" / comparison_id
