"""Write a dataset shard by shard, by any number of processes, resumable after any kill.

    writer = DatasetWriter.open(url, spec)             # creates, or resumes
    for shard in writer.pending_shards():              # in any process: DatasetWriter.attach(url)
        rows = writer.shard_rows(shard)
        writer.write_shard(shard, source.read(rows.start, rows.stop))
    info = writer.finish()                             # from now on readers accept it

A shard is written under a claim, its record after it, and `complete` after all records: a process
killed at any moment leaves a dataset that can be resumed and ends with the same digest.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from storage.errors import (
    BlockError,
    ClaimLostError,
    CorruptDatasetError,
    DatasetExistsError,
    DatasetIncompleteError,
    DatasetNotFoundError,
    DuplicateIdError,
)
from storage.layout import (
    Array,
    claim_key,
    create_arrays,
    delete_claims,
    moved_arrays,
    open_arrays,
    read_record,
    read_records,
    read_root,
    recorded_shards,
    shard_keys,
    write_complete_root,
    write_record,
    write_record_list,
    write_root,
)
from storage.location import Claim, Location, locate
from storage.manifest import ShardRecord, block_digest, dataset_digest, record_of
from storage.raw_shards import write_images
from storage.replacement import building_place, find_writable, put_in_place
from storage.samples import SampleBlock
from storage.schema import DatasetInfo, DatasetSpec

logger = logging.getLogger(__name__)

NAMES_AT_ONCE = 8
"""Shards whose names are read at a time, to find out whether they are unique."""


class DatasetWriter:
    """Writer of a dataset's shards; get one from `open`, `extend` or `attach`."""

    def __init__(
        self, target: Location, place: Location, spec: DatasetSpec, info: DatasetInfo | None
    ) -> None:
        self._target = target
        self._place = place
        self._info = info
        self.spec = spec
        self._hashes: dict[int, NDArray[np.int64]] = {}
        """Of the names of the shards that this writer wrote, 8 bytes each."""

    @classmethod
    def open(cls, url: str, spec: DatasetSpec, *, overwrite: bool = False) -> Self:
        """Create a dataset, or find the one of the same spec, complete or not.

        With `overwrite`, a dataset of another spec is replaced: the new one is built beside it and
        takes its place when complete, by renaming on disk and by copies on the server on S3 (which
        thus holds both for a while). Until then readers get the old one. What is no dataset is
        never replaced.

        Raises DatasetExistsError where the place holds another dataset, or something else.
        """
        target = locate(url)
        put_in_place(target)
        found = read_root(target, target.url)
        if found is None:
            return cls._begin(target, target, spec)
        if found.spec.canonical() == spec.canonical():
            return cls._resume(target, spec, found.info)
        if not overwrite:
            raise _exists(target, "another dataset", found.spec.differences(spec))
        return cls._begin_beside(target, spec)

    @classmethod
    def extend(cls, url: str, spec: DatasetSpec) -> Self:
        """Begin or resume a successor, with more rows, of a complete dataset.

        `spec` is the dataset's own but for `num_rows`, `source` and `provenance`: that the new
        rows are made as the old ones were is for the caller to know. The successor is built beside
        the dataset and takes its place when complete, as with `overwrite`; its shards are the
        dataset's own as far as those are full, so that the rows from the last full shard's end on
        are left to write.

        Raises DatasetNotFoundError, DatasetIncompleteError, and DatasetExistsError where the
        dataset is another one.
        """
        target = locate(url)
        put_in_place(target)
        found = read_root(target, target.url)
        if found is None:
            raise DatasetNotFoundError(f"there is no dataset at {target.url} to add rows to")
        if found.info is None:
            raise DatasetIncompleteError(f"dataset {target.url} is incomplete; finish it first")
        if found.spec.canonical() == spec.canonical():  # an earlier attempt's, put in place now
            return cls._resume(target, spec, found.info)
        free = {name: getattr(found.spec, name) for name in ("num_rows", "source", "provenance")}
        as_found = spec.model_copy(update=free)
        if as_found.canonical() != found.spec.canonical() or spec.num_rows <= found.spec.num_rows:
            raise _exists(target, "another dataset", found.spec.differences(spec))
        writer = cls._begin_beside(target, spec)
        pending = set(writer.pending_shards())
        for shard in range(found.spec.num_rows // spec.rows_per_shard):
            if shard in pending:
                writer._place.adopt(target, shard_keys(spec, shard))
        return writer

    @classmethod
    def attach(cls, url: str) -> Self:
        """Return the writer of a dataset that was opened; raises DatasetNotFoundError."""
        target = locate(url)
        found = find_writable(target)
        if found is None:
            raise DatasetNotFoundError(f"no dataset is being made at {target.url}; open it first")
        return cls(target, found.place, found.root.spec, found.root.info)

    @classmethod
    def _begin(cls, target: Location, place: Location, spec: DatasetSpec) -> Self:
        """Write the root document first: from then on the place is known to be ours."""
        root = read_root(place, target.url)
        if root is None:
            if not place.is_free():
                raise _exists(target, "something that is no dataset", [])
            write_root(place, spec)
            root = read_root(place, target.url)
        # Another process may have begun a dataset here a moment ago.
        if root is None or root.spec.canonical() != spec.canonical():
            found = [] if root is None else root.spec.differences(spec)
            raise _exists(target, "another dataset", found)
        if place is target:
            building_place(target).delete_all()
        create_arrays(place, spec)
        return cls(target, place, spec, root.info)

    @classmethod
    def _begin_beside(cls, target: Location, spec: DatasetSpec) -> Self:
        """Begin a dataset's successor, or resume the one that was begun."""
        beside = building_place(target)
        building = read_root(beside, target.url)
        if building is None or building.spec.canonical() != spec.canonical():
            beside.delete_all()
        return cls._begin(target, beside, spec)

    @classmethod
    def _resume(cls, target: Location, spec: DatasetSpec, info: DatasetInfo | None) -> Self:
        if info is None:
            return cls._begin(target, target, spec)
        target.tidy()
        building_place(target).delete_all()
        return cls(target, target, spec, info)

    @property
    def complete(self) -> bool:
        """True where the dataset is complete and in place."""
        return self._info is not None and self._place is self._target

    @property
    def num_shards(self) -> int:
        """Number of shards, written or not."""
        return self.spec.num_shards

    def shard_rows(self, shard: int) -> range:
        """Return the rows of a shard."""
        return self.spec.shard_rows(shard)

    def pending_shards(self) -> list[int]:
        """Return the shards that have no record yet, in order."""
        return sorted(set(range(self.num_shards)) - recorded_shards(self._place))

    def num_rows_done(self) -> int:
        """Return the number of rows in finished shards."""
        return sum(len(self.shard_rows(shard)) for shard in recorded_shards(self._place))

    def records(self) -> list[ShardRecord]:
        """Return the records of the finished shards, in order."""
        found = read_records(self._place, self._target.url, sorted(recorded_shards(self._place)))
        return [record for record in found if record is not None]

    def write_shard(
        self, shard: int, block: SampleBlock, figures: Mapping[str, float] | None = None
    ) -> ShardRecord:
        """Write a whole shard, then its record with the figures, and return the record.

        Of several attempts at a shard one writes, and the others return what it recorded: a shard
        that has a record is not written again.

        Raises BlockError where the block is not exactly the shard's rows of this dataset,
        DatasetBusyError while another attempt does not end, and DatasetNotFoundError when the
        dataset was removed meanwhile.
        """
        rows = self.shard_rows(shard)
        _check_block(self.spec, rows, block)
        while True:
            self._require_here()
            record = self._record(shard)
            if record is not None:
                return record
            try:
                with self._place.claim(claim_key(shard)) as claim:
                    record = self._record(shard)
                    if record is not None:
                        return record
                    # The dataset may have been replaced while this attempt waited.
                    self._require_here()
                    digest = self._write_arrays(claim, shard, block)
                    record = record_of(shard, rows, block, digest, figures or {})
                    write_record(claim, record)
                    self._hashes[shard] = _hashes_of(block.ids)
                    return record
            except ClaimLostError as lost:
                logger.warning(
                    "shard %d: %s; written again unless the other has finished it",
                    shard,
                    lost,
                )

    def finish(self, code: Mapping[str, JsonValue] | None = None) -> DatasetInfo:
        """Declare the dataset complete; a repeated call returns the same.

        `code` names the code that does so, for people to read.

        Raises DatasetIncompleteError naming the shards that are missing, and DuplicateIdError.
        """
        if self._info is None:
            pending = self.pending_shards()
            if pending:
                raise DatasetIncompleteError(
                    f"dataset {self._target.url} lacks {len(pending)} of {self.num_shards} shards "
                    f"({_listed(pending)}); write them first"
                )
            self._info = self._complete(dict(code or {}))
        put_in_place(self._target)
        self._place = self._target
        return self._info

    def discard(self) -> None:
        """Delete an incomplete dataset; one that it was to replace stays as it is."""
        if self._info is not None:
            raise DatasetExistsError(f"dataset {self._target.url} is complete and is not discarded")
        self._place.delete_all()

    def _require_here(self) -> None:
        """Raise DatasetNotFoundError where the dataset was removed or replaced."""
        root = read_root(self._place, self._target.url)
        if root is None or root.spec.canonical() != self.spec.canonical():
            raise DatasetNotFoundError(
                f"dataset {self._target.url} was removed or replaced while it was being made"
            )

    def _record(self, shard: int) -> ShardRecord | None:
        return read_record(self._place, self._target.url, shard)

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        with self._place.os_errors():
            return open_arrays(self._place.store(read_only=False), self.spec)

    def _write_arrays(self, claim: Claim, shard: int, block: SampleBlock) -> str:
        """Write the shard of every array and return the block's digest, taken meanwhile."""
        rows = self.shard_rows(shard)
        values: dict[str, NDArray[Any]] = {
            "images": block.images,
            "valid": block.valid,
            "id": np.array(block.ids, dtype=np.dtypes.StringDType()),
            **{f"labels/{name}": label for name, label in block.labels.items()},
        }
        with ThreadPoolExecutor(max_workers=1) as pool, self._place.os_errors():
            digest = pool.submit(block_digest, block)
            if write_images(claim, self.spec, shard, block.images):
                del values["images"]
            arrays = moved_arrays(self._arrays, claim.store())
            for name, value in values.items():
                arrays[name][rows.start : rows.stop] = value
            return digest.result()

    def _complete(self, code: dict[str, JsonValue]) -> DatasetInfo:
        records = self.records()
        expected = [self.shard_rows(shard) for shard in range(self.num_shards)]
        if [range(record.start, record.stop) for record in records] != expected:
            raise CorruptDatasetError(
                f"the records of dataset {self._target.url} are not of its shards; "
                "remove it and make it again"
            )
        self._require_unique_ids()
        delete_claims(self._place)
        self._place.tidy()
        write_record_list(self._place, records)
        info = DatasetInfo(
            url=self._target.url,
            spec=self.spec,
            num_valid=sum(record.num_valid for record in records),
            num_rejected=sum(len(record.rejections) for record in records),
            digest=dataset_digest(self.spec, (record.digest for record in records)),
            code=code,
        )
        write_complete_root(self._place, info)
        return info

    def _require_unique_ids(self) -> None:
        # 8 bytes a name instead of the name: a hash in common is a suspicion, the names decide.
        hashes = np.empty(self.spec.num_rows, dtype=np.int64)

        def fill(shard: int) -> None:
            rows = self.shard_rows(shard)
            known = self._hashes.get(shard)
            hashes[rows.start : rows.stop] = _hashes_of(self._ids(rows)) if known is None else known

        with ThreadPoolExecutor(NAMES_AT_ONCE) as pool:
            for _ in pool.map(fill, range(self.num_shards)):
                pass
        in_order = np.sort(hashes)
        suspected = in_order[1:][in_order[1:] == in_order[:-1]]
        if len(suspected) == 0:  # before `isin`, which takes five times as much memory
            return
        seen: dict[str, int] = {}
        for row in np.flatnonzero(np.isin(hashes, suspected)).tolist():
            name = self._ids(range(row, row + 1))[0]
            if name in seen:
                raise DuplicateIdError(
                    f"rows {seen[name]} and {row} of dataset {self._target.url} are both named "
                    f"{name!r}; give the samples distinct names in their source"
                )
            seen[name] = row

    def _ids(self, rows: range) -> list[str]:
        with self._place.os_errors():
            return list(np.asarray(self._arrays["id"][rows.start : rows.stop]).tolist())


def _hashes_of(names: list[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, names), np.int64, len(names))


def _check_block(spec: DatasetSpec, rows: range, block: SampleBlock) -> None:
    """Refuse a block that is not exactly these rows; raises BlockError."""
    num_rows = len(rows)
    shape = (num_rows, spec.height, spec.width, spec.channels)
    _check_array("images", block.images, shape, spec.dtype)
    _check_array("valid", block.valid, (num_rows,), "bool")
    expected, found = {label.name for label in spec.labels}, set(block.labels)
    if expected != found:
        raise BlockError(
            f"the dataset has labels {sorted(expected)}, the block has {sorted(found)}"
        )
    for label in spec.labels:
        _check_array(label.name, block.labels[label.name], (num_rows, *label.shape), "float32")
    if len(block.ids) != num_rows:
        raise BlockError(f"expected {num_rows} ids, got {len(block.ids)}")
    if not all(block.ids):
        raise BlockError(f"row {rows.start + block.ids.index('')} has an empty id")
    _check_rejections(rows, block)


def _check_array(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise BlockError(
            f"{name} must be {dtype} {list(shape)}, got {array.dtype} {list(array.shape)}"
        )


def _check_rejections(rows: range, block: SampleBlock) -> None:
    """Require a reason for every row that is not valid, and for no other."""
    invalid = {int(row) + rows.start for row in np.flatnonzero(~block.valid)}
    rejected = {rejection.row for rejection in block.rejections}
    if invalid != rejected or len(rejected) != len(block.rejections):
        odd = min(invalid ^ rejected, default=rows.start)
        raise BlockError(
            f"every row that is not valid needs one rejection, and no other row has one: row {odd} "
            f"is {'not ' if odd in invalid else ''}valid and has "
            f"{sum(rejection.row == odd for rejection in block.rejections)}"
        )


def _exists(target: Location, what: str, differences: list[str]) -> DatasetExistsError:
    if not differences:
        return DatasetExistsError(
            f"{target.url} holds {what}; choose another place, or empty this one yourself"
        )
    return DatasetExistsError(
        f"{target.url} holds {what}: {'; '.join(differences)}. Choose another place, or replace "
        "the dataset with --overwrite"
    )


def _listed(shards: list[int]) -> str:
    shown = ", ".join(str(shard) for shard in shards[:10])
    return shown if len(shards) <= 10 else f"{shown}, …"
