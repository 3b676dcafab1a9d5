"""Dataset locations: a folder on disk or a prefix in an S3 bucket, behind one interface.

    place = locate("data/eyes.zarr")        # or "s3://bucket/eyes.zarr"
    place.create("zarr.json", document)     # whole objects, atomically
    with place.claim("records/00003/claim") as claim:
        claim.store()                       # writes only while no other process is in here

S3 is set up by the variables that AWS and obstore define (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, …). What the machine or the network does is an OSError on both.
"""

import asyncio
import errno
import fcntl
import io
import json
import logging
import os
import re
import shutil
import socket
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout
from obstore import exceptions as obstore_errors
from obstore.store import S3Store
from typing_extensions import override
from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, ObjectStore

from storage.errors import ClaimLostError, DatasetBusyError, LocationError
from storage.wrapping_store import WrappingStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

logger = logging.getLogger(__name__)

ROOT_DOCUMENT = "zarr.json"
"""The key of a zarr group's own document: a dataset is where this is."""

PARTIAL = ".partial"
"""How the names of files end that are being written; zarr's own name theirs so too."""

CLAIM_WAIT_S = 600.0
"""How long an attempt waits for another one that is writing the same shard."""

# Long enough for a server to restart; then the task's own retries go on.
RETRIES: "RetryConfig" = {"max_retries": 8, "retry_timeout": timedelta(seconds=30)}

# obstore itself sends neither a conditional write nor a deletion again when a connection breaks.
RESEND_AFTER_S = (0.1, 0.5, 2.0, 8.0)

_METADATA_SERVICE = "169.254.169.254"
"""Where obstore asks for credentials when no variable has them."""

_ANSWERS = (
    FileNotFoundError,
    obstore_errors.NotFoundError,
    obstore_errors.AlreadyExistsError,
    obstore_errors.PreconditionError,
)
"""What a server says that was reached."""

LEASE_S = 120.0
"""How long a claim on S3 outlives a holder on another machine that fell silent. It is renewed
before every object that is written, so it has to last for one of them."""


_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""How file systems without hard links (FAT, some network and FUSE ones) refuse to make one."""

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


class LocalLocation(Location):
    """A folder."""

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.abspath(path))  # noqa: PTH100  links in the path stay links
        self.url = str(self._path)

    @override
    def store(self, *, read_only: bool) -> Store:
        return _FolderStore(self._path, read_only=read_only)

    @override
    def read(self, key: str) -> bytes | None:
        try:
            return (self._path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @override
    def open(self, key: str) -> io.BufferedIOBase | None:
        try:
            return (self._path / key).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None

    @override
    def replace(self, key: str, data: bytes) -> None:
        if not (self._path / key).exists():
            raise FileNotFoundError(f"{key} of {self.url} is gone")
        self._put(key, data)

    @override
    def create(self, key: str, data: bytes) -> bool:
        partial = self._partial(key, data)
        try:
            # A link is refused where the name exists, which a rename is not.
            (self._path / key).hardlink_to(partial)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return self._create_by_lock(partial, key)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def _create_by_lock(self, partial: Path, key: str) -> bool:
        """Put a file in place unless there is one, on a file system without hard links.

        Whoever creates objects of this place there takes the folder's lock.
        """
        folder = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if (self._path / key).exists():
                return False
            partial.replace(self._path / key)
            return True
        finally:
            os.close(folder)

    @override
    def delete(self, key: str) -> None:
        (self._path / key).unlink(missing_ok=True)

    @override
    def list_keys(self, prefix: str = "") -> Iterator[str]:
        for folder, _, names in os.walk(self._path / prefix):
            for name in names:
                yield (Path(folder) / name).relative_to(self._path).as_posix()

    @override
    def is_free(self) -> bool:
        if not os.path.lexists(self._path):
            return True
        return self._path.is_dir() and all(
            entry.name.endswith(PARTIAL) for entry in self._path.iterdir()
        )

    @override
    def delete_all(self) -> None:
        if not self._path.is_dir():
            return
        for entry in self._path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ROOT_DOCUMENT:
                entry.unlink()
        self.delete(ROOT_DOCUMENT)
        self._path.rmdir()

    @override
    def tidy(self) -> None:
        for key in list(self.list_keys()):
            if key.endswith(PARTIAL):
                self.delete(key)
        shutil.rmtree(self._replaced(), ignore_errors=True)

    @override
    def sibling(self, suffix: str) -> "LocalLocation":
        return LocalLocation(self._path.with_name(self._path.name + suffix))

    @override
    def take_over(self, other: Location) -> None:
        """Rename what is here away, then the sibling here; a kill between the two loses neither."""
        assert isinstance(other, LocalLocation)
        replaced = self._replaced()
        if replaced.exists():
            shutil.rmtree(replaced)
        if self._path.exists():
            self._path.rename(replaced)
        other._path.rename(self._path)
        shutil.rmtree(replaced, ignore_errors=True)

    @override
    def adopt(self, other: Location, keys: Iterable[str]) -> None:
        """Link the files: none is ever changed in place, so two datasets may share one.

        They are copied on a file system without hard links.
        """
        assert isinstance(other, LocalLocation)
        for key in keys:
            (self._path / key).parent.mkdir(parents=True, exist_ok=True)
            try:
                (self._path / key).hardlink_to(other._path / key)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                self._copy(other._path / key, key)

    def _copy(self, source: Path, key: str) -> None:
        goal = self._path / key
        partial = goal.with_name(f"{goal.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            shutil.copyfile(source, partial)
            if not goal.exists():
                partial.replace(goal)
        finally:
            partial.unlink(missing_ok=True)

    @override
    @contextmanager
    def claim(self, key: str, wait_s: float = CLAIM_WAIT_S) -> Iterator[Claim]:
        # The operating system's lock on a file, which ends with its process however that ends. The
        # file stays, since others may be waiting on it.
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            raise DatasetBusyError(
                f"another attempt has been writing {key} of {self.url} for over {wait_s:.0f} s; "
                "wait for it, or end it, and run this again"
            ) from None
        try:
            yield _LocalClaim(self, self._path, key)
        finally:
            lock.release()

    @override
    def os_errors(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _replaced(self) -> Path:
        """Return where the old dataset is while it is being replaced and deleted."""
        return self._path.with_name(f"{self._path.name}.replaced")

    def _put(self, key: str, *pieces: Piece) -> None:
        self._partial(key, *pieces).replace(self._path / key)

    def _partial(self, key: str, *pieces: Piece) -> Path:
        """Write a file beside the key's place, to be put there at one stroke."""
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with partial.open("wb") as file:
                file.writelines(pieces)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        return partial


