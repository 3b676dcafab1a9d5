"""Resolve a refiner: an id, an MLflow model URI or a checkpoint path."""

import tempfile
from pathlib import Path

from simgan_core.errors import InputError
from simgan_core.models.checkpoint import LoadedRefiner, load_refiner
from tasks.runtime.paths import home, refiner_folder
from tasks.runtime.tracking.runs import UnknownModelError, download_refiner, version_of_alias


def open_refiner(refiner: str) -> LoadedRefiner:
    """Load a refiner by its id, MLflow model URI or path."""
    if refiner.startswith(("models:/", "runs:/")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                return load_refiner(download_refiner(refiner, Path(folder)))
            except UnknownModelError as error:
                raise InputError(f"MLflow gives no refiner for {refiner}: {error}") from None
    by_id = refiner_folder(refiner) / "refiner.pt"
    if by_id.exists():
        return load_refiner(by_id)
    path = Path(refiner)
    if path.is_file():
        return load_refiner(path)
    raise InputError(
        f"no refiner {refiner}: expected an id under {home() / 'refiners'}, an MLflow model URI "
        "(models:/refiner@champion, models:/refiner/3, runs:/RUN_ID), the path of a refiner.pt; "
        "refine also takes an ONNX model (.onnx), an exported program (.pt2), a folder of images"
    )


def fixed_refiner(refiner: str) -> str:
    """Return a name of the same refiner from now on: of an alias, which moves, its version."""
    if not (refiner.startswith("models:/") and "@" in refiner):
        return refiner
    try:
        return version_of_alias(refiner)
    except UnknownModelError as error:
        raise InputError(f"MLflow gives no refiner for {refiner}: {error}") from None
