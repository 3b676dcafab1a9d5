"""Dataset cache: datasets opened once and loaded once a process, bounded in bytes."""

import sys
from collections import OrderedDict
from functools import lru_cache
from threading import Lock

from simgan_core.errors import InputError
from storage.reader import Dataset, open_dataset
from storage.samples import Images, SampleBlock
from storage.schema import DatasetInfo

MAX_BYTES = 2 * 2**30
"""Loaded samples that a cache keeps by default: a million grey images of 35×55 pixels."""


class DatasetCache:
    """Opened datasets and their valid samples in memory, the least recently used dropped first.

    A flow makes one and hands it to its tasks. Pickled, it names the one cache of the process that
    unpickles it, so that a Dask worker reads a dataset once for all of its tasks.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._opened: dict[str, Dataset] = {}
        self._loaded: OrderedDict[str, SampleBlock] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return _of_this_process, (self.max_bytes,)

    @property
    def num_bytes(self) -> int:
        """Bytes of the samples in memory."""
        return sum(map(_num_bytes, self._loaded.values()))

    def find(self, url: str) -> DatasetInfo:
        """Return the dataset that is at a path or URL now; raises as `open_dataset` does."""
        dataset = open_dataset(url)
        self._opened[dataset.info.digest] = dataset
        return dataset.info

    def open(self, info: DatasetInfo) -> Dataset:
        """Return a dataset that was found before, here or in another process.

        Raises InputError where another dataset is at its place by now.
        """
        if info.digest not in self._opened:
            found = self.find(info.url)
            if found.digest != info.digest:
                raise InputError(
                    f"dataset {info.url} was replaced while it was in use (digest "
                    f"{info.digest[:12]}, found {found.digest[:12]}): run the same command again"
                )
        return self._opened[info.digest]

    def load(self, info: DatasetInfo) -> SampleBlock:
        """Return the valid samples of a dataset; their images are read-only, being shared."""
        with self._lock:
            block = self._loaded.get(info.digest)
            if block is None:
                block = self.open(info).load()
                block.images.flags.writeable = False
                self._keep(info.digest, block)
            else:
                self._loaded.move_to_end(info.digest)
            return block

    def _keep(self, digest: str, block: SampleBlock) -> None:
        if _num_bytes(block) > self.max_bytes:
            return
        self._loaded[digest] = block
        while self.num_bytes > self.max_bytes:
            self._loaded.popitem(last=False)

    def first_images(self, info: DatasetInfo, count: int) -> Images:
        """Return the first valid images [≤ count, H, W, C], without loading all for them."""
        block = self._loaded.get(info.digest)
        return (self.open(info).load(max_rows=count) if block is None else block).images[:count]

    def spread_images(self, info: DatasetInfo, count: int) -> Images:
        """Return valid images [≤ count, H, W, C], evenly spaced over the first shard."""
        block, dataset = self._loaded.get(info.digest), self.open(info)
        if block is None:
            return dataset.load_spread(count).images
        return block.images[dataset.spread(count)]


@lru_cache(maxsize=1)
def _of_this_process(max_bytes: int) -> DatasetCache:
    return DatasetCache(max_bytes)


def _num_bytes(block: SampleBlock) -> int:
    arrays = (block.images, block.valid, *block.labels.values())
    return sum(array.nbytes for array in arrays) + sum(map(sys.getsizeof, block.ids))
