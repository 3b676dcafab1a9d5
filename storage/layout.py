"""The nodes of a dataset: one zarr v3 group with a root document, arrays and records.

zarr.json                  group attributes: schema_version, the spec's fields and, last of all,
                           num_valid, num_rejected, digest, code, complete
images, valid, id          arrays; see DatasetSpec
labels/<name>              float32 arrays
records/<shard>/zarr.json  a group whose attributes are a ShardRecord
records/zarr.json          a group; of a complete dataset its attribute `shards` lists all
                           records, so that they are read at once
records/<shard>/claim      who is writing the shard; gone from a complete dataset
"""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import zarr
from pydantic import ValidationError
from typing_extensions import override
from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import BufferPrototype
from zarr.core.dtype import VariableLengthUTF8
from zarr.storage import StorePath

from storage.errors import CorruptDatasetError, UnsupportedDatasetError
from storage.location import ROOT_DOCUMENT, Claim, Location
from storage.manifest import ShardRecord
from storage.schema import DatasetInfo, DatasetSpec
from storage.wrapping_store import WrappingStore

SCHEMA_VERSION = 1

RECORDS_AT_ONCE = 32
"""Requests for records under way at a time."""

_CLAIM = re.compile(r"records/\d+/claim")
_RECORD_LIST = f"records/{ROOT_DOCUMENT}"

Array = zarr.Array[Any]


class Root(NamedTuple):
    """Content of the root document."""

    spec: DatasetSpec
    info: DatasetInfo | None
    """Of a complete dataset; None while shards may be missing."""


def read_root(place: Location, url: str) -> Root | None:
    """Read the root document; None where the location holds no dataset of this layout.

    `url` is what the dataset is called: a dataset that replaces another is built beside it.

    Raises UnsupportedDatasetError and CorruptDatasetError.
    """
    document = place.read(ROOT_DOCUMENT)
    if document is None:
        return None
    try:
        attributes = json.loads(document).get("attributes", {})
    except (ValueError, AttributeError) as error:
        raise _corrupt(url, ROOT_DOCUMENT, error) from error
    version = attributes.get("schema_version")
    if version is None:
        return None
    if version != SCHEMA_VERSION:
        raise UnsupportedDatasetError(
            f"dataset {url} has layout version {version}, this release reads {SCHEMA_VERSION}; "
            "use the release that wrote it, or make the dataset again"
        )
    return _parse_root(attributes, url)


def write_root(place: Location, spec: DatasetSpec) -> bool:
    """Create the root document; false where another process has just created one."""
    return place.create(ROOT_DOCUMENT, _group(_attributes(spec)))


def write_complete_root(place: Location, info: DatasetInfo) -> None:
    """Declare a dataset complete; raises FileNotFoundError when it was removed meanwhile."""
    completion = info.model_dump(mode="json", include=_COMPLETION)
    place.replace(ROOT_DOCUMENT, _group({**_attributes(info.spec), **completion, "complete": True}))


def record_key(shard: int) -> str:
    """Return the key of a shard's record."""
    return f"records/{shard:05d}/{ROOT_DOCUMENT}"


def claim_key(shard: int) -> str:
    """Return the key of the claim on a shard."""
    return f"records/{shard:05d}/claim"


def delete_claims(place: Location) -> None:
    """Delete the claims on all shards."""
    for key in [key for key in place.list_keys("records/") if _CLAIM.fullmatch(key)]:
        place.delete(key)


def recorded_shards(place: Location) -> set[int]:
    """Return the numbers of the finished shards."""
    parts = (key.split("/") for key in place.list_keys("records/"))
    return {int(part[1]) for part in parts if len(part) == 3 and part[2] == ROOT_DOCUMENT}


def read_record(place: Location, url: str, shard: int) -> ShardRecord | None:
    """Read a shard's record; None while the shard is not finished."""
    document = place.read(record_key(shard))
    if document is None:
        return None
    try:
        return ShardRecord.model_validate(json.loads(document)["attributes"])
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(url, record_key(shard), error) from error


def read_records(place: Location, url: str, shards: Iterable[int]) -> list[ShardRecord | None]:
    """Return the records of these shards in order, None for those that are not finished."""
    # From a server many small objects take as long one by one as a few large ones.
    with ThreadPoolExecutor(RECORDS_AT_ONCE) as pool:
        return list(pool.map(partial(read_record, place, url), shards))


def read_record_list(place: Location, url: str) -> list[ShardRecord] | None:
    """Return all records by one read; None where they are not listed, as in datasets of 0.1.0."""
    document = place.read(_RECORD_LIST)
    try:
        shards = json.loads(document or b"{}").get("attributes", {}).get("shards")
        return shards and [ShardRecord.model_validate(shard) for shard in shards]
    except (ValueError, AttributeError, TypeError) as error:
        raise _corrupt(url, _RECORD_LIST, error) from error


def write_record_list(place: Location, records: Iterable[ShardRecord]) -> None:
    """List all records of a dataset that is about to be complete."""
    shards = [record.model_dump(mode="json") for record in records]
    place.replace(_RECORD_LIST, _group({"shards": shards}, indent=None))


