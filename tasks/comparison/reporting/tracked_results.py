"""Results from tracking: comparisons rebuilt from MLflow alone."""

import logging
import tempfile
from pathlib import Path

from pydantic import ValidationError

from simgan_core.errors import InputError
from tasks.comparison.criterion import PSEUDO_LABEL_ERROR
from tasks.comparison.plan import Comparison, Estimate
from tasks.comparison.predictions import read_predictions
from tasks.comparison.reporting.analysis import results_from_predictions
from tasks.comparison.reporting.results import PupilShift, Results
from tasks.runtime.tracking.runs import (
    KEY_TAG,
    KeptRun,
    MissingArtifactError,
    UnknownExperimentError,
    fetch,
    runs_with,
)

logger = logging.getLogger(__name__)


def results_from_tracking(experiment: str) -> list[Results]:
    """Recompute all results from the predictions that an MLflow experiment keeps, oldest first.

    Comparisons that did not come to their end are left out, and those that another release planned,
    with a warning. Raises InputError where there is no such experiment, or no comparison in it.
    """
    try:
        parents = runs_with(experiment, {"stage": "comparison"})
    except UnknownExperimentError as error:
        raise InputError(str(error)) from None
    found = [
        _results(experiment, comparison, run)
        for run in parents
        if run.status == "FINISHED" and (comparison := _comparison(run)) is not None
    ]
    if not found:
        raise InputError(
            f"MLflow's experiment {experiment} has no finished comparison ({len(parents)} begun); "
            "make one with simgan compare"
        )
    return found


def _results(experiment: str, comparison: Comparison, parent: KeptRun) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        children = runs_with(experiment, {"stage": "evaluate", "simgan.comparison": comparison.id})
        estimates = {_key(run): _estimate(run, Path(folder)) for run in children}
        # In the order in which they were planned, so that the table has the order it had.
        order = [(job.arm.name, job.seed, job.person) for job in comparison.jobs]
        missing = [key for key in order if key not in estimates]
        if missing:
            raise InputError(
                f"MLflow lacks {len(missing)} of {len(order)} trainings of {comparison.id}, the "
                f"first of them {missing[0]}: run the comparison again, it goes on where it was"
            )
        predictions = read_predictions([estimates[key] for key in order], comparison.measure)
    return results_from_predictions(comparison, predictions, pupil_shift(parent))


def _comparison(parent: KeptRun) -> Comparison | None:
    """Read the plan of a comparison; None, with a warning, of one that another release planned."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = fetch(parent.run_id, "comparison.json", Path(folder))
            return Comparison.model_validate_json(path.read_text("utf-8"))
    except (MissingArtifactError, ValidationError):
        logger.warning(
            "%s is of another release and is left out: run the comparison again to have it here",
            parent.tags[KEY_TAG],
        )
        return None


def _key(run: KeptRun) -> tuple[str, int, str]:
    person = run.tags["person"]
    return run.tags["arm"], int(run.tags["seed"]), "" if person == "all" else person


def _estimate(run: KeptRun, folder: Path) -> Estimate:
    own = folder / run.run_id
    own.mkdir()
    (path,) = fetch(run.run_id, "answers", own).iterdir()
    arm, seed, person = _key(run)
    judged = run.metrics.get(PSEUDO_LABEL_ERROR)
    return Estimate(arm, seed, person, str(path), None, float("nan"), pseudo_label_error_deg=judged)


def pupil_shift(parent: KeptRun) -> PupilShift | None:
    """Read the pupil shift from a comparison's run; None if it was not measured."""
    figures = {
        name: parent.metrics.get(f"pupil_shift_px.{name}") for name in PupilShift.model_fields
    }
    return None if None in figures.values() else PupilShift.model_validate(figures)
