"""Read a complete dataset."""

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import CorruptDatasetError, DatasetIncompleteError, DatasetNotFoundError
from storage.layout import Array, StrictStore, open_arrays, read_record, recorded_shards
from storage.location import Location, locate
from storage.manifest import ShardRecord
from storage.raw_shards import read_images
from storage.replacement import find_readable
from storage.samples import Images, Rejection, SampleBlock
from storage.schema import DatasetInfo


def open_dataset(url: str) -> "Dataset":
    """Return the dataset at a path or URL.

    Raises DatasetNotFoundError, DatasetIncompleteError, CorruptDatasetError and
    UnsupportedDatasetError.
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
    return Dataset(found.place, found.root.info)


class Dataset:
    """A complete dataset; build one with `open_dataset`."""

    def __init__(self, place: Location, info: DatasetInfo) -> None:
        self._place = place
        self.info = info

    def __len__(self) -> int:
        return self.info.spec.num_rows

    @property
    def num_shards(self) -> int:
        """How many shards hold the rows."""
        return self.info.spec.num_shards

    def shard_rows(self, shard: int) -> range:
        """Return the rows of a shard: what is read at once at the least cost."""
        return self.info.spec.shard_rows(shard)

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1, valid or not; raises IndexError beyond the dataset."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of a dataset of {len(self)}")
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

    def read_labels(self) -> dict[str, NDArray[np.float32]]:
        """Return the labels of all rows by name, float32 [N, …], without touching the images."""
        names = [label.name for label in self.info.spec.labels]
        return {name: self._slice(f"labels/{name}", 0, len(self)) for name in names}

    def read_ids(self) -> list[str]:
        """Return the names of all rows, without touching the images."""
        return list(self._slice("id", 0, len(self)).tolist())

    def read_valid(self) -> NDArray[np.bool_]:
        """Return which rows may be used, bool [N], without touching the images."""
        return self._slice("valid", 0, len(self))

    def records(self) -> list[ShardRecord]:
        """Return the record of every shard; raises CorruptDatasetError where one is gone."""
        return self._records

    @cached_property
    def _records(self) -> list[ShardRecord]:
        records = []
        for shard in range(self.num_shards):
            record = read_record(self._place, self.info.url, shard)
            if record is None:
                raise CorruptDatasetError(
                    f"dataset {self.info.url} has lost the record of shard {shard}; restore it "
                    "from a copy, or remove the dataset and make it again"
                )
            records.append(record)
        return records

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        with self._place.os_errors():
            return open_arrays(StrictStore(self._place.store(read_only=True)), self.info.spec)

    def _images(self, start: int, stop: int) -> Images:
        """Return rows of the images, full shards past zarr's codecs."""
        spec, array = self.info.spec, self._arrays["images"]
        images = np.empty((stop - start, *array.shape[1:]), array.dtype)
        with self._place.os_errors():
            for begin, end in self._by_shard(start, stop):
                here = images[begin - start : end - start]
                if not read_images(self._place, spec, begin // spec.rows_per_shard, here):
                    here[...] = array[begin:end]
        return images

    def _slice(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows of another array, shard by shard: twice as fast as all of them at once."""
        array, pieces = self._arrays[name], self._by_shard(start, stop)
        with self._place.os_errors():
            if len(pieces) == 1:
                return np.asarray(array[start:stop])
            rows = np.empty((stop - start, *array.shape[1:]), array.dtype)
            for begin, end in pieces:
                rows[begin - start : end - start] = array[begin:end]
        return rows

    def _by_shard(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Cut a range of rows where shards end."""
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
        place = 0
        for shard in range(self.num_shards):
            rows = self.shard_rows(shard)
            here = chosen[(chosen >= rows.start) & (chosen < rows.stop)]
            if len(here):
                shown = self._images(rows.start, int(here[-1]) + 1)
                np.take(shown, here - rows.start, axis=0, out=images[place : place + len(here)])
                place += len(here)
        ids, valid = self.read_ids(), self.read_valid()
        return SampleBlock(
            images=images,
            valid=valid[chosen],
            ids=[ids[row] for row in chosen],
            labels={name: label[chosen] for name, label in self.read_labels().items()},
        )
