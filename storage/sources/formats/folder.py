"""A folder of images, unlabelled or with a table of labels keyed by file name."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from typing_extensions import override

from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import LANDMARKS_PX, Domain, PixelType, Preprocess
from storage.sources.crop import Box, Size, centre_box, crop_and_resize, scaled, sufficient
from storage.sources.image_file import SUFFIXES, Bits, Channels, opened_image, split_image_name
from storage.sources.label_table import LabelTable
from storage.sources.landmark_crop import FindsLandmarks, crop_about_corners
from storage.sources.listing import Listing
from storage.sources.options import CroppedOptions, Side
from storage.sources.registry import register
from storage.sources.rows import BadSampleError, Sample, read_rows, rejected

FIRST_IMAGES = 100
"""Images that decide the usual size and depth."""

TABLES = ("labels.csv", "labels.parquet")


@register
class FolderOptions(CroppedOptions):
    """A folder of png, jpg, bmp or tiff images, unlabelled or with labels.csv or labels.parquet."""

    format: Literal["folder"] = "folder"
    folder: Path
    """The folder; nested folders are read too."""
    channels: Channels = 1
    """1: grey, 3: colour."""
    domain: Literal["synthetic", "real"] = "real"
    """Domain of the images."""
    size: tuple[Side, Side] | None = None
    """Height and width to crop and resize to, in pixels; by default those of most images."""

    @override
    def open_with(self, find: FindsLandmarks | None) -> "FolderSource":
        return FolderSource(self, find)


class FolderSource:
    """The png, jpg, bmp and tiff images in a folder and the folders in it, named "a/12.png".

    Images are cut from the middle, or midway between the corners that `find` returns, to the
    proportions of `size` and resized; without a size, to
    the most frequent one of the first 100. They keep their 8 or 16 bits, all as most of these.
    Where the folder has a
    `labels.csv` or `labels.parquet` (see `LabelTable`), an image without a row in it is not valid.
    """

    name = "folder"
    preprocess: Preprocess = "none"
    decodes = True

    def __init__(self, given: FolderOptions, find: FindsLandmarks | None = None) -> None:
        self._folder = given.folder
        self._channels: Channels = given.channels
        self.domain: Domain = given.domain
        self._files = Listing(self._folder, split_image_name)
        if not len(self._files):
            raise SourceError(
                f"folder {self._folder} holds no image; expected {', '.join(sorted(SUFFIXES))}"
            )
        usual, self._bits = self._look_at_first()
        self._size = usual if given.size is None else Size(*given.size)
        self.image_shape = (*self._size, given.channels)
        self.dtype: PixelType = "uint16" if self._bits == 16 else "uint8"
        self._table = self._open_table()
        self.labels = () if self._table is None else self._table.labels
        self.options: dict[str, JsonValue] = {"size": [*self._size], "channels": given.channels}
        if self._table is not None:
            self.options["labels"] = [label.name for label in self.labels]
        self._find = find
        if find is not None:
            self.labels = (*self.labels, LANDMARKS_PX)
            self.options |= {"crop": given.crop, "landmarks": find.digest}
        self._digest = self._files.digest()

    def __len__(self) -> int:
        return len(self._files)

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of images start to stop − 1."""
        return self._files.ids(start, stop)

    def content_digest(self) -> str:
        """Return a digest of the images' names and sizes, and of the table."""
        return self._digest if self._table is None else f"{self._digest} {self._table.digest}"

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return images start to stop − 1."""
        return read_rows(self, start, stop, self._read_one)

    def _read_one(self, name: str) -> Sample:
        with opened_image(self._folder / name) as image:
            if image.bits != self._bits:
                raise BadSampleError(
                    f"the image has {image.bits} bits a grey level, most have {self._bits}"
                )
            size = image.size
            box = centre_box(size, self._size)
            frame = image.read(self._channels, sufficient(size, box, self._size))
        decoded = Size(*frame.shape[:2])
        if self._find is None:
            image_of_size = crop_and_resize(frame[None], scaled(box, size, decoded), self._size)[0]
            return image_of_size, self._labels(name, box)
        found = crop_about_corners(frame[None], self._find, self._size)
        box = scaled(Box(*found.boxes[0].tolist()), decoded, size)
        labels = {**self._labels(name, box), LANDMARKS_PX.name: found.landmarks[0]}
        return found.images[0], labels

    def _labels(self, name: str, box: Box) -> dict[str, NDArray[np.float32]]:
        return {} if self._table is None else self._table.find(name, box, self._size)

    def _look_at_first(self) -> tuple[Size, Bits]:
        """Return the usual size and depth: one file with a damaged head does not decide them."""
        seen: Counter[tuple[Size, Bits]] = Counter()
        reason = ""
        for name in self.ids(0, FIRST_IMAGES):
            try:
                with opened_image(self._folder / name) as image:
                    seen[image.size, image.bits] += 1
            except Exception as error:  # noqa: BLE001  one bad file does not decide
                reason = rejected(0, name, error).reason
        if not seen:
            raise SourceError(f"no image of {self._folder} can be read: {reason}")
        return seen.most_common(1)[0][0]

    def _open_table(self) -> LabelTable | None:
        found = [path for name in TABLES if (path := self._folder / name).is_file()]
        if len(found) > 1:
            raise SourceError(f"{self._folder} holds {' and '.join(TABLES)}; keep one of them")
        return LabelTable(found[0], self._files) if found else None