class _FolderStore(LocalStore):
    """zarr's store of a folder, where the file system need not have hard links."""

    @override
    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._check_writable()
        place = LocalLocation(self.root)
        await asyncio.to_thread(place.create, key, value.to_bytes())


class _LocalClaim(Claim):
    """A lock on a file: a paused process keeps it, and loses it only with the whole folder."""

    def __init__(self, place: LocalLocation, folder: Path, key: str) -> None:
        self._place, self._folder, self._key = place, folder, key
        self._inode = folder.stat().st_ino

    @override
    def require(self) -> None:
        try:
            found = self._folder.stat().st_ino
        except FileNotFoundError:
            found = None
        if found != self._inode:
            raise ClaimLostError(
                f"{self._place.url} was removed or replaced while {self._key} was held"
            )

    @override
    def write(self, key: str, *pieces: Piece) -> None:
        self.require()
        self._place._put(key, *pieces)

    @override
    def store(self) -> Store:
        return _GuardedStore(self._place.store(read_only=False), self)


class _GuardedStore(WrappingStore):
    """Writes to a folder while a claim is held."""

    def __init__(self, store: Store, claim: Claim) -> None:
        super().__init__(store)
        self._claim = claim

    @override
    async def set(self, key: str, value: Buffer) -> None:
        self._claim.require()
        await self._store.set(key, value)


