"""Folder of images that belong to the rows of a dataset by their names."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.sources.crop import Size
from storage.sources.image_file import SUFFIXES, Channels, OpenImage, opened_image, split_image_name
from storage.sources.listing import Listing
from storage.sources.rows import BadSampleError

_NAMES_SHOWN = 3


class NamedImages:
    """The png, jpg, bmp and tiff images of a folder, 8 bits, each found by a row's id.

    The image of the row "p00/12" is p00/12.png, or another format's; that of "12.jpg" is 12.jpg,
    12.png or 12.jpg.png. Raises SourceError where there is no image.
    """

    def __init__(self, folder: Path, size: Size, channels: Channels) -> None:
        self._folder, self._size, self._channels = folder, size, channels
        listing = Listing(folder, split_image_name)
        self._names = listing.ids(0, len(listing))
        if not self._names:
            raise SourceError(
                f"folder {folder} holds no image; expected {', '.join(sorted(SUFFIXES))}"
            )
        self._files: Mapping[str, str] = {}

    def digest(self) -> str:
        """Return the SHA-256 of all names and contents."""
        digest = hashlib.sha256()
        for name in self._names:
            content = (self._folder / name).read_bytes()
            digest.update(f"{name}\n{len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    def assign(self, required: Iterable[str], others: Iterable[str] = ()) -> None:
        """Find the image of each row; `others` are ids of rows that may have one.

        Raises SourceError where an image is missing, belongs to no row, or where it is not clear
        whose it is.
        """
        files = set(self._names)
        by_stem: dict[str, list[str]] = {}
        for name in self._names:
            by_stem.setdefault(_stem(name), []).append(name)

        def file_of(sample_id: str) -> str | None:
            if sample_id in files:
                return sample_id
            found = by_stem.get(_stem(sample_id), [])
            if len(found) > 1:
                raise SourceError(
                    f"folder {self._folder}: {' and '.join(found[:_NAMES_SHOWN])} could each be "
                    f"the image of row {sample_id!r}; keep one of them"
                )
            return found[0] if found else None

        required = list(required)
        found = {sample_id: file_of(sample_id) for sample_id in required}
        self._require_none("lacks the image of", [row for row in required if found[row] is None],
                           "rows", "write one for each valid row, named by its id")  # fmt: skip
        self._files = {row: name for row, name in found.items() if name is not None}
        rows: dict[str, str] = {}
        for row, name in self._files.items():
            if (other := rows.setdefault(name, row)) != row:
                raise SourceError(
                    f"folder {self._folder}: {name} would be the image of the rows {other!r} and "
                    f"{row!r}; name each image by its row's whole id"
                )
        free = {file_of(sample_id) for sample_id in others}
        extra = [name for name in self._names if name not in rows and name not in free]
        self._require_none("holds", extra, "images that belong to no row of the dataset",
                           "remove them, or name them by the rows' ids")  # fmt: skip

    def require_fitting(self) -> None:
        """Raise SourceError where an assigned image has another size or depth, or is damaged."""
        faults = [
            f"{name} ({fault})"
            for name in self._files.values()
            if (fault := self._fault(self._folder / name)) is not None
        ]
        height, width = self._size
        self._require_none(
            "holds",
            faults,
            f"images that are not {height}x{width} pixels (height x width) of 8 bits",
            "write the refined images in the dataset's size",
        )

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        """Return the images of rows, uint8 [N, H, W, C]; SourceError for one that is damaged."""
        images = np.empty((len(ids), *self._size, self._channels), np.uint8)
        for place, sample_id in enumerate(ids):
            path = self._folder / self._files[sample_id]
            try:
                with opened_image(path) as image:
                    _require_kind(image, self._size)
                    images[place] = image.read(self._channels)
            except BadSampleError as error:
                raise SourceError(
                    f"image {path}: {error}; write it again and run the same command"
                ) from error
        return images

    def _fault(self, path: Path) -> str | None:
        try:
            with opened_image(path) as image:
                _require_kind(image, self._size)
        except BadSampleError as error:
            return str(error)
        return None

    def _require_none(self, verb: str, names: list[str], what: str, remedy: str) -> None:
        if not names:
            return
        shown = ", ".join(names[:_NAMES_SHOWN])
        more = ", …" if len(names) > _NAMES_SHOWN else ""
        raise SourceError(
            f"folder {self._folder} {verb} {len(names)} {what}: {shown}{more}; {remedy}"
        )


def _require_kind(image: OpenImage, size: Size) -> None:
    if image.size != size or image.bits != 8:
        raise BadSampleError(
            f"{image.size.height}x{image.size.width} pixels of {image.bits} bits, expected "
            f"{size.height}x{size.width} of 8"
        )


def _stem(name: str) -> str:
    """Return a name without the suffixes of image formats at its end."""
    while (path := Path(name)).suffix.lower() in SUFFIXES:
        name = str(path.with_suffix(""))
    return name
