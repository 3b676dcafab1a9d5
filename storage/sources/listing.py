"""Listing of a folder with millions of files: arrays of names and sizes, no object a file."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError

Split = Callable[[str], tuple[str, int] | None]
"""From a file's name to its sample's name and its place among the sample's files, or None."""

ENTRIES_AT_ONCE = 8_192
"""Names that are Python objects at a time."""

NOT_UTF8 = "\N{REPLACEMENT CHARACTER}x"
"""Escape, before two hexadecimal digits, of a byte of a file's name that is no UTF-8."""


class _Found(NamedTuple):
    """Samples of one folder, or some of its files."""

    names: NDArray[np.bytes_]
    """UTF-8, whose order is that of the text. Fixed-width: NumPy up to 2.4 compares and searches
    arrays of StringDType wrongly (numpy issue 31533)."""
    num_bytes: NDArray[np.int64]
    """[N, files of a sample]; 0 where there is none."""


class Listing:
    """The samples of a folder and of the folders in it, in an order that follows from their names.

    Args:
        root: The folder; links to folders are not followed.
        split: Maps a file's name to its sample; other files are ignored.
        num_files: Files that a sample may have.
        by_number: Names are decimal numbers of at most 18 digits, and sorted as such.

    Raises SourceError when there is no such folder.
    """

    def __init__(
        self, root: Path, split: Split, num_files: int = 1, *, by_number: bool = False
    ) -> None:
        if not root.is_dir():
            raise SourceError(f"there is no folder {root}; name the one that holds the samples")
        self.root = root
        found = dict(sorted(_list_folders(root, split, num_files, by_number)))
        self._folders = list(found)
        counts = [len(of.names) for of in found.values()]
        self._folder = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        nothing = _Found(_encoded([]), np.zeros((0, num_files), np.int64))
        self._names, self.num_bytes = (
            np.concatenate(column) for column in zip(nothing, *found.values(), strict=True)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what a process needs that reads samples: not the sizes, of which the digest is."""
        return {**vars(self), "num_bytes": None}

    def __len__(self) -> int:
        return len(self._names)

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of samples start to stop − 1, with the folders that they are in.

        Bytes that are no UTF-8 are written out after NOT_UTF8: no file has such a name.
        """
        folders = (self._folders[number] for number in self._folder[start:stop].tolist())
        names = self._names[start:stop].tolist()
        return [
            _text(f"{folder}{os.fsdecode(name)}")
            for folder, name in zip(folders, names, strict=True)
        ]

    def digest(self) -> str:
        """Return a digest of all names and sizes."""
        sha = hashlib.sha256()
        for start in range(0, len(self), ENTRIES_AT_ONCE):
            stop = start + ENTRIES_AT_ONCE
            sizes = self.num_bytes[start:stop].tolist()
            lines = zip(self.ids(start, stop), sizes, strict=True)
            sha.update("".join(f"{name} {' '.join(map(str, of))}\n" for name, of in lines).encode())
        return sha.hexdigest()


def _list_folders(
    root: Path, split: Split, num_files: int, by_number: bool
) -> Iterator[tuple[str, _Found]]:
    """Yield every folder that holds samples, as the beginning of their names ("", "a/b/")."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        parts = []
        with os.scandir(root / folder) as entries:
            while True:
                part, folders, more = _list_some(entries, split, num_files)
                parts.append(part)
                waiting.extend(f"{folder}{name}/" for name in folders)
                if not more:
                    break
        found = _merged(parts, by_number)
        if len(found.names):
            yield folder, found


def _list_some(
    entries: "Iterator[os.DirEntry[str]]", split: Split, num_files: int
) -> tuple[_Found, list[str], bool]:
    """Return the next files of samples, the folders among them, and whether there may be more."""
    names, places, sizes, folders = [], [], [], []
    more = False
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
            continue
        of_sample = split(entry.name)
        if of_sample is None:
            continue
        num_bytes = _num_bytes(entry)
        if num_bytes is None:
            continue
        names.append(of_sample[0])
        places.append(of_sample[1])
        sizes.append(num_bytes)
        more = len(names) == ENTRIES_AT_ONCE
        if more:
            break
    of_files = np.zeros((len(names), num_files), np.int64)
    of_files[np.arange(len(names)), np.array(places, np.intp)] = sizes
    return _Found(_encoded(names), of_files), folders, more


def _num_bytes(entry: "os.DirEntry[str]") -> int | None:
    """Return a file's size; None for a pipe, socket or device, which reading might wait on."""
    try:
        status = entry.stat()
    except OSError:  # a dangling link, or a file removed meanwhile: reading it gives the error
        return 0
    regular = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return status.st_size if regular else None


def _encoded(names: list[str]) -> NDArray[np.bytes_]:
    return np.array(list(map(os.fsencode, names)), np.bytes_)


def _text(name: str) -> str:
    """Return a name with the bytes written out that are no UTF-8."""
    if name.isascii():
        return name
    return "".join(
        f"{NOT_UTF8}{ord(each) - 0xDC00:02x}" if "\udc80" <= each <= "\udcff" else each
        for each in name
    )


def _merged(parts: list[_Found], by_number: bool) -> _Found:
    """Return the samples of one folder in order, each once; the parts are used up."""
    names = np.concatenate([part.names for part in parts])
    num_bytes = np.concatenate([part.num_bytes for part in parts])
    parts.clear()
    order = _order(names, by_number)
    names, num_bytes = names[order], num_bytes[order]
    del order
    if not len(names):
        return _Found(names, num_bytes)
    firsts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    return _Found(names[firsts], np.maximum.reduceat(num_bytes, firsts))


def _order(names: NDArray[np.bytes_], by_number: bool) -> NDArray[np.intp]:
    if by_number:
        return np.lexsort([np.strings.str_len(names), names.astype(np.int64)])
    return np.argsort(names, kind="stable")