class S3Location(Location):
    """A prefix in a bucket of any server that speaks S3, with conditional writes."""

    def __init__(self, bucket: str, name: str) -> None:
        self.url = f"s3://{bucket}/{name}"
        self._bucket, self._name = bucket, name
        options = _client_options()
        try:
            self._objects = S3Store(
                bucket, prefix=name, client_options=options, retry_config=RETRIES
            )
        except obstore_errors.BaseError as error:
            reason = str(error).split("\n", 1)[0]
            raise LocationError(
                f"{self.url} cannot be reached as the AWS_… variables are set: {reason}"
            ) from error

    @override
    def store(self, *, read_only: bool) -> Store:
        return ObjectStore(self._objects, read_only=read_only)

    @override
    def read(self, key: str) -> bytes | None:
        found = self._read_tagged(key)
        return None if found is None else found[0]

    @override
    def open(self, key: str) -> io.BufferedIOBase | None:
        found = self.read(key)
        return None if found is None else io.BytesIO(found)

    @override
    def replace(self, key: str, data: bytes) -> None:
        found = self._read_tagged(key)
        if found is None or not self._put_if(key, data, {"e_tag": found[1]}):
            raise FileNotFoundError(f"{key} of {self.url} is gone, or being written by another")

    @override
    def create(self, key: str, data: bytes) -> bool:
        return self._put_if(key, data, "create")

    @override
    def delete(self, key: str) -> None:
        with self.os_errors():
            self._sent(lambda: self._objects.delete(key))

    @override
    def list_keys(self, prefix: str = "") -> Iterator[str]:
        with self.os_errors():
            for page in self._objects.list(prefix or None):
                for entry in page:
                    yield entry["path"]

    @override
    def is_free(self) -> bool:
        return next(self.list_keys(), None) is None

    @override
    def delete_all(self) -> None:
        keys = [key for key in self.list_keys() if key != ROOT_DOCUMENT]
        with self.os_errors():
            self._sent(lambda: self._objects.delete(keys))
        self.delete(ROOT_DOCUMENT)

    @override
    def tidy(self) -> None:
        """Nothing to do: an object that was not put whole is not there."""

    @override
    def sibling(self, suffix: str) -> "S3Location":
        return S3Location(self._bucket, self._name + suffix)

    @override
    def take_over(self, other: Location) -> None:
        """Delete what is here, copy the sibling's objects on the server, delete the sibling.

        Root documents go first and come last, so that at any moment of it a root document stands
        in one of the two places and everything that it speaks of stands there too.
        """
        assert isinstance(other, S3Location)
        self.delete(ROOT_DOCUMENT)
        self.delete_all()
        bucket = S3Store(self._bucket, client_options=_client_options())
        for key in sorted(other.list_keys(), key=lambda key: key == ROOT_DOCUMENT):
            with self.os_errors():
                source, goal = f"{other._name}/{key}", f"{self._name}/{key}"
                self._sent(partial(bucket.copy, source, goal))
        other.delete(ROOT_DOCUMENT)
        other.delete_all()

    @override
    def adopt(self, other: Location, keys: Iterable[str]) -> None:
        """Copy the objects on the server."""
        assert isinstance(other, S3Location)
        bucket = S3Store(self._bucket, client_options=_client_options(), retry_config=RETRIES)
        for key in keys:
            with self.os_errors():
                bucket.copy(f"{other._name}/{key}", f"{self._name}/{key}")

    @override
    @contextmanager
    def claim(self, key: str, wait_s: float = CLAIM_WAIT_S) -> Iterator[Claim]:
        # An object that only one can create. It names its holder and when it ends, so that others
        # can tell a holder that died: at once on the same machine, after the lease elsewhere.
        claim = _S3Claim(self, key)
        deadline = time.monotonic() + wait_s
        while not claim.take():
            if time.monotonic() >= deadline:
                holder = _parse_claim(self.read(key)).get("host", "unknown")
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
    @contextmanager
    def os_errors(self) -> Iterator[None]:
        try:
            yield
        except obstore_errors.BaseError as error:
            # The rest of the message is obstore's own source of the error, many lines of it.
            reason = str(error).split("\n", 1)[0]
            if _METADATA_SERVICE in str(error):
                raise LocationError(
                    f"no credentials for {self.url}: neither AWS_ACCESS_KEY_ID with "
                    "AWS_SECRET_ACCESS_KEY is set, nor does a cloud's metadata service answer; "
                    "set them, or AWS_SKIP_SIGNATURE=true for a public bucket"
                ) from error
            raise ConnectionError(f"{self.url}: {reason}") from error

    def _read_tagged(self, key: str) -> tuple[bytes, str | None] | None:
        """Return an object and the tag of its version."""
        with self.os_errors():
            try:
                found = self._objects.get(key)
                return bytes(found.bytes()), found.meta["e_tag"]
            except (FileNotFoundError, obstore_errors.NotFoundError):
                return None

    def _tag_of(self, key: str) -> str | None:
        """Return the tag of an object's version, None where there is none."""
        with self.os_errors():
            try:
                return self._objects.head(key)["e_tag"]
            except (FileNotFoundError, obstore_errors.NotFoundError):
                return None

    def _put_if(self, key: str, data: bytes, mode: Any) -> bool:
        """Write an object under a condition; false when that does not hold.

        True also where the object already holds just these data.
        """
        with self.os_errors():
            try:
                self._sent(lambda: self._objects.put(key, data, mode=mode))
            except _ANSWERS:
                # Refused, or it was done before and the answer was lost on its way.
                return self.read(key) == data
        return True

    @staticmethod
    def _sent(request: Callable[[], object]) -> None:
        """Send a request that changes something, and again where the connection broke."""
        for pause_s in RESEND_AFTER_S:
            try:
                request()
            except _ANSWERS:
                raise
            except obstore_errors.BaseError:
                time.sleep(pause_s)
            else:
                return
        request()