def write_record(claim: Claim, record: ShardRecord) -> None:
    """Write a shard's record, which declares it finished, under its claim."""
    claim.write(record_key(record.shard), _group(record.model_dump(mode="json")))


def create_arrays(place: Location, spec: DatasetSpec) -> None:
    """Create a dataset's arrays that do not exist yet."""
    store = place.store(read_only=False)
    place.create(_RECORD_LIST, _group({}))
    for name, shape, dtype, dimensions in _array_specs(spec):
        if place.read(f"{name}/{ROOT_DOCUMENT}") is not None:
            continue
        is_text = isinstance(dtype, VariableLengthUTF8)
        # Chunks in a shard let a few images be read; all the labels of one are read as fast as few.
        in_chunks = name == "images"
        rows_per_chunk = spec.rows_per_chunk if in_chunks else spec.rows_per_shard
        with place.os_errors():
            zarr.create_array(
                store,
                name=name,
                shape=(spec.num_rows, *shape),
                chunks=(rows_per_chunk, *shape),
                shards=(spec.rows_per_shard, *shape) if in_chunks else None,
                dtype=dtype,
                # Compressing eye images saves a third of the space and halves the speed.
                compressors="auto" if is_text else None,
                fill_value="" if is_text else np.zeros((), dtype).item(),
                dimension_names=("row", *dimensions),
            )


def shard_keys(spec: DatasetSpec, shard: int) -> list[str]:
    """Return the keys of a shard's objects, the record's last."""
    chunks = [
        chunk_key(name, shard, num_axes=1 + len(shape)) for name, shape, *_ in _array_specs(spec)
    ]
    return [*chunks, record_key(shard)]


def chunk_key(array: str, shard: int, num_axes: int) -> str:
    """Return the key of an array's object of a shard."""
    return "/".join((array, "c", str(shard), *["0"] * (num_axes - 1)))


class StrictStore(WrappingStore):
    """Zarr store in which a missing chunk is an error, not a chunk of fill values.

    Datasets are written with all their chunks, so one is missing only where a dataset is damaged,
    or was removed or replaced while it was being read.
    """

    @override
    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        if found is None and "/c/" in key:
            raise FileNotFoundError(
                f"{key} is missing: the dataset was replaced while it was being read (run this "
                "again), or is damaged (restore it from a copy, or make it again)"
            )
        return found


def open_arrays(store: Store, spec: DatasetSpec) -> dict[str, Array]:
    """Return the arrays by name: images, valid, id, labels/<name>."""
    arrays = {}
    for name, *_ in _array_specs(spec):
        array = zarr.open_array(store, path=name, mode="r" if store.read_only else "r+")
        # Looking for chunks that are all zero, in order to leave them out, costs 4 times the write.
        arrays[name] = array.with_config({"write_empty_chunks": True})
    return arrays


def moved_arrays(arrays: dict[str, Array], store: Store) -> dict[str, Array]:
    """Return the arrays bound to another store of the same dataset, without reading metadata again.

    To open five arrays takes a fifth of what a shard takes to write.
    """
    return {
        name: zarr.Array.from_dict(StorePath(store, name), array.metadata.to_dict()).with_config(
            {"write_empty_chunks": True}
        )
        for name, array in arrays.items()
    }


def _array_specs(
    spec: DatasetSpec,
) -> Iterator[tuple[str, tuple[int, ...], Any, tuple[str | None, ...]]]:
    """Yield every array's name, shape of a row, type and names of the row's dimensions."""
    pixels = (spec.height, spec.width, spec.channels)
    yield "images", pixels, np.dtype(spec.dtype), ("y", "x", "channel")
    yield "valid", (), np.dtype(bool), ()
    yield "id", (), VariableLengthUTF8(), ()
    for label in spec.labels:
        shape = label.shape
        yield f"labels/{label.name}", shape, np.dtype(np.float32), (None,) * len(shape)


_COMPLETION = {"num_valid", "num_rejected", "digest", "code"}


def _attributes(spec: DatasetSpec) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, **spec.model_dump(mode="json")}


def _group(attributes: dict[str, Any], indent: int | None = 2) -> bytes:
    """Return the document of a zarr v3 group."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(group, indent=indent).encode()


def _parse_root(attributes: dict[str, Any], url: str) -> Root:
    try:
        spec = DatasetSpec.model_validate(
            {name: attributes[name] for name in DatasetSpec.model_fields}
        )
        if not attributes.get("complete", False):
            return Root(spec, None)
        # Datasets of 0.1.0 do not name their code.
        completion = {name: attributes[name] for name in _COMPLETION if name != "code"}
        completion["code"] = attributes.get("code", {})
        return Root(spec, DatasetInfo(url=url, spec=spec, **completion))
    except (KeyError, ValidationError) as error:
        raise _corrupt(url, ROOT_DOCUMENT, error) from error


def _corrupt(url: str, key: str, error: Exception) -> CorruptDatasetError:
    return CorruptDatasetError(
        f"{key} of dataset {url} is damaged ({type(error).__name__}: {error}); restore it from a "
        "copy, or remove the dataset and make it again"
    )
