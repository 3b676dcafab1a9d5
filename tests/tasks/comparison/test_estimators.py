"""Estimators by content: what names them, and what is found instead of trained again."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from storage.reader import open_dataset
from tasks.comparison.estimators import (
    TrainingSamples,
    estimator_id,
    log_progress,
    plain_estimator_id,
    poses,
    trained_estimator,
    with_number_format,
)
from tasks.comparison.kept_files import weights_file
from tasks.comparison.plan import Arm

QUICK = EstimatorConfig(steps=2, batch_size=8, precision="fp32")


def samples_of(dataset: str) -> TrainingSamples:
    block = open_dataset(dataset).load()
    return TrainingSamples(block.images, block.labels)


def test_an_id_follows_from_content_and_not_from_names_and_places(
    eyes: dict[str, str], tmp_path: Path
) -> None:
    copy = shutil.copytree(eyes["synthetic"], tmp_path / "moved.zarr")
    here, there = (open_dataset(str(place)).info for place in (eyes["synthetic"], copy))
    assert here.url != there.url
    assert plain_estimator_id(here, QUICK, 0) == plain_estimator_id(there, QUICK, 0)
    named = Arm(name="other", title="other", training_set="real", datasets=(here.url,))
    assert estimator_id(named, {here.url: here}, QUICK, 0) == plain_estimator_id(here, QUICK, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"config": QUICK.model_copy(update={"steps": 3})},
        {"label_prior": "label-prior-1"},
        {"left_out": ["p00"]},
        {"left_out": []},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_an_estimator_learns_from_is_in_its_id(
    eyes: dict[str, str], other: dict[str, Any]
) -> None:
    infos = {url: open_dataset(url).info for url in (eyes["synthetic"], eyes["refined"])}
    arms = [
        Arm(name="any", title="any", training_set="synthetic", datasets=(url,)) for url in infos
    ]
    usual: dict[str, Any] = {"arm": arms[0], "datasets": infos, "config": QUICK, "seed": 0}
    assert estimator_id(**usual) != estimator_id(**usual | other)
    assert estimator_id(**usual) != estimator_id(**usual | {"arm": arms[1]})


def test_a_trained_estimator_is_found_and_the_same_when_trained_again(
    eyes: dict[str, str], home: Path
) -> None:
    samples = samples_of(eyes["synthetic"])
    first = trained_estimator("estimator-1", QUICK, samples, 0).state_dict()
    written = weights_file("estimator-1").stat().st_mtime_ns
    trained_estimator("estimator-1", QUICK, samples, 0)
    assert weights_file("estimator-1").stat().st_mtime_ns == written
    assert weights_file("estimator-1").is_relative_to(home)
    again = trained_estimator("estimator-2", QUICK, samples, 0).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_samples_of_some_rows_keep_labels_and_weights_beside_their_images(
    eyes: dict[str, str],
) -> None:
    whole = samples_of(eyes["synthetic"])
    weighted = TrainingSamples(
        whole.images, whole.labels, np.arange(len(whole.images), dtype=np.float64)
    )
    rows = np.array([3, 3, 0])
    some = weighted.of_rows(rows)
    assert np.array_equal(some.images, whole.images[rows])
    assert np.array_equal(some.labels["gaze"], whole.labels["gaze"][rows])
    assert some.weights is not None
    assert some.weights.tolist() == [3, 3, 0]
    assert whole.of_rows(rows).weights is None


def test_head_poses_are_wanted_only_where_the_estimator_takes_them(eyes: dict[str, str]) -> None:
    samples = samples_of(eyes["synthetic"])
    assert poses(samples, QUICK) is None
    with_poses = QUICK.model_copy(update={"head_pose": True})
    with pytest.raises(InputError, match="leave --head-pose out"):
        poses(samples, with_poses)
    angles = np.zeros((len(samples.images), 3), np.float32)
    assert poses(TrainingSamples(samples.images, {"head_pose": angles}), with_poses) is angles


def test_a_number_format_left_open_is_decided_and_one_that_is_set_stays() -> None:
    assert with_number_format(EstimatorConfig()).precision in {"fp32", "bf16"}
    assert with_number_format(QUICK) == QUICK


def test_progress_is_logged_ten_times_a_training(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tasks"):
        for step in range(1, 701):
            log_progress(step, 700, 0.5)
    assert len(caplog.records) == 10
    assert caplog.records[0].message == "estimator: step 70 of 700, loss 0.5000"
    assert caplog.records[-1].message == "estimator: step 700 of 700, loss 0.5000"
