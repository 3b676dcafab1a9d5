from pathlib import Path

import numpy as np
import pytest

from simgan_core.landmarks.examples import simulated_examples
from simgan_core.landmarks.model import LandmarkModel
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import DatasetSpec
from storage.writer import DatasetWriter
from tasks.viewing.eye_position import crop_difference, eye_position
from tasks.viewing.inspect import inspect_dataset


def dataset(url: Path, images: np.ndarray) -> str:
    count, height, width = images.shape
    spec = DatasetSpec(
        num_rows=count,
        height=height,
        width=width,
        channels=1,
        dtype="uint8",
        labels=(),
        domain="real",
        source={"name": "test"},
        preprocess="none",
    )
    writer = DatasetWriter.open(str(url), spec)
    ids = [str(row) for row in range(count)]
    writer.write_shard(0, SampleBlock(images[..., None], np.ones(count, bool), ids, {}))
    return writer.finish().url


def eyes(shift_px: int = 0) -> np.ndarray:
    """Eyes [60, 48, 96], further right by whole pixels."""
    return np.roll(simulated_examples("synthetic", 60, seed=4).images, shift_px, axis=2)


def test_the_position_is_that_of_the_corners(tmp_path: Path) -> None:
    known = simulated_examples("synthetic", 60, seed=4)
    found = eye_position(
        open_dataset(dataset(tmp_path / "d.zarr", known.images)), LandmarkModel.load()
    )
    assert found is not None
    height, width = known.images.shape[1:]
    offset = known.points[:, :2].mean(axis=1) / [width, height] - 0.5
    assert found.offset == pytest.approx(offset.mean(axis=0), abs=0.02)
    corners = np.linalg.norm(known.points[:, 1] - known.points[:, 0], axis=1) / width
    assert found.eye_width == pytest.approx(corners.mean(), rel=0.1)
    assert found.share_found > 0.9


def test_crops_that_differ_are_warned_of(tmp_path: Path) -> None:
    one, same, other = (
        dataset(tmp_path / f"{name}.zarr", eyes(shift))
        for name, shift in (("one", 0), ("same", 1), ("other", 6))
    )
    alike = inspect_dataset(one, tmp_path / "sheet.png", same)
    assert alike.crop_difference is not None
    assert not alike.warnings
    apart = inspect_dataset(one, tmp_path / "sheet.png", other)
    assert apart.crop_difference is not None
    assert apart.crop_difference.right == pytest.approx(6 / 96, abs=0.01)
    assert "px further right" in apart.warnings[0]
    assert "further right" in apart.text()


def test_larger_eyes_are_warned_of(tmp_path: Path) -> None:
    model = LandmarkModel.load()
    found = eye_position(open_dataset(dataset(tmp_path / "d.zarr", eyes())), model)
    assert found is not None
    larger = found.model_copy(update={"eye_width": found.eye_width * 1.2})
    assert "20% wider" in crop_difference(found, larger, 0.5).warning
    assert "17% narrower" in crop_difference(larger, found, 0.5).warning


def test_images_without_eyes_are_not_compared(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 96), np.uint8)
    blank = dataset(tmp_path / "blank.zarr", noise)
    found = inspect_dataset(dataset(tmp_path / "d.zarr", eyes()), tmp_path / "s.png", blank)
    assert found.crop_difference is None
    assert "no eyes were found in" in found.warnings[0]
