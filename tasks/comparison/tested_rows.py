"""Rows of the test set that a training is tested on, by protocol."""

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from tasks.comparison.arms import Protocol
from tasks.comparison.people import person_of
from tasks.comparison.plan import Job

_CALIBRATION_SEED = 0
"""Seed for choosing each person's fine-tuning samples. It is fixed, so that every arm and seed is
tested on the same remaining images."""


def tested_rows(ids: list[str], job: Job, protocol: Protocol) -> NDArray[np.intp]:
    """Return the rows of the test set that this training is tested on."""
    if job.person:
        return np.array([row for row, each in enumerate(ids) if person_of(each) == job.person])
    if protocol.name == "fine-tuning":
        calibration = calibration_rows(ids, protocol.samples_per_person)
        return np.setdiff1d(np.arange(len(ids)), np.concatenate(list(calibration.values())))
    return np.arange(len(ids))


def calibration_rows(ids: list[str], num_samples: int) -> dict[str, NDArray[np.intp]]:
    """Draw each person's samples for fine-tuning; they are never tested on.

    Raises InputError where a person would have none left to be tested on.
    """
    chosen: dict[str, NDArray[np.intp]] = {}
    people = np.array([person_of(each) for each in ids])
    for number, person in enumerate(np.unique(people)):
        rows = np.flatnonzero(people == person)
        if len(rows) <= num_samples:
            raise InputError(
                f"person {person} has {len(rows)} test images: fine-tuning on {num_samples} leaves "
                "none to test on; set a smaller --protocol.samples-per-person"
            )
        # In the order of ids, so that the rows' order in the dataset does not matter.
        rows = rows[np.argsort(np.array(ids)[rows], kind="stable")]
        rng = np.random.default_rng([_CALIBRATION_SEED, number])
        chosen[str(person)] = rng.choice(rows, num_samples, replace=False)
    return chosen
