"""Interface of a dataset's location, and of a claim on one of its keys."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from zarr.abc.store import Store

ROOT_DOCUMENT = "zarr.json"
"""The key of a zarr group's own document: a dataset is where this is."""

CLAIM_WAIT_S = 600.0
"""How long an attempt waits for another one that is writing the same shard."""

Piece = bytes | memoryview
"""Of what an object is written."""


class Claim(ABC):
    """A key held alone, and with it the right to write what the key stands for.

    Holding is not for ever: a process may be paused until others think it dead, or its dataset may
    be replaced. Writing through the claim fails from then on and changes nothing.
    """

    @abstractmethod
    def require(self) -> None:
        """Raise ClaimLostError unless the key is still held; on S3, renew the lease."""

    @abstractmethod
    def write(self, key: str, *pieces: Piece) -> None:
        """Write an object of the place from its pieces, over what is there.

        Raises ClaimLostError instead, as `require`.
        """

    @abstractmethod
    def store(self) -> Store:
        """Return the place's zarr store for writing.

        It raises ClaimLostError instead of writing where another holds the key by now.
        """


class Location(ABC):
    """A place that holds one dataset: a zarr store, and whole objects by key ("a/b/c").

    Objects appear and change atomically: who reads one while it is written, or after the writer
    was killed, finds the old one, the new one, or none.
    """

    url: str
    """The place's absolute path or URL."""

    @abstractmethod
    def store(self, *, read_only: bool) -> Store:
        """Return the zarr store of this place."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Return an object, or None when there is none."""

    @abstractmethod
    def open(self, key: str) -> io.BufferedIOBase | None:
        """Return an object, to be read from its start, or None when there is none."""

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Write an object in place of the one that is there.

        Raises FileNotFoundError where none is: the place was removed or moved meanwhile.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; false, and nothing written, when there was.

        Of any number of processes that create one key at once, each with other data, one gets true.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; not being there is fine."""

    @abstractmethod
    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """Return the keys of all objects under a prefix that ends at a "/", in no order."""

    @abstractmethod
    def is_free(self) -> bool:
        """Whether nothing is here, or nothing but what a killed writer had not put in place."""

    @abstractmethod
    def delete_all(self) -> None:
        """Delete everything, the root document last: killed on the way, it can be done again."""

    @abstractmethod
    def tidy(self) -> None:
        """Delete what killed writers left unfinished."""

    @abstractmethod
    def sibling(self, suffix: str) -> "Location":
        """Return the place beside this one whose name has the suffix."""

    @abstractmethod
    def take_over(self, other: "Location") -> None:
        """Move what a sibling holds here, in place of what is here; may be killed and repeated."""

    @abstractmethod
    def adopt(self, other: "Location", keys: Iterable[str]) -> None:
        """Have a sibling's objects here as well, in this order; those here already stay."""

    @abstractmethod
    def claim(self, key: str, wait_s: float = CLAIM_WAIT_S) -> AbstractContextManager[Claim]:
        """Hold a key alone while the context is open; a holder that dies gives it up.

        Raises DatasetBusyError when another one still holds it after `wait_s` seconds.
        """

    @abstractmethod
    def os_errors(self) -> AbstractContextManager[None]:
        """Return a context in which failures of the place's zarr store are OSErrors."""
