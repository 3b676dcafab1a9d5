"""Location in an S3 bucket: a prefix, on any server with conditional writes."""

import io
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from typing_extensions import override
from zarr.abc.store import Store
from zarr.storage import ObjectStore

from storage.errors import DatasetBusyError
from storage.location.base import CLAIM_WAIT_S, ROOT_DOCUMENT, Claim, Location
from storage.location.s3_claim import LEASE_S, Lease, S3Claim, parse_claim
from storage.location.s3_objects import S3Objects


class S3Location(Location):
    """Location under a prefix of an S3 bucket; the server needs conditional writes."""

    def __init__(self, bucket: str, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._objects = S3Objects(bucket, name)
        self.url = self._objects.url

    @override
    def store(self, *, read_only: bool) -> Store:
        return ObjectStore(self._objects.store, read_only=read_only)

    @override
    def read(self, key: str) -> bytes | None:
        found = self._objects.read_tagged(key)
        return None if found is None else found[0]

    @override
    def open(self, key: str) -> io.BufferedIOBase | None:
        found = self.read(key)
        return None if found is None else io.BytesIO(found)

    @override
    def replace(self, key: str, data: bytes) -> None:
        found = self._objects.read_tagged(key)
        if found is None or not self._objects.put_if(key, data, {"e_tag": found[1]}):
            raise FileNotFoundError(f"{key} of {self.url} is gone, or being written by another")

    @override
    def create(self, key: str, data: bytes) -> bool:
        return self._objects.put_if(key, data, "create")

    @override
    def delete(self, key: str) -> None:
        self._objects.delete(key)

    @override
    def list_keys(self, prefix: str = "") -> Iterator[str]:
        with self.os_errors():
            for page in self._objects.store.list(prefix or None):
                for entry in page:
                    yield entry["path"]

    @override
    def is_free(self) -> bool:
        return next(self.list_keys(), None) is None

    @override
    def delete_all(self) -> None:
        keys = [key for key in self.list_keys() if key != ROOT_DOCUMENT]
        self._objects.delete(keys)
        self.delete(ROOT_DOCUMENT)

    @override
    def tidy(self) -> None:
        """Nothing to do: uploads are atomic, so that S3 has no partial objects."""

    @override
    def sibling(self, suffix: str) -> "S3Location":
        return S3Location(self._bucket, self._name + suffix)

    @override
    def take_over(self, other: Location, claim: Claim) -> None:
        """Delete the content, copy the sibling's objects on the server, delete the sibling.

        Root documents go first and come last, so that at any moment of it a root document stands
        in one of the two places and everything that it speaks of stands there too.
        """
        assert isinstance(other, S3Location)
        lease = Lease(claim)
        lease.renew()
        self.delete(ROOT_DOCUMENT)
        self.delete_all()
        bucket = self._objects.whole_bucket()
        for key in sorted(other.list_keys(), key=lambda key: key == ROOT_DOCUMENT):
            lease.renew()
            with self.os_errors():
                source, goal = f"{other._name}/{key}", f"{self._name}/{key}"
                self._objects.send(partial(bucket.copy, source, goal))
        claim.require()
        other.delete(ROOT_DOCUMENT)
        other.delete_all()

    @override
    def adopt(self, other: Location, keys: Iterable[str]) -> None:
        """Copy the sibling's objects on the server."""
        assert isinstance(other, S3Location)
        bucket = self._objects.whole_bucket()
        for key in keys:
            with self.os_errors():
                bucket.copy(f"{other._name}/{key}", f"{self._name}/{key}")

    @override
    @contextmanager
    def claim(self, key: str, wait_s: float = CLAIM_WAIT_S) -> Iterator[Claim]:
        # An object that only one can create. It names its holder and when it ends, so that others
        # can tell a holder that died: at once on the same machine, after the lease elsewhere.
        claim = S3Claim(self._objects, key)
        deadline = time.monotonic() + wait_s
        while not claim.take():
            if time.monotonic() >= deadline:
                holder = parse_claim(self.read(key)).get("host", "unknown")
                raise DatasetBusyError(
                    f"another attempt on {holder} is writing {key} of {self.url}; wait for it, or "
                    f"end it and wait {LEASE_S:.0f} s, and run this again"
                )
            time.sleep(0.5)
        try:
            yield claim
        finally:
            claim.give_up()

    @override
    def os_errors(self) -> AbstractContextManager[None]:
        return self._objects.os_errors()
