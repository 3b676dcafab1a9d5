"""Predictions of an arm's estimators on the test set, read from the files of its seeds."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from tasks.comparison.error_metrics import ERROR_METRICS, ErrorMetric, MeasureName, errors_of
from tasks.comparison.people import people_in, person_of
from tasks.comparison.plan import Estimate


@dataclass(frozen=True)
class ArmPredictions:
    """All predictions of an arm: S seeds, N test images in the order of their ids."""

    ids: list[str]
    truth: NDArray[np.float32]
    """[N, …]"""
    predicted: NDArray[np.float32]
    """[S, N, …]"""
    errors: NDArray[np.float64]
    """[S, N] in the measure's unit."""
    within: NDArray[np.float64]
    """[S, N], share of an image's predictions that are right."""
    pseudo_label_errors_deg: tuple[float, ...] = ()
    """Of each seed's estimator, on unlabelled images; empty where the arm is not judged."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Each image's person as a number [N]; None where there are no people to tell apart."""
        people = people_in(self.ids)
        if len(people) < 2:
            return None
        number = {person: index for index, person in enumerate(people)}
        return np.array([number[person_of(sample_id)] for sample_id in self.ids])


def read_predictions(
    estimates: Iterable[Estimate], measure_name: MeasureName
) -> dict[str, ArmPredictions]:
    """Return the predictions of each arm's trainings, joined; arms in the order given.

    Raises InputError where two arms predict on different images: they must not be
    compared.
    """
    measure = ERROR_METRICS[measure_name]
    by_arm: dict[str, dict[int, list[Estimate]]] = {}
    for estimate in estimates:
        by_arm.setdefault(estimate.arm, {}).setdefault(estimate.seed, []).append(estimate)
    predictions = {name: _joined(seeds, measure) for name, seeds in by_arm.items()}
    first = next(iter(predictions))
    for name, found in predictions.items():
        if found.ids != predictions[first].ids:
            raise InputError(
                f"arm {name} predicts on {len(found.ids)} images and arm {first} on other "
                f"{len(predictions[first].ids)}: they are not of one comparison"
            )
    return predictions


def _joined(seeds: dict[int, list[Estimate]], measure: ErrorMetric) -> ArmPredictions:
    """Join the people of every seed, and stack the seeds."""
    parts = [_of_seed(seeds[seed], measure) for seed in sorted(seeds)]
    judged = [each.pseudo_label_error_deg for seed in sorted(seeds) for each in seeds[seed]]
    ids, truth, _ = parts[0]
    predicted = np.stack([each for _, _, each in parts])
    pairs = [errors_of(measure, truth, each) for each in predicted]
    errors, within = (np.stack(values) for values in zip(*pairs, strict=True))
    errors_deg = tuple(each for each in judged if each is not None)
    return ArmPredictions(ids, truth, predicted, errors, within, errors_deg)


def _of_seed(estimates: list[Estimate], measure: ErrorMetric) -> tuple[list[str], Any, Any]:
    kept = [_read(Path(each.path), measure) for each in estimates]
    ids, truth, predicted = (np.concatenate(arrays) for arrays in zip(*kept, strict=True))
    order = np.argsort(ids, kind="stable")
    return ids[order].tolist(), truth[order], predicted[order]


def _read(path: Path, measure: ErrorMetric) -> tuple[Any, Any, Any]:
    with np.load(path) as kept:
        return kept["id"], kept[measure.label], kept["predicted"]
