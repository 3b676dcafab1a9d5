"""Dataset cache: one read of each dataset, a bound in bytes, one cache a process."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from simgan_core.errors import InputError
from tasks.runtime.dataset_cache import DatasetCache
from tests.tasks.comparison.conftest import write_dataset


@pytest.fixture
def urls(tmp_path: Path) -> list[str]:
    return [make(tmp_path / f"{seed}.zarr", seed) for seed in range(3)]


def make(to: Path, pixel: int) -> str:
    """Write a dataset of 32 images whose pixels are all alike."""
    images = np.full((32, 35, 55, 1), pixel, np.uint8)
    return write_dataset(to, "synthetic", images, [f"eye/{row}" for row in range(32)], {})


def test_what_was_loaded_is_loaded_no_more_and_cannot_be_changed(urls: list[str]) -> None:
    datasets = DatasetCache()
    info = datasets.find(urls[0])
    assert datasets.load(info) is datasets.load(info)
    with pytest.raises(ValueError, match="read-only"):
        datasets.load(info).images[0] = 1


def test_the_least_recently_used_samples_go_when_there_are_too_many_bytes(urls: list[str]) -> None:
    datasets = DatasetCache()
    infos = [datasets.find(url) for url in urls]
    first = datasets.load(infos[0])
    datasets.max_bytes = 2 * datasets.num_bytes
    second = datasets.load(infos[1])
    assert datasets.load(infos[0]) is first
    datasets.load(infos[2])
    assert datasets.load(infos[0]) is first
    assert datasets.load(infos[1]) is not second
    assert datasets.num_bytes <= datasets.max_bytes


def test_samples_beyond_the_bound_are_read_and_not_kept(urls: list[str]) -> None:
    datasets = DatasetCache(max_bytes=1000)
    assert len(datasets.load(datasets.find(urls[0]))) == 32
    assert datasets.num_bytes == 0


def test_the_first_images_alone_are_not_kept(urls: list[str]) -> None:
    datasets = DatasetCache()
    info = datasets.find(urls[2])
    images = datasets.first_images(info, 5)
    assert images.shape[0] == 5
    assert datasets.num_bytes == 0
    assert np.array_equal(images, datasets.load(info).images[:5])
    assert np.array_equal(images, datasets.first_images(info, 5))


def test_all_that_are_unpickled_in_a_process_are_one(urls: list[str]) -> None:
    sent = pickle.dumps(DatasetCache())
    info = DatasetCache().find(urls[0])
    first, second = (pickle.loads(sent) for _ in range(2))  # noqa: S301  our own
    assert first.load(info) is second.load(info)


def test_a_dataset_that_was_replaced_since_it_was_found_is_refused(
    urls: list[str], tmp_path: Path
) -> None:
    planned = DatasetCache().find(urls[0])
    shutil.rmtree(urls[0])
    make(tmp_path / "0.zarr", 7)
    with pytest.raises(InputError, match=r"was replaced while it was in use.*run the same command"):
        DatasetCache().load(planned)
