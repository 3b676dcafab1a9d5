"""Zarr store over another store, in which every read is a `get` and every write a `set`."""

import asyncio
from collections.abc import AsyncIterator, Iterable

from typing_extensions import override
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype


class WrappingStore(Store):
    """A store over another one, without deletion; subclasses guard `get` or `set`.

    zarr's own `WrapperStore` forwards each further way to read or write (`get_ranges`, `set_sync`,
    `set_if_not_exists`) to the wrapped store, past what a subclass does in `get` and `set`. This
    class forwards these two alone: zarr's abstract store builds the rest on them, and a store
    without synchronous methods is only used through its asynchronous ones.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(read_only=store.read_only)
        self._store = store

    @override
    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return await self._store.get(key, prototype, byte_range)

    @override
    async def set(self, key: str, value: Buffer) -> None:
        await self._store.set(key, value)

    @override
    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        reads = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return await asyncio.gather(*reads)

    @override
    async def exists(self, key: str) -> bool:
        return await self._store.exists(key)

    @override
    async def delete(self, key: str) -> None:
        raise NotImplementedError(f"{key}: datasets are deleted by their Location alone")

    @override
    def list(self) -> AsyncIterator[str]:
        return self._store.list()

    @override
    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self._store.list_prefix(prefix)

    @override
    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self._store.list_dir(prefix)

    @override
    async def _open(self) -> None:
        await self._store._ensure_open()
        await super()._open()

    @override
    def close(self) -> None:
        super().close()
        self._store.close()

    @property
    @override
    def supports_writes(self) -> bool:
        return self._store.supports_writes

    @property
    @override
    def supports_deletes(self) -> bool:
        return False

    @property
    @override
    def supports_listing(self) -> bool:
        return self._store.supports_listing

    @override
    def __eq__(self, value: object) -> bool:
        return type(self) is type(value) and self._store == getattr(value, "_store", None)

    @override
    def __hash__(self) -> int:
        return hash((type(self), str(self._store)))

    @override
    def __str__(self) -> str:
        return f"{type(self).__name__}({self._store})"
