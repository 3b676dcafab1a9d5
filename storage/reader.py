"""Read a complete dataset."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import CorruptDatasetError, DatasetIncompleteError, DatasetNotFoundError
from storage.layout import (
    Array,
    StrictStore,
    open_arrays,
    read_record,
    read_record_list,
    read_records,
    recorded_shards,
)
from storage.location import Location, locate
from storage.manifest import ShardRecord, block_digest, dataset_digest
from storage.raw_shards import read_images
from storage.replacement import find_readable
from storage.samples import Images, Rejection, SampleBlock
from storage.schema import DatasetInfo


def open_dataset(url: str) -> "Dataset":
    """Return the dataset at a path or URL.

    Raises DatasetNotFoundError, DatasetIncompleteError, UnsupportedDatasetError, and
    CorruptDatasetError where the documents of the dataset contradict one another.
    """
    target = locate(url)
    found = find_readable(target)
    if found is None:
        held = "nothing" if target.is_free() else "something else"
        raise DatasetNotFoundError(
            f"there is no dataset at {target.url} (it holds {held}); name a dataset that "
            "ingest or refine made"
        )
    if found.root.info is None:
        num_shards = found.root.spec.num_shards
        raise DatasetIncompleteError(
            f"dataset {target.url} is incomplete: {len(recorded_shards(found.place))} of "
            f"{num_shards} shards are written. Run the command that makes it again, with the same "
            "options: it goes on where it stopped"
        )
    dataset = Dataset(found.place, found.root.info)
    dataset.require_own_records()
    return dataset


class Dataset:
    """A complete dataset; build one with `open_dataset`.

    Reads verify what was written: a shard's data are compared with the digest in its record each
    time the whole shard is read, and before rows of it are read for the first time. Raises
    CorruptDatasetError, which names the shard, if it is damaged.
    """

    def __init__(self, place: Location, info: DatasetInfo) -> None:
        self._place = place
        self.info = info
        self._found_whole: set[int] = set()

    def __len__(self) -> int:
        return self.info.spec.num_rows

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return self.info.spec.num_shards

    def shard_rows(self, shard: int) -> range:
        """Return the rows of a shard, the cheapest unit of reading."""
        return self.info.spec.shard_rows(shard)

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1, valid or not; raises IndexError beyond the dataset."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of a dataset of {len(self)}")
        block = self._read(start, stop)
        for begin, end in self._by_shard(start, stop) if start < stop else ():
            shard = begin // self.info.spec.rows_per_shard
            rows = self.shard_rows(shard)
            if len(rows) == end - begin:
                self._require_whole(shard, _rows_of(block, start, rows))
            elif shard not in self._found_whole:
                self._require_whole(shard, self._read(rows.start, rows.stop))
        return block

    def fault_of(self, shard: int) -> str:
        """Verify a shard: return its fault, or an empty text."""
        rows = self.shard_rows(shard)
        try:
            if read_record(self._place, self.info.url, shard) != self.records()[shard]:
                return "has lost its record, or has another one than the list of all records"
            self._require_whole(shard, self._read(rows.start, rows.stop))
        except _ShardFaultError as error:
            return error.fault
        except CorruptDatasetError as error:
            return str(error)
        except OSError as error:
            return f"does not read: {error}"
        return ""

    def load(self, *, valid_only: bool = True, max_rows: int | None = None) -> SampleBlock:
        """Return the whole dataset in memory, or its first `max_rows` rows.

        Without the rows that are not valid, unless `valid_only` is false; a row's place in the
        block is then not its row in the dataset.
        """
        valid = self.read_valid()
        chosen = np.flatnonzero(valid) if valid_only else np.arange(len(self))
        chosen = chosen[:max_rows]
        stop = int(chosen[-1]) + 1 if len(chosen) else 0
        if len(chosen) == stop:
            return self.read(0, stop)
        return self._gather(chosen)

    def load_spread(self, count: int) -> SampleBlock:
        """Return at most `count` valid rows, evenly spaced over the first shard: of many people."""
        return self._gather(np.flatnonzero(self.read_valid())[self.spread(count)])

    def spread(self, count: int) -> NDArray[np.intp]:
        """Return the places of the rows of `load_spread` among the valid rows, int64 [≤ count]."""
        num_valid = int(np.count_nonzero(self.read_valid()[: self.shard_rows(0).stop]))
        return np.linspace(0, num_valid - 1, min(count, num_valid)).astype(np.intp)

    def read_labels(self) -> dict[str, NDArray[np.float32]]:
        """Return the labels of all rows by name, float32 [N, …], without reading the images."""
        names = [label.name for label in self.info.spec.labels]
        return {name: self._slice(f"labels/{name}", 0, len(self)) for name in names}

    def read_ids(self) -> list[str]:
        """Return the ids of all rows, without reading the images."""
        return list(self._slice("id", 0, len(self)).tolist())

    def read_valid(self) -> NDArray[np.bool_]:
        """Return the validity of all rows, bool [N], without reading the images."""
        valid = self._slice("valid", 0, len(self))
        # Every row that is not valid has a rejection in its record, and no other row has one.
        for record in self.records():
            expected = np.ones(record.stop - record.start, np.bool_)
            expected[[rejection.row - record.start for rejection in record.rejections]] = False
            if not np.array_equal(valid[record.start : record.stop], expected):
                fault = "has other valid rows than were written"
                raise _ShardFaultError(self.info.url, record.shard, fault)
        return valid

    def records(self) -> list[ShardRecord]:
        """Return the record of every shard; raises CorruptDatasetError where one is gone."""
        return self._records

    def require_own_records(self) -> None:
        """Raise CorruptDatasetError unless the root document and the records fit each other.

        The digest is of the spec and of all records' digests, so that an edited number of rows is
        found as well as a record of another dataset.
        """
        info, records = self.info, self.records()
        num_valid = sum(record.num_valid for record in records)
        num_rejected = sum(len(record.rejections) for record in records)
        rows = [range(record.start, record.stop) for record in records]
        if (
            dataset_digest(info.spec, (record.digest for record in records)) != info.digest
            or rows != [self.shard_rows(shard) for shard in range(self.num_shards)]
            or (num_valid, num_rejected) != (info.num_valid, info.num_rejected)
        ):
            raise CorruptDatasetError(
                f"the root document of dataset {info.url} and the records of its shards do not "
                "belong together: one was changed after the dataset was made; restore the dataset "
                "from a copy, or make it again with --overwrite"
            )

    @cached_property
    def _records(self) -> list[ShardRecord]:
        listed = read_record_list(self._place, self.info.url)
        if listed is not None:
            return listed
        records = read_records(self._place, self.info.url, range(self.num_shards))
        for shard, record in enumerate(records):
            if record is None:
                raise CorruptDatasetError(
                    f"dataset {self.info.url} has lost the record of shard {shard}; restore it "
                    "from a copy, or remove the dataset and make it again"
                )
        return [record for record in records if record is not None]

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        with self._place.os_errors():
            return open_arrays(StrictStore(self._place.store(read_only=True)), self.info.spec)

    def _read(self, start: int, stop: int) -> SampleBlock:
        """Return rows as stored, without checks."""
        return SampleBlock(
            images=self._images(start, stop),
            valid=self._slice("valid", start, stop),
            ids=self._slice("id", start, stop).tolist(),
            labels={
                label.name: self._slice(f"labels/{label.name}", start, stop)
                for label in self.info.spec.labels
            },
            rejections=self._rejections(start, stop),
        )

    def _require_whole(self, shard: int, block: SampleBlock) -> None:
        if block_digest(block) != self.records()[shard].digest:
            raise _ShardFaultError(self.info.url, shard, "holds other samples than were written")
        self._found_whole.add(shard)

    @contextmanager
    def _faults_of(self, start: int) -> Iterator[None]:
        """Convert zarr's errors on a damaged shard to one that names it."""
        try:
            with self._place.os_errors():
                yield
        except OSError:
            raise
        except Exception as error:
            shard = start // self.info.spec.rows_per_shard
            raise _ShardFaultError(self.info.url, shard, f"does not read: {error}") from error

    def _images(self, start: int, stop: int) -> Images:
        """Return rows of the images; full shards are read directly, without zarr's codecs."""
        spec, array = self.info.spec, self._arrays["images"]
        images = np.empty((stop - start, *array.shape[1:]), array.dtype)
        for begin, end in self._by_shard(start, stop):
            here = images[begin - start : end - start]
            with self._faults_of(begin):
                if not read_images(self._place, spec, begin // spec.rows_per_shard, here):
                    here[...] = array[begin:end]
        return images

    def _slice(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of another array, shard by shard: twice as fast as all of them at once."""
        array, pieces = self._arrays[name], self._by_shard(start, stop)
        if len(pieces) == 1:
            with self._faults_of(start):
                return np.asarray(array[start:stop])
        rows = np.empty((stop - start, *array.shape[1:]), array.dtype)
        for begin, end in pieces:
            with self._faults_of(begin):
                rows[begin - start : end - start] = array[begin:end]
        return rows

    def _by_shard(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Split a range of rows at shard boundaries."""
        step = self.info.spec.rows_per_shard
        return list(pairwise([start, *range(start - start % step + step, stop, step), stop]))

    def _rejections(self, start: int, stop: int) -> tuple[Rejection, ...]:
        if self.info.num_rejected == 0:
            return ()
        shards = range(start // self.info.spec.rows_per_shard, self.num_shards)
        return tuple(
            rejection
            for shard in shards
            if self.shard_rows(shard).start < stop
            for rejection in self.records()[shard].rejections
            if start <= rejection.row < stop
        )

    def _gather(self, chosen: NDArray[np.intp]) -> SampleBlock:
        """Return the chosen rows, in order; no more than a shard is in memory beside them."""
        spec = self.info.spec
        images = np.empty((len(chosen), spec.height, spec.width, spec.channels), spec.dtype)
        labels = {
            label.name: np.empty((len(chosen), *label.shape), np.float32) for label in spec.labels
        }
        ids: list[str] = []
        for shard in range(self.num_shards):
            rows = self.shard_rows(shard)
            here = chosen[(chosen >= rows.start) & (chosen < rows.stop)] - rows.start
            if len(here):
                block = self.read(rows.start, rows.stop)
                into = slice(len(ids), len(ids) + len(here))
                np.take(block.images, here, axis=0, out=images[into])
                for name, label in labels.items():
                    label[into] = block.labels[name][here]
                ids.extend(block.ids[row] for row in here.tolist())
        return SampleBlock(images, self.read_valid()[chosen], ids, labels)


class _ShardFaultError(CorruptDatasetError):
    """A shard differs from what was written."""

    def __init__(self, url: str, shard: int, fault: str) -> None:
        self.fault = fault
        super().__init__(
            f"shard {shard} of dataset {url} {fault}; restore it from a copy, or make the dataset "
            "again with --overwrite (simgan verify names every damaged shard)"
        )

    def __reduce__(self) -> tuple[type[CorruptDatasetError], tuple[str]]:
        return CorruptDatasetError, (str(self),)


def _rows_of(block: SampleBlock, start: int, rows: range) -> SampleBlock:
    """Return these rows of a block that begins at row `start`."""
    if len(block) == len(rows):
        return block
    part = slice(rows.start - start, rows.stop - start)
    return SampleBlock(
        images=block.images[part],
        valid=block.valid[part],
        ids=block.ids[part],
        labels={name: label[part] for name, label in block.labels.items()},
        rejections=tuple(r for r in block.rejections if r.row in rows),
    )
