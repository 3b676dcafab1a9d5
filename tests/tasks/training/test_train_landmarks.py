from pathlib import Path

import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.landmarks.examples import simulated_examples
from simgan_core.landmarks.model import LandmarkModel
from simgan_core.landmarks.training import LandmarkTraining
from storage.samples import SampleBlock
from storage.schema import CORNERS_PX, IRIS_PX, PUPIL_PX, DatasetSpec, LabelSpec
from storage.writer import DatasetWriter
from tasks.training.landmarks import landmark_errors, train_landmark_model


def dataset(folder: Path, labels: tuple[LabelSpec, ...], count: int = 40) -> str:
    """Eyes whose landmarks are known, as `simulate unityeyes --to` writes them."""
    eyes = simulated_examples("synthetic", count, seed=5)
    iris = np.repeat(eyes.points[:, 3:], 16, axis=1)
    known = {"corners_px": eyes.points[:, :2], "pupil_px": eyes.points[:, 2], "iris_px": iris}
    spec = DatasetSpec(
        num_rows=count,
        height=eyes.images.shape[1],
        width=eyes.images.shape[2],
        channels=1,
        dtype="uint8",
        labels=labels,
        domain="synthetic",
        source={"name": "test"},
        preprocess="none",
    )
    writer = DatasetWriter.open(str(folder / "eyes.zarr"), spec)
    images, ids = eyes.images[..., None], [str(row) for row in range(count)]
    values = {label.name: known[label.name] for label in labels}
    writer.write_shard(0, SampleBlock(images, np.ones(count, bool), ids, values))
    return writer.finish().url


def test_a_model_is_trained_on_datasets_and_measured_on_rows_it_has_not_seen(
    tmp_path: Path,
) -> None:
    url = dataset(tmp_path, (CORNERS_PX, PUPIL_PX, IRIS_PX))
    out = tmp_path / "model.pt"
    config = LandmarkTraining(steps=3, batch_size=8)
    model, errors = train_landmark_model(out, [url], config, num_simulated=40)
    assert LandmarkModel.load(out).digest == model.digest
    assert not out.with_name("model.pt.training").exists()
    assert [(each.name, each.num_images) for each in errors] == [("built-in", 2), ("eyes.zarr", 2)]


def test_a_dataset_without_corners_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    url = dataset(tmp_path, (PUPIL_PX, IRIS_PX))
    with pytest.raises(InputError, match="has no label corners_px"):
        train_landmark_model(tmp_path / "model.pt", [url], LandmarkTraining(steps=1))


def test_errors_are_in_pixels_of_an_image_55_wide() -> None:
    model, eyes = LandmarkModel.load(), simulated_examples("synthetic", 10, seed=3)
    found = model.predict(eyes.images[..., None])
    errors = landmark_errors("eyes", model, eyes)
    off = np.linalg.norm(found.points[:, 2] - eyes.points[:, 2], axis=1)
    assert errors.median_px["pupil"] == pytest.approx(np.median(off) * 55 / eyes.images.shape[2])
    assert set(errors.p95_px) == set(errors.median_px)
    assert "midpoint" in str(errors)
