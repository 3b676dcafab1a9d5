"""Full shards past zarr's codecs: the same bytes, and what lies otherwise is zarr's."""

import struct
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

from storage.location import locate
from storage.raw_shards import read_images, write_images
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import DatasetInfo, DatasetSpec

Blocks = Callable[..., SampleBlock]
Write = Callable[..., DatasetInfo]

KINDS = [{"dtype": "uint8"}, {"dtype": "uint16"}, {"channels": 3}, {"rows_per_chunk": 10}]


@pytest.fixture
def written(tmp_path: Path, spec: DatasetSpec, write_dataset: Write) -> Path:
    """A dataset whose first two shards are full."""
    write_dataset(str(tmp_path / "eyes.zarr"), spec)
    return tmp_path / "eyes.zarr"


def images_of(written: Path, spec: DatasetSpec, shard: int, num_rows: int) -> np.ndarray | None:
    shape = (num_rows, spec.height, spec.width, spec.channels)
    images = np.zeros(shape, spec.dtype)
    return images if read_images(locate(written), spec, shard, images) else None


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_shard_has_the_bytes_that_zarr_writes(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks, kind: dict
) -> None:
    spec, url = spec.model_copy(update=kind), tmp_path / "eyes.zarr"
    write_dataset(str(url), spec)
    stored = url / "images/c/1/0/0/0"
    ours = stored.read_bytes()
    stored.unlink()
    zarr.open_array(url / "images", mode="r+")[10:20] = make_block(spec, range(10, 20)).images
    assert stored.read_bytes() == ours


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_shard_that_zarr_wrote_is_read_as_one_block(
    tmp_path: Path, spec: DatasetSpec, write_dataset: Write, make_block: Blocks, kind: dict
) -> None:
    spec, url = spec.model_copy(update=kind), tmp_path / "eyes.zarr"
    write_dataset(str(url), spec)
    images = make_block(spec, range(10), seed=1).images
    zarr.open_array(url / "images", mode="r+")[:10] = images
    found = images_of(url, spec, 0, 10)
    assert found is not None
    assert np.array_equal(found, images)


def test_a_shard_that_is_not_full_is_left_to_zarr(written: Path, spec: DatasetSpec) -> None:
    assert images_of(written, spec, 2, 5) is None
    with locate(written).claim("claim") as claim:
        assert not write_images(claim, spec, 2, np.zeros((5, 4, 6, 1), np.uint8))


def test_a_damaged_index_is_left_to_zarr_which_refuses_it(written: Path, spec: DatasetSpec) -> None:
    stored = written / "images/c/0/0/0/0"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    assert images_of(written, spec, 0, 10) is None
    with pytest.raises(ValueError, match="checksum"):
        open_dataset(str(written)).read(0, 10)


def test_a_shard_cut_short_is_refused(written: Path, spec: DatasetSpec) -> None:
    stored = written / "images/c/0/0/0/0"
    stored.write_bytes(stored.read_bytes()[:100])
    assert images_of(written, spec, 0, 10) is None
    with pytest.raises(ValueError, match="checksum"):
        open_dataset(str(written)).read(0, 10)


def test_a_shard_that_is_gone_is_said_so(written: Path, spec: DatasetSpec) -> None:
    (written / "images/c/0/0/0/0").unlink()
    assert images_of(written, spec, 0, 10) is None
    with pytest.raises(FileNotFoundError, match="is missing"):
        open_dataset(str(written)).read(0, 10)


def test_chunks_in_another_order_are_read_where_they_belong(
    written: Path, spec: DatasetSpec, make_block: Blocks
) -> None:
    first, second = np.split(make_block(spec, range(10)).images, 2)
    index = struct.pack("<QQQQ", first.nbytes, first.nbytes, 0, first.nbytes)
    checksum = struct.pack("<I", google_crc32c.value(index))
    swapped = second.tobytes() + first.tobytes() + index + checksum
    (written / "images/c/0/0/0/0").write_bytes(swapped)
    found = open_dataset(str(written)).read(0, 10).images
    assert np.array_equal(found, np.concatenate([first, second]))


def test_images_that_do_not_lie_as_one_block_in_memory_are_written(
    written: Path, spec: DatasetSpec, make_block: Blocks
) -> None:
    images = np.asfortranarray(make_block(spec, range(10), seed=1).images)
    with locate(written).claim("claim") as claim:
        assert write_images(claim, spec, 0, images)
    found = np.empty((10, 4, 6, 1), np.uint8)
    assert read_images(locate(written), spec, 0, found)
    assert np.array_equal(found, images)
