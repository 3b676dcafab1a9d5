"""Files of named arrays, read by rows; nothing is unpickled."""

import errno
import io
import os
import tokenize
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray
from typing_extensions import override
from zarr.errors import ZarrUserWarning

from storage.errors import SourceError
from storage.location import locate
from storage.sources.h5_file import opened_h5

_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of NumPy, h5py and zarr on damaged files, beside OSErrors without a number."""

_ERRNOS_OF_DAMAGE = (None, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)
"""Error numbers of OSErrors that are faults of the file: a folder instead, a bad offset."""


def open_array_file(place: str) -> "ArrayFile":
    """Open the arrays at a path or URL; raises SourceError where there are none.

    .h5 and .npz files; a folder of .npy files, or one of them, by the files' names without .npy;
    a zarr group of version 2 or 3 in a folder or on S3.
    """
    if "://" in place:
        return ZarrGroup(place)
    path = Path(place)
    if path.is_dir():
        is_group = any((path / name).exists() for name in ("zarr.json", ".zgroup"))
        return ZarrGroup(str(path)) if is_group else NpyFolder(str(path))
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    kinds: dict[str, Callable[[str], ArrayFile]] = {
        ".h5": H5File,
        ".hdf5": H5File,
        ".npz": NpzFile,
        ".npy": NpyFolder,
    }
    if path.suffix not in kinds:
        raise SourceError(f"{path} is neither .h5, .npz, .npy nor a folder of .npy or zarr arrays")
    return kinds[path.suffix](str(path.parent if path.suffix == ".npy" else path))


class ArrayFile(ABC):
    """Arrays by key; can be pickled, and read by threads and processes at once."""

    def __init__(self, path: str) -> None:
        self.path = path

    def look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and type; raises SourceError, listing the keys there are."""
        with self._errors():
            found = self._look(key)
            if found is None:
                keys = ", ".join(sorted(self._keys())) or "none"
                raise SourceError(f"{self.path} has no array {key!r}; there are: {keys}")
            return found

    def rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows start to stop − 1 of an array, in C's order; text as str.

        The array is perhaps not to be written to.
        """
        with self._errors():
            return np.ascontiguousarray(self._rows(key, start, stop))

    @abstractmethod
    def _keys(self) -> list[str]: ...

    @abstractmethod
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None: ...

    @abstractmethod
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]: ...

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert the libraries' errors on damaged files to SourceErrors."""
        try:
            yield
        except SourceError:
            raise
        except OSError as error:
            if error.errno not in _ERRNOS_OF_DAMAGE:
                raise
            raise self._damaged(error) from error
        except _UNREADABLE as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(f"{self.path} is damaged, or not what its name says: {error}")


class H5File(ArrayFile):
    """An HDF5 file, opened for every read, since its handles survive neither fork nor pickling."""

    @override
    def _keys(self) -> list[str]:
        keys: list[str] = []
        with opened_h5(self.path) as file:
            file.visititems(
                lambda key, node: keys.append(key) if isinstance(node, h5py.Dataset) else None
            )
        return keys

    @override
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        with opened_h5(self.path) as file:
            node = file.get(key)
            return (node.shape, node.dtype) if isinstance(node, h5py.Dataset) else None

    @override
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        with opened_h5(self.path) as file:
            array = file[key]
            if h5py.check_string_dtype(array.dtype) is not None:
                array = array.asstr("utf-8", errors="backslashreplace")
            return np.asarray(array[start:stop])


class NpzFile(ArrayFile):
    """A NumPy archive; its arrays can only be read whole, so those that are used stay in memory."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._loaded: dict[str, NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type["NpzFile"], tuple[str]]:
        return NpzFile, (self.path,)

    @override
    def _keys(self) -> list[str]:
        with self._open() as file:
            return list(file.files)

    @override
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        if key not in self._keys():
            return None
        array = self._array(key)
        return array.shape, array.dtype

    @override
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        return _text(self._array(key)[start:stop])

    def _array(self, key: str) -> NDArray[Any]:
        if key not in self._loaded:
            with self._open() as file:
                self._loaded[key] = file[key]
        return self._loaded[key]

    @contextmanager
    def _open(self) -> Iterator[Any]:
        # NumPy leaves the file open when it is damaged, unless the file is not its own.
        with Path(self.path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file


class NpyFolder(ArrayFile):
    """The .npy files of a folder, by their names without the suffix.

    Read and not mapped: where a mapped file is cut, the operating system ends the process. Arrays
    in Fortran's order can only be read whole, so those that are used stay in memory.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._loaded: dict[str, NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type["NpyFolder"], tuple[str]]:
        return NpyFolder, (self.path,)

    @override
    def _keys(self) -> list[str]:
        # Opening a pipe waits until somebody writes to it.
        return [file.stem for file in Path(self.path).glob("*.npy") if file.is_file()]

    @override
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        if key not in self._keys():
            return None
        with self._open(key) as file:
            shape, _, dtype = _read_npy_header(file)
        return shape, dtype

    @override
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        with self._open(key) as file:
            shape, in_fortran_order, dtype = _read_npy_header(file)
            if in_fortran_order and len(shape) > 1:
                return self._whole(key)[start:stop]
            if dtype.hasobject:
                raise ValueError("object arrays are not read")
            start, stop = min(start, shape[0]), min(stop, shape[0])
            rows = np.empty((stop - start, *shape[1:]), dtype)
            row_bytes = rows.nbytes // max(1, stop - start)
            file.seek(start * row_bytes, os.SEEK_CUR)
            if rows.nbytes and file.readinto(rows.reshape(-1).view(np.uint8).data) != rows.nbytes:
                raise EOFError(f"{key}.npy ends before row {stop}")
        return _text(rows)

    def _whole(self, key: str) -> NDArray[Any]:
        if key not in self._loaded:
            with self._open(key) as file:
                self._loaded[key] = np.load(file, allow_pickle=False)
        return self._loaded[key]

    def _open(self, key: str) -> io.BufferedReader:
        return (Path(self.path) / f"{key}.npy").open("rb")


def _read_npy_header(file: io.BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return an .npy file's shape, whether it is in Fortran's order, and its type."""
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, in_fortran_order, dtype = read(file)
    return shape, in_fortran_order, dtype


class ZarrGroup(ArrayFile):
    """A zarr group on disk or on S3, by the paths of its arrays ("images", "labels/gaze")."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._place = locate(path)
        # To open an array takes as long as to read some thousand images of it.
        self._opened: dict[str, zarr.Array[Any]] = {}

    def __reduce__(self) -> tuple[type["ZarrGroup"], tuple[str]]:
        return ZarrGroup, (self.path,)

    @override
    def _keys(self) -> list[str]:
        with warnings.catch_warnings():
            # zarr warns of damaged members.
            warnings.simplefilter("ignore", ZarrUserWarning)
            members = self._group().members(max_depth=None)
        return [key for key, node in members if isinstance(node, zarr.Array)]

    @override
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        node = self._group().get(key)
        if not isinstance(node, zarr.Array):
            return None
        self._opened[key] = node
        return node.shape, np.dtype(node.dtype)

    @override
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        if key not in self._opened and self._look(key) is None:
            raise KeyError(key)
        return _text(np.asarray(self._opened[key][start:stop]))

    def _group(self) -> "zarr.Group":
        with self._place.os_errors():
            return zarr.open_group(self._place.store(read_only=True), mode="r")


def _text(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows with text as str."""
    return np.char.decode(rows, errors="backslashreplace") if rows.dtype.kind == "S" else rows
