"""Claim on a key in S3: an object with a lease, and writes that are fenced by it."""

import asyncio
import json
import math
import os
import socket
import time
import uuid
from typing import Any

from typing_extensions import override
from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import ObjectStore

from storage.errors import ClaimLostError
from storage.location.base import Claim, Piece
from storage.location.s3_objects import S3Objects
from storage.wrapping_store import WrappingStore

LEASE_S = 120.0
"""Lease of a claim, in seconds: how long it outlives a dead holder on another machine.

It is renewed before every object that is written, so it has to last for one of them.
"""
RENEWAL_S = LEASE_S / 4
"""Time after which a claim is renewed during requests that are not written through it."""


class Lease:
    """Renewal of a claim during many requests that are not written through it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._renewed = -math.inf

    def renew(self) -> None:
        """Renew the lease where RENEWAL_S have passed; raises ClaimLostError."""
        if time.monotonic() - self._renewed >= RENEWAL_S:
            self._claim.require()
            self._renewed = time.monotonic()


class S3Claim(Claim):
    """Claim as an object with its holder and the end of its lease.

    Time alone protects nothing: a holder may be paused between looking at the clock and writing.
    So every object is written on condition that it is still the version that was there when the
    claim was last found to be held. Whoever takes the claim over writes all objects anew, and from
    then on the conditions of the former holder fail.
    """

    def __init__(self, objects: S3Objects, key: str) -> None:
        self._objects, self._key = objects, key
        self._token = uuid.uuid4().hex

    def take(self) -> bool:
        """Acquire the claim if it is free or its holder is dead; false while another holds it."""
        found = self._objects.read_tagged(self._key)
        if found is None:
            return self._objects.put_if(self._key, self._document(), "create")
        held, e_tag = found
        return _is_abandoned(parse_claim(held)) and self._put(e_tag)

    def give_up(self) -> None:
        """Release the claim, unless another process has taken it over."""
        found = self._objects.read_tagged(self._key)
        if found is not None and self._holds(found[0]):
            self._objects.delete(self._key)

    @override
    def require(self) -> None:
        found = self._objects.read_tagged(self._key)
        if found is None or not self._holds(found[0]) or not self._put(found[1]):
            raise ClaimLostError(
                f"another attempt took {self._key} of {self._objects.url} over from this one"
            )

    @override
    def write(self, key: str, *pieces: Piece) -> None:
        data = b"".join(pieces)
        written = False
        while not written:
            # In this order: whoever takes the claim over after `require` changes the version.
            e_tag = self._objects.tag_of(key)
            self.require()
            written = self._objects.put_if(key, data, {"e_tag": e_tag} if e_tag else "create")

    @override
    def store(self) -> Store:
        return _FencedStore(ObjectStore(self._objects.store), self)

    def _put(self, e_tag: str | None) -> bool:
        """Write the claim on condition that its known version is the current one."""
        return self._objects.put_if(self._key, self._document(), {"e_tag": e_tag})

    def _holds(self, document: bytes) -> bool:
        return parse_claim(document).get("token") == self._token

    def _document(self) -> bytes:
        claim = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "expires": time.time() + LEASE_S,
        }
        return json.dumps(claim).encode()


class _FencedStore(WrappingStore):
    """Store whose writes to S3 are fenced by a claim."""

    def __init__(self, store: Store, claim: S3Claim) -> None:
        super().__init__(store)
        self._claim = claim

    @override
    async def set(self, key: str, value: Buffer) -> None:
        # The claim speaks to the server itself and would hold up every other array meanwhile.
        await asyncio.to_thread(self._claim.write, key, value.to_bytes())


def parse_claim(document: bytes | None) -> dict[str, Any]:
    """Return a claim's holder and end of lease; empty where there is no claim."""
    return {} if document is None else dict(json.loads(document))


def _is_abandoned(claim: dict[str, Any]) -> bool:
    if time.time() > claim["expires"]:
        return True
    return claim["host"] == socket.gethostname() and not _is_alive(claim["pid"])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
