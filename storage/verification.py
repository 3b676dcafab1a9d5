"""Verify a dataset: read every shard again and compare it with its record."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from storage.reader import Dataset

SHARDS_AT_ONCE = 2


class ShardCheck(NamedTuple):
    """Result of a shard's verification."""

    shard: int
    fault: str
    """Fault; empty where there is none."""


def check_shards(dataset: Dataset) -> Iterator[ShardCheck]:
    """Yield every shard in order, read again as a whole.

    That the records are those of the dataset's digest was checked when it was opened.
    """
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        shards = range(dataset.num_shards)
        for shard, fault in zip(shards, pool.map(dataset.fault_of, shards), strict=True):
            yield ShardCheck(shard, fault)
