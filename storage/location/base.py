"""Interface of a dataset's location, and of a claim on one of its keys."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from zarr.abc.store import Store

ROOT_DOCUMENT = "zarr.json"
"""Key of the root zarr group's metadata document; it marks a dataset."""

CLAIM_WAIT_S = 600.0
"""Default wait for a claim that another attempt holds, in seconds."""

Piece = bytes | memoryview
"""Part of an object's content."""


class Claim(ABC):
    """Exclusive claim on a key, with the right to write what the key stands for.

    A claim can be lost: its process may be paused until others take it for dead, or its dataset may
    be replaced. Writes through the claim then fail and change nothing.
    """

    @abstractmethod
    def require(self) -> None:
        """Raise ClaimLostError unless the key is still held; on S3, renew the lease."""

    @abstractmethod
    def write(self, key: str, *pieces: Piece) -> None:
        """Write an object from its pieces, replacing an existing one.

        Raises ClaimLostError instead, as `require`.
        """

    @abstractmethod
    def store(self) -> Store:
        """Return the location's zarr store for writing.

        Its writes raise ClaimLostError once the claim is lost.
        """


class Location(ABC):
    """Location of one dataset: a zarr store, and whole objects by key ("a/b/c").

    Objects appear and change atomically: a reader during a write, or after the writer was killed,
    gets the old object, the new one, or none.
    """

    url: str
    """Absolute path or URL."""

    @abstractmethod
    def store(self, *, read_only: bool) -> Store:
        """Return the zarr store."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Read an object; None where there is none."""

    @abstractmethod
    def open(self, key: str) -> io.BufferedIOBase | None:
        """Open an object for reading; None where there is none."""

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Replace an existing object.

        Raises FileNotFoundError where there is none: the dataset was removed or moved meanwhile.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Create an object; false, and nothing written, where one exists.

        Of several processes that create one key at once, exactly one gets true.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""

    @abstractmethod
    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys of all objects under a prefix that ends with "/", in no order."""

    @abstractmethod
    def is_free(self) -> bool:
        """True where the location is empty but for partial files of killed writers."""

    @abstractmethod
    def delete_all(self) -> None:
        """Delete everything, the root document last, so that a killed deletion can be repeated."""

    @abstractmethod
    def tidy(self) -> None:
        """Delete partial files of killed writers."""

    @abstractmethod
    def sibling(self, suffix: str) -> "Location":
        """Return the location beside this one whose name has the suffix."""

    @abstractmethod
    def take_over(self, other: "Location", claim: Claim) -> None:
        """Replace the content by a sibling's under a claim; a killed move can be repeated.

        Raises ClaimLostError where another process has taken the claim over, to do the same.
        """

    @abstractmethod
    def adopt(self, other: "Location", keys: Iterable[str]) -> None:
        """Link or copy a sibling's objects in this order; existing ones stay."""

    @abstractmethod
    def claim(self, key: str, wait_s: float = CLAIM_WAIT_S) -> AbstractContextManager[Claim]:
        """Claim a key exclusively while the context is open; a dead holder's claim ends.

        Raises DatasetBusyError when another process still holds it after `wait_s` seconds.
        """

    @abstractmethod
    def os_errors(self) -> AbstractContextManager[None]:
        """Return a context in which failures of the zarr store are OSErrors."""
