"""Verify a dataset: read every shard again and compare it with its record."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from storage.errors import CorruptDatasetError
from storage.manifest import block_digest, dataset_digest
from storage.reader import Dataset

SHARDS_AT_ONCE = 2


class ShardCheck(NamedTuple):
    """What became of a shard."""

    shard: int
    fault: str
    """What is wrong; empty where all is well."""


def check_shards(dataset: Dataset) -> Iterator[ShardCheck]:
    """Yield every shard in order, read again as a whole.

    Raises CorruptDatasetError where the records are gone or are not those of the dataset's digest.
    """
    digests = (record.digest for record in dataset.records())
    if dataset_digest(dataset.info.spec, digests) != dataset.info.digest:
        raise CorruptDatasetError(
            f"the records of {dataset.info.url} are not those that its digest was taken of; "
            "restore it from a copy, or make it again"
        )
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        yield from pool.map(lambda shard: _check(dataset, shard), range(dataset.num_shards))


def _check(dataset: Dataset, shard: int) -> ShardCheck:
    rows = dataset.shard_rows(shard)
    try:
        block = dataset.read(rows.start, rows.stop)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        return ShardCheck(shard, f"does not read: {error}")
    same = block_digest(block) == dataset.records()[shard].digest
    return ShardCheck(shard, "" if same else "holds other samples than were written")
