"""Location in a folder on disk."""

import asyncio
import errno
import fcntl
import io
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import override
from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from storage.atomic_file import PARTIAL, atomic_write, partial_file, sync
from storage.errors import ClaimLostError, DatasetBusyError
from storage.location.base import CLAIM_WAIT_S, ROOT_DOCUMENT, Claim, Location, Piece
from storage.wrapping_store import WrappingStore

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Error numbers of file systems without hard links (FAT, some network and FUSE ones)."""


class LocalLocation(Location):
    """Location in a folder.

    A dataset that is a link is built, locked and replaced where it points to, on that disk; links
    in the path to it stay links.
    """

    def __init__(self, path: Path) -> None:
        self.url = os.path.abspath(path)  # noqa: PTH100
        self._path = Path(self.url)
        if self._path.is_symlink():
            self._path = Path(os.path.realpath(self.url))  # a ring of links is no error yet

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
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(path) as partial:
            partial.write_bytes(data)
            sync(partial)
            try:
                # A link is refused where the name exists, which a rename is not.
                path.hardlink_to(partial)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return self._create_by_lock(partial, key)
        sync(path.parent)
        return True

    def _create_by_lock(self, partial: Path, key: str) -> bool:
        """Create an object on a file system without hard links, under a lock on the folder.

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
    def take_over(self, other: Location, claim: Claim) -> None:
        """Rename this folder away, then the sibling here; a kill between the two loses neither."""
        claim.require()
        assert isinstance(other, LocalLocation)
        replaced = self._replaced()
        if replaced.is_symlink():  # as releases up to 0.2.0 left it of a dataset that was a link
            replaced.unlink()
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
        with partial_file(goal) as partial:
            shutil.copyfile(source, partial)
            sync(partial)
            if not goal.exists():
                partial.replace(goal)

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
        """Return the path of the old dataset while it is replaced and deleted."""
        return self._path.with_name(f"{self._path.name}.replaced")

    def _put(self, key: str, *pieces: Piece) -> None:
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.writelines(pieces)


class _FolderStore(LocalStore):
    """zarr's store of a folder, also on file systems without hard links."""

    @override
    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self._check_writable()
        place = LocalLocation(self.root)
        await asyncio.to_thread(place.create, key, value.to_bytes())


class _LocalClaim(Claim):
    """Claim by a lock on a file: a paused process keeps it; it is lost only with the folder."""

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
    """Store that writes to a folder while a claim is held."""

    def __init__(self, store: Store, claim: Claim) -> None:
        super().__init__(store)
        self._claim = claim

    @override
    async def set(self, key: str, value: Buffer) -> None:
        self._claim.require()
        await self._store.set(key, value)
