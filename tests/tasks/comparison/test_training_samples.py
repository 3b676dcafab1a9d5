"""Training sets of arms: which rows show the same image."""

from pathlib import Path

import numpy as np
import pytest

from simgan_core.config import EstimatorConfig
from storage.reader import open_dataset
from storage.schema import GAZE
from tasks.comparison.arms import ArmName, ComparisonConfig
from tasks.comparison.estimators import TrainingSamples
from tasks.comparison.label_prior import _folds
from tasks.comparison.plan import Job
from tasks.comparison.planning import plan_comparison
from tasks.comparison.training_samples import training_samples
from tasks.runtime.dataset_cache import DatasetCache
from tests.tasks.comparison.conftest import write_dataset

STYLES = 2


@pytest.fixture
def styled(eyes: dict[str, str], tmp_path: Path) -> str:
    """The refined eyes in two styles."""
    block = open_dataset(eyes["refined"]).load()
    ids = [f"{each}#{style}" for each in block.ids for style in range(1, STYLES + 1)]
    images = np.repeat(block.images, STYLES, axis=0)
    images[1::STYLES] -= 1
    gaze = np.repeat(block.labels["gaze"], STYLES, axis=0)
    parent = open_dataset(eyes["synthetic"]).info.digest
    provenance = {"styles": STYLES, "parent_digest": parent, "refiner": "refiner-1"}
    labels = {"gaze": (GAZE, gaze)}
    return write_dataset(tmp_path / "styled.zarr", "refined", images, ids, labels, provenance)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("synthetic", None),
        ("real_synthetic", None),
        ("refined", np.repeat(np.arange(80), STYLES)),
        ("synthetic_refined", np.r_[np.arange(80), np.repeat(np.arange(80), STYLES)]),
        ("real_refined", np.r_[np.arange(80), np.repeat(np.arange(80, 160), STYLES)]),
    ],
)
def test_styles_of_an_image_and_the_image_before_them_are_one_to_an_estimator(
    eyes: dict[str, str], home: Path, styled: str, arm: ArmName, expected: np.ndarray | None
) -> None:
    datasets = DatasetCache()
    config = ComparisonConfig(arms=(arm,), methods=(), shares=(), match_labels="never")
    places = eyes["synthetic"], styled, eyes["real"], eyes["test"]
    plan = plan_comparison.fn(datasets, *places, 1, EstimatorConfig(steps=2), config)
    samples = training_samples(Job(plan.arms[0], 0, ""), plan, None, datasets)
    np.testing.assert_array_equal(samples.image_of_row, expected)


def test_styles_of_an_image_are_held_out_of_a_label_prior_together(styled: str) -> None:
    dataset = open_dataset(styled)
    block = dataset.load()
    image_of_row = TrainingSamples.of_block(block, dataset.info).image_of_row
    assert image_of_row is not None
    (held_out,), by_identity = _folds([each.partition("/")[2] for each in block.ids], image_of_row)
    assert not by_identity
    assert len(held_out) == 8 * STYLES
    assert np.array_equal(held_out, np.flatnonzero(np.isin(image_of_row, image_of_row[held_out])))
