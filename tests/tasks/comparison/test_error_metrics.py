"""Errors in degrees and in pixels, and which of them datasets can be tested by."""

from types import SimpleNamespace

import numpy as np
import pytest

from simgan_core.errors import InputError
from tasks.comparison.error_metrics import GAZE, JOINTS, error_metric_of, errors_of


def info(*labels: str) -> SimpleNamespace:
    named = [SimpleNamespace(name=label) for label in labels]
    return SimpleNamespace(url="there.zarr", spec=SimpleNamespace(labels=named))


def test_gaze_errors_are_angles_and_right_within_7_degrees() -> None:
    angles = np.radians([0.0, 6.9, 7.1, 90.0])
    predicted = np.stack([np.sin(angles), np.zeros(4), -np.cos(angles)], axis=1)
    errors, within = errors_of(GAZE, np.tile([0.0, 0, -1], (4, 1)), predicted)
    assert errors == pytest.approx([0, 6.9, 7.1, 90], abs=1e-3)
    assert within.tolist() == [1, 1, 0, 0]


def test_joint_errors_are_means_of_an_image_and_shares_of_its_joints() -> None:
    truth = np.zeros((1, 2, 3))
    predicted = np.array([[[3.0, 4, 0], [0, 12, 0]]])
    errors, within = errors_of(JOINTS, truth, predicted)
    assert errors.tolist() == [8.5]
    assert within.tolist() == [0.5]


def test_the_metric_is_that_of_a_label_which_all_datasets_have() -> None:
    assert error_metric_of({"test": info("gaze", "joints_uvd"), "train": info("joints_uvd")}) is (
        JOINTS
    )
    assert error_metric_of({"test": info("gaze"), "train": info("gaze", "joints_uvd")}) is GAZE


def test_a_dataset_without_labels_is_named_with_what_it_has() -> None:
    with pytest.raises(InputError, match=r"there.zarr \(train\) has no 'gaze' label .*head_pose"):
        error_metric_of({"test": info("gaze"), "train": info("head_pose")})
