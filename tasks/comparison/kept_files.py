"""Files of trained estimators: under SIMGAN_HOME, or downloaded from their MLflow run.

Workers on other machines have a SIMGAN_HOME of their own; what they share is MLflow.
"""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from simgan_core.errors import InputError
from tasks.comparison.plan import Estimate, LabelPriorRef, PseudoLabelsRef
from tasks.runtime.paths import home
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import (
    KEY_TAG,
    MissingArtifactError,
    fetch,
    runs_with,
    tracking_uri,
)

PREDICTIONS, WEIGHTS = "answers", "checkpoint"
"""Folders of a training's artifacts."""


def estimate_file(name: str) -> Path:
    """Return where the predictions of a training are kept."""
    return home() / "estimates" / f"{name}.npz"


def weights_file(name: str) -> Path:
    """Return where the estimator of this id is kept."""
    return home() / "estimators" / f"{name}.pt"


def find_estimate(path: Path, weights: Path, run_id: str) -> bool:
    """Find a training's predictions here, or fetch them from its MLflow run; false without any."""
    if path.exists():
        return True
    try:
        _fetch_missing(path, run_id, PREDICTIONS)
    except MissingArtifactError:
        return False
    with suppress(MissingArtifactError):  # other methods than networks have no weights
        _fetch_missing(weights, run_id, WEIGHTS)
    return True


def fetched(estimate: Estimate) -> Estimate:
    """Return an estimate with its files on this machine, downloaded if needed."""
    path = estimate_file(Path(estimate.path).stem)
    _fetch_missing(path, estimate.run_id, PREDICTIONS)
    if estimate.model is None:
        return estimate._replace(path=str(path))
    model = weights_file(Path(estimate.model).stem)
    _fetch_missing(model, estimate.run_id, WEIGHTS)
    return estimate._replace(path=str(path), model=str(model))


def prior_file(prior: LabelPriorRef) -> Path:
    """Return the file of a label prior on this machine, wherever it was estimated."""
    return _file_of(home() / "label_priors" / f"{prior.id}.npz", prior.id)


def pseudo_labels_file(labels: PseudoLabelsRef) -> Path:
    """Return the file of pseudo-labels on this machine, wherever they were predicted."""
    return _file_of(home() / "pseudo_labels" / f"{labels.id}.npz", labels.id)


def _file_of(path: Path, key: str) -> Path:
    """Return a file, fetched from a run of this key where it is not there.

    Commands that began at the same time have a run each, and one may have been killed before it
    logged the file. Raises InputError where no run has it.
    """
    if path.exists():
        return path
    for run in runs_with(COMPARISONS, {KEY_TAG: key}):
        with suppress(MissingArtifactError):
            _fetch_missing(path, run.run_id, "")
            return path
    raise InputError(
        f"MLflow at {tracking_uri()} has no {path.name}, which this machine needs: set "
        "MLFLOW_TRACKING_URI to that of the command, or run the command again"
    )


def _fetch_missing(path: Path, run_id: str, folder: str) -> None:
    """Download an artifact to its place, unless it is there; raises MissingArtifactError."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as scratch:
        artifact = f"{folder}/{path.name}" if folder else path.name
        fetch(run_id, artifact, Path(scratch)).replace(path)