class _S3Claim(Claim):
    """An object that says who holds the key and until when.

    Time alone protects nothing: a holder may be paused between looking at the clock and writing.
    So every object is written on condition that it is still the version that was there when the
    claim was last found to be held. Whoever takes the claim over writes all objects anew, and from
    then on the conditions of the former holder fail.
    """

    def __init__(self, place: S3Location, key: str) -> None:
        self._place, self._key = place, key
        self._token = uuid.uuid4().hex

    def take(self) -> bool:
        """Take the key if it is free or its holder is dead; false while another holds it."""
        found = self._place._read_tagged(self._key)
        if found is None:
            return self._place.create(self._key, self._document())
        held, e_tag = found
        return _is_abandoned(_parse_claim(held)) and self._put(e_tag)

    def give_up(self) -> None:
        """Free the key, unless another has taken it over."""
        document = self._place.read(self._key)
        if document is not None and self._holds(document):
            self._place.delete(self._key)

    @override
    def require(self) -> None:
        found = self._place._read_tagged(self._key)
        if found is None or not self._holds(found[0]) or not self._put(found[1]):
            raise ClaimLostError(
                f"another attempt took {self._key} of {self._place.url} over from this one"
            )

    @override
    def write(self, key: str, *pieces: Piece) -> None:
        data = b"".join(pieces)
        written = False
        while not written:
            # In this order: whoever takes the claim over after `require` changes the version.
            e_tag = self._place._tag_of(key)
            self.require()
            written = self._place._put_if(key, data, {"e_tag": e_tag} if e_tag else "create")

    @override
    def store(self) -> Store:
        return _FencedStore(self._place.store(read_only=False), self)

    def _put(self, e_tag: str | None) -> bool:
        """Write the claim over the version of it that is known."""
        return self._place._put_if(self._key, self._document(), {"e_tag": e_tag})

    def _holds(self, document: bytes) -> bool:
        return _parse_claim(document).get("token") == self._token

    def _document(self) -> bytes:
        claim = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "expires": time.time() + LEASE_S,
        }
        return json.dumps(claim).encode()


class _FencedStore(WrappingStore):
    """Writes to S3 while a claim is held."""

    def __init__(self, store: Store, claim: _S3Claim) -> None:
        super().__init__(store)
        self._claim = claim

    @override
    async def set(self, key: str, value: Buffer) -> None:
        # The claim speaks to the server itself and would hold up every other array meanwhile.
        await asyncio.to_thread(self._claim.write, key, value.to_bytes())


ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Variables that name the S3 server; the first one that is set counts."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EXPECTED_PLACE = "expected a path, file:///path or s3://bucket/name"


def _client_options() -> "ClientConfig":
    """Return how to speak to the server: plain HTTP is for one on this machine.

    Raises LocationError where the server's address is no URL, or plain HTTP would go elsewhere.
    """
    options: ClientConfig = {"timeout": timedelta(seconds=120)}
    variable = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if variable is None:
        return options
    endpoint = os.environ[variable]
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or parts.query:
        raise LocationError(
            f"{variable} is {endpoint!r}: expected the S3 server's address with its protocol, such "
            "as https://s3.example.org or http://127.0.0.1:9000"
        )
    if parts.scheme == "http":
        allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
        if host not in _LOOPBACK and not allowed:
            raise LocationError(
                f"{variable} is {endpoint!r}: plain HTTP to another machine shows images and keys "
                "to the network between; use https://, or set AWS_ALLOW_HTTP=true where the "
                "network is trusted"
            )
        options["allow_http"] = True
    return options


def _parse_claim(document: bytes | None) -> dict[str, Any]:
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


_URL_LIKE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:/|(?:s3|s3a|s3n|gs|az|https?|file):", re.IGNORECASE
)
"""How a URL begins, or what is meant to be one ("s3:/bucket/name", "file:name")."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def locate(url: str | os.PathLike[str]) -> Location:
    """Return the place that a path or URL names; nothing there is touched.

    Raises LocationError for text that is neither a path nor file:///path nor s3://bucket/name.
    """
    text = os.fspath(url)
    if not text.strip() or "\0" in text:
        raise LocationError(f"{text!r} names no place for a dataset: {_EXPECTED_PLACE}")
    if "://" not in text and not _URL_LIKE.match(text):
        return LocalLocation(Path(text))
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise LocationError(f"{text!r} is no URL ({error}): {_EXPECTED_PLACE}") from error
    if "://" not in text:
        raise LocationError(
            f"{text!r} looks like a URL and is none: {_EXPECTED_PLACE}, and ./{text} if it is a "
            "path"
        )
    if "?" in text or "#" in text:
        raise LocationError(
            f"{text!r} has a query or fragment, from '?' or '#' on, which no dataset's URL has: "
            f"{_EXPECTED_PLACE}"
        )
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.strip("/"):
        return LocalLocation(Path(unquote(parts.path)))
    if parts.scheme == "file" and parts.netloc:
        raise LocationError(
            f"{text!r} names the machine {parts.netloc!r}, and only this one's files are read: "
            "mount its folder here and give the path, or write file:///path with three slashes"
        )
    name = parts.path.strip("/")
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc) and name:
        return S3Location(parts.netloc, name)
    raise LocationError(f"{text!r} names no place for a dataset: {_EXPECTED_PLACE}")
