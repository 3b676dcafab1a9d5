"""Stores that guard reads or writes guard every way in which zarr may read or write."""

import asyncio
import importlib.metadata
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from zarr.abc import store as abstract
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from storage.errors import ClaimLostError
from storage.layout import StrictStore
from storage.location import LocalLocation
from storage.wrapping_store import WrappingStore

OURS = {
    *("__eq__", "__hash__", "__init__", "__str__", "_open", "close", "delete", "exists", "get"),
    *("get_partial_values", "list", "list_dir", "list_prefix", "set", "supports_deletes"),
    *("supports_listing", "supports_writes"),
}
READS_BY_GET = {
    *("_get_bytes", "_get_bytes_sync", "_get_json", "_get_json_sync", "_get_many", "getsize"),
    "get_ranges",  # zarr 3.3
}
WRITES_BY_SET = {"_set_many", "set_if_not_exists"}
HARMLESS = {
    *("__enter__", "__exit__", "_check_writable", "_ensure_open", "is_empty", "open", "read_only"),
    *("supports_consolidated_metadata", "supports_partial_writes"),
    "getsize_prefix",  # it asks `list_prefix` and `getsize`
    *("clear", "delete_dir"),  # refused, as `delete` is
    "with_read_only",  # refused
    "get_ranges_sync",  # zarr 3.4: refused, since there is no `get_sync`
}
CHUNK = "images/c/0/0/0/0"


def test_every_method_of_zarrs_store_is_guarded_or_known_to_be_harmless() -> None:
    """Fails with a new zarr whose store has another way to read or write."""
    methods = {
        name
        for name, member in inspect.getmembers_static(Store)
        if member is not getattr(object, name, None)
        and (inspect.isroutine(member) or isinstance(member, property))
        and not inspect.isbuiltin(member)
    } - {"__class_getitem__", "__init_subclass__", "__subclasshook__", "__new__"}
    known = OURS | READS_BY_GET | WRITES_BY_SET | HARMLESS
    assert methods - known == set(), f"zarr {importlib.metadata.version('zarr')}"
    assert vars(WrappingStore).keys() >= OURS


def test_zarr_cannot_go_past_them_by_synchronous_methods() -> None:
    for name, protocol in inspect.getmembers(abstract):
        if name.startswith("Supports"):
            assert not issubclass(WrappingStore, protocol), name


async def _ranges(store: Any) -> None:
    async for _ in store.get_ranges(
        CHUNK, [RangeByteRequest(0, 1)], prototype=default_buffer_prototype()
    ):
        pass


READS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "get": lambda store: store.get(CHUNK, default_buffer_prototype()),
    "get_partial_values": lambda store: store.get_partial_values(
        default_buffer_prototype(), [(CHUNK, None)]
    ),
    "get_ranges": _ranges,
    "getsize": lambda store: store.getsize(CHUNK),
}


@pytest.mark.parametrize("read", [name for name in READS if hasattr(Store, name)])
def test_a_missing_chunk_is_an_error_however_it_is_read(tmp_path: Path, read: str) -> None:
    store = StrictStore(LocalStore(tmp_path))
    with pytest.raises((FileNotFoundError, BaseExceptionGroup)) as raised:
        asyncio.run(READS[read](store))
    assert "restore it from a copy" in "".join(map(str, _leaves(raised.value)))


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


@pytest.mark.parametrize("write", ["set", "set_if_not_exists", "_set_many"])
def test_nothing_is_written_after_a_claim_is_lost_however_it_is_written(
    tmp_path: Path, write: str
) -> None:
    place = LocalLocation(tmp_path / "eyes.zarr")
    value = default_buffer_prototype().buffer.from_bytes(b"late")
    with place.claim("claim") as claim:
        store: Any = claim.store()
        (tmp_path / "eyes.zarr").rename(tmp_path / "old.zarr")
        (tmp_path / "eyes.zarr").mkdir()
        arguments = ([(CHUNK, value)],) if write == "_set_many" else (CHUNK, value)
        with pytest.raises(ClaimLostError):
            asyncio.run(getattr(store, write)(*arguments))
    assert not (tmp_path / "eyes.zarr" / CHUNK).exists()


def test_a_dataset_is_deleted_through_its_location_alone(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="Location"):
        asyncio.run(WrappingStore(LocalStore(tmp_path)).delete(CHUNK))
