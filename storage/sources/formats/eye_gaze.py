"""Kaggle's 4quant/eye-gaze: gaze.h5 and real_gaze.h5.

The files have one HDF5 dataset per sample. gaze.h5 has the groups `image` and `look_vec` (UnityEyes
renders: y up), real_gaze.h5 `image` alone; a sample has the same key in each. Keys sort as text.
"""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from pydantic import JsonValue
from typing_extensions import override

from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import GAZE, Domain, LabelSpec, PixelType, Preprocess
from storage.sources.crop import Size, centre_box, crop_and_resize
from storage.sources.gaze_angles import directions
from storage.sources.h5_file import opened_h5
from storage.sources.options import SizedOptions
from storage.sources.registry import register
from storage.sources.rows import BadSampleError, Sample, read_rows

MAX_SIDE_PX = 8192
PIECES = 256
PIECE_BYTES = 1 << 16
"""Bytes of each piece that a file's digest covers; pieces are evenly spread."""

_UNREADABLE = (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
"""Errors of h5py on damaged files; OSErrors of the operating system itself have a number."""


@register
class EyeGazeOptions(SizedOptions):
    """`gaze.h5` or `real_gaze.h5` of Kaggle's 4quant/eye-gaze."""

    format: Literal["eye-gaze"] = "eye-gaze"
    file: Path
    """The file."""

    @override
    def open(self) -> "EyeGazeSource":
        return EyeGazeSource(self)


class EyeGazeSource:
    """The samples of one of the two files, named by their keys.

    With `look_vec` the images are synthetic, without it real and unlabelled. A sample whose image
    is not uint8 [H, W] or [H, W, 1], or that lacks its direction, is a row that is not valid.

    Raises SourceError where the file is missing, damaged or has no such groups.
    """

    name = "eye-gaze"
    preprocess: Preprocess = "none"
    dtype: PixelType = "uint8"
    decodes = True

    def __init__(self, given: EyeGazeOptions) -> None:
        self._path = file = given.file
        self._size = Size(given.height, given.width)
        self.image_shape = (*self._size, 1)
        if not self._path.is_file():
            raise SourceError(f"there is no file {file}")
        try:
            with opened_h5(self._path) as opened:
                groups = {name for name in opened if isinstance(opened.get(name), h5py.Group)}
                keys = list(opened["image"]) if "image" in groups else []
        except SourceError:
            raise
        except _UNREADABLE as error:
            raise SourceError(f"{file} is damaged, or no .h5 file: {error}") from error
        if not keys:
            raise SourceError(
                f"{file} has no group `image` with a dataset a sample; groups: {sorted(groups)}"
            )
        self._keys = sorted(keys)
        for key, after in pairwise(self._keys):
            if key == after:
                raise SourceError(f"{file} is damaged: it has {key!r} twice")
        labelled = "look_vec" in groups
        self.labels: tuple[LabelSpec, ...] = (GAZE,) if labelled else ()
        self.domain: Domain = "synthetic" if labelled else "real"
        self.options: dict[str, JsonValue] = {"size": [*self._size]}

    def __len__(self) -> int:
        return len(self._keys)

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the keys of samples start to stop − 1."""
        return self._keys[start:stop]

    def content_digest(self) -> str:
        """Return a digest of the file's size and of pieces of its content, at most 16 MiB."""
        size = self._path.stat().st_size
        sha = hashlib.sha256(str(size).encode())
        with self._path.open("rb") as file:
            for offset in range(0, size, max(PIECE_BYTES, size // PIECES)):
                file.seek(offset)
                sha.update(file.read(PIECE_BYTES))
        return sha.hexdigest()

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return samples start to stop − 1."""
        with opened_h5(self._path) as file:
            return read_rows(self, start, stop, lambda key: self._read_one(file, key))

    def _read_one(self, file: Any, key: str) -> Sample:
        image = _read(file, "image", key, MAX_SIDE_PX**2)
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (1,)) or image.ndim < 2:
            raise BadSampleError("the image is not uint8 [H, W]")
        frame = image.reshape(1, *image.shape[:2], 1)
        box = centre_box(Size(*image.shape[:2]), self._size)
        cut = crop_and_resize(frame, box, self._size)[0]
        if not self.labels:
            return cut, {}
        look = _read(file, "look_vec", key, 16).ravel()
        if look.dtype.kind not in "fiu" or len(look) < 3:
            raise BadSampleError("look_vec is no vector of numbers")
        gaze = directions(look[:3].astype(np.float64) * [1, -1, 1])
        if not np.isfinite(gaze).all():
            raise BadSampleError("the gaze is no direction")
        return cut, {"gaze": gaze}


def _read(file: Any, group: str, key: str, max_values: int) -> Any:
    """Return an array that is neither empty nor larger than it may be; raises BadSampleError."""
    try:
        node = file[group].get(key)
        if not isinstance(node, h5py.Dataset) or not 0 < node.size <= max_values:
            raise BadSampleError(f"{group} has no array of this name, or one of absurd size")
        return np.asarray(node[()])
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadSampleError(f"{group} does not read") from error
