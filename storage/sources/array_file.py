"""Files of named arrays, read by rows; nothing in them is ever unpickled."""

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from storage.errors import SourceError


def open_array_file(path: Path) -> "ArrayFile":
    """Return an .h5 or .npz file; raises SourceError when it is missing or of another format."""
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    if path.suffix in (".h5", ".hdf5"):
        return H5File(path)
    if path.suffix == ".npz":
        return NpzFile(path)
    raise SourceError(f"file {path} is neither .h5 nor .npz")


class ArrayFile(ABC):
    """Arrays by key; can be pickled, and read by threads and processes at once."""

    def __init__(self, path: Path) -> None:
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
        """Return rows start to stop − 1 of an array; text as str."""
        with self._errors():
            return self._rows(key, start, stop)

    @abstractmethod
    def _keys(self) -> list[str]: ...

    @abstractmethod
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None: ...

    @abstractmethod
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]: ...

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the libraries' ways of saying that a file is damaged into one."""
        try:
            yield
        except SourceError:
            raise
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(error) from error
        except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(f"{self.path} is damaged, or no {self.path.suffix} file: {error}")


class H5File(ArrayFile):
    """An HDF5 file; opened anew for every reading: its handles bear neither fork nor pickle."""

    @override
    def _keys(self) -> list[str]:
        keys: list[str] = []
        with h5py.File(self.path, "r") as file:
            file.visititems(
                lambda key, node: keys.append(key) if isinstance(node, h5py.Dataset) else None
            )
        return keys

    @override
    def _look(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        with h5py.File(self.path, "r") as file:
            node = file.get(key)
            return (node.shape, node.dtype) if isinstance(node, h5py.Dataset) else None

    @override
    def _rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        with h5py.File(self.path, "r") as file:
            array = file[key]
            if h5py.check_string_dtype(array.dtype) is not None:
                array = array.asstr("utf-8", errors="backslashreplace")
            return np.asarray(array[start:stop])


class NpzFile(ArrayFile):
    """A NumPy archive; its arrays can only be read whole, so those that are used stay in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._loaded: dict[str, NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type["NpzFile"], tuple[Path]]:
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
        rows = self._array(key)[start:stop]
        return np.char.decode(rows, errors="backslashreplace") if rows.dtype.kind == "S" else rows

    def _array(self, key: str) -> NDArray[Any]:
        if key not in self._loaded:
            with self._open() as file:
                self._loaded[key] = file[key]
        return self._loaded[key]

    @contextmanager
    def _open(self) -> Iterator[Any]:
        # NumPy leaves the file open when it is damaged, unless the file is not its own.
        with self.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file
