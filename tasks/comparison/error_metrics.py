"""Error metrics by kind of label: gaze in degrees, hand joints in pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.gaze import angular_error_deg
from simgan_core.stats.bootstrap import joint_errors_px
from storage.schema import DatasetInfo

MeasureName = Literal["gaze", "joints"]


@dataclass(frozen=True)
class ErrorMetric:
    """An error with its unit, and the limit up to which a prediction counts as right."""

    name: MeasureName
    label: str
    """The label of a dataset that it is about, and its name in files of predictions."""
    noun: str
    unit: str
    """As it stands behind a number, with a space where one belongs."""
    limit: float
    error_key: str
    within_key: str

    @property
    def within(self) -> str:
        """The share in words."""
        return f"within {self.limit:g}{self.unit}"

    def with_unit(self, value: float) -> str:
        """Return a value with two decimals and its unit."""
        return f"{value:.2f}{self.unit}"


GAZE = ErrorMetric("gaze", "gaze", "mean angular error", "°", 7.0, "error_deg", "within_7deg")
JOINTS = ErrorMetric(
    "joints", "joints_uvd", "mean joint error", " px", 5.0, "error_px", "joints_within_5px"
)
ERROR_METRICS: dict[MeasureName, ErrorMetric] = {"gaze": GAZE, "joints": JOINTS}


def error_metric_of(infos: Mapping[str, DatasetInfo]) -> ErrorMetric:
    """Return the metric whose label all datasets have; datasets are given by role.

    Raises InputError naming the dataset that lacks a label.
    """
    labels = {role: {label.name for label in info.spec.labels} for role, info in infos.items()}
    for measure in ERROR_METRICS.values():
        if all(measure.label in names for names in labels.values()):
            return measure
    lacking = next(
        (role for role, names in labels.items() if GAZE.label not in names), next(iter(labels))
    )
    raise InputError(
        f"dataset {infos[lacking].url} ({lacking}) has no 'gaze' label (it has: "
        f"{', '.join(sorted(labels[lacking])) or 'none'}), and not all have joints_uvd; ingest it "
        "with its labels"
    )


def errors_of(
    measure: ErrorMetric, truth: NDArray[np.floating[Any]], predicted: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each image's error and its share of right predictions, float64 [N] each.

    An image has one gaze and many joints: its error is their mean distance, its share is of them.
    """
    if measure.name == "gaze":
        errors = angular_error_deg(truth, predicted)
        return errors, (errors <= measure.limit).astype(np.float64)
    distances = joint_errors_px(predicted, truth)
    return distances.mean(axis=1), np.asarray((distances <= measure.limit).mean(axis=1))
