"""Places on disk and on S3, and small datasets to put there."""

import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.samples import Rejection, SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter


@pytest.fixture(params=["disk", "disk without hard links", "s3"])
def place_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A path and a URL where nothing is yet."""
    if request.param == "disk without hard links":
        request.getfixturevalue("monkeypatch").setattr(os, "link", _refuse_link)
    if request.param != "s3":
        return str(tmp_path / "eyes.zarr")
    return f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}/eyes.zarr"


def _refuse_link(source: object, goal: object, **_: object) -> None:
    """Answer as FAT does."""
    if Path(str(goal)).exists():
        raise FileExistsError(errno.EEXIST, "File exists", goal)
    raise PermissionError(errno.EPERM, "Operation not permitted", source, None, goal)


@pytest.fixture
def spec() -> DatasetSpec:
    """25 rows in shards of 10, 10 and 5."""
    return DatasetSpec(
        num_rows=25,
        height=4,
        width=6,
        channels=1,
        dtype="uint8",
        labels=(GAZE, PUPIL_PX),
        domain="synthetic",
        source={"name": "test", "size": [4, 6]},
        preprocess="none",
        rows_per_chunk=5,
        rows_per_shard=10,
    )


Blocks = Callable[..., SampleBlock]


@pytest.fixture
def make_block() -> Blocks:
    """Return samples that follow from the rows alone; row 7 is rejected."""

    def make(spec: DatasetSpec, rows: range, seed: int = 0) -> SampleBlock:
        def values(row: int) -> np.random.Generator:
            return np.random.default_rng([seed, row])

        shape = (spec.height, spec.width, spec.channels)
        top = np.iinfo(spec.dtype).max
        images = np.stack([values(row).integers(0, top, shape, spec.dtype) for row in rows])
        labels = {
            label.name: np.stack([values(row).normal(size=label.shape) for row in rows]).astype(
                np.float32
            )
            for label in spec.labels
        }
        valid = np.array([row != 7 for row in rows])
        images[~valid] = 0
        for label in labels.values():
            label[~valid] = np.nan
        rejections = tuple(Rejection(row, f"eye/{row}", "too dark") for row in rows if row == 7)
        return SampleBlock(images, valid, [f"eye/{row}" for row in rows], labels, rejections)

    return make


@pytest.fixture
def write_dataset(make_block: Blocks) -> Callable[..., DatasetInfo]:
    """Write a whole dataset at a place."""

    def write(url: str, spec: DatasetSpec, *, overwrite: bool = False) -> DatasetInfo:
        writer = DatasetWriter.open(url, spec, overwrite=overwrite)
        for shard in writer.pending_shards():
            writer.write_shard(shard, make_block(spec, writer.shard_rows(shard)))
        return writer.finish()

    return write
