"""SynthesEyes (Wood et al., ICCV 2015): folders of X.png with X.pkl.

In the files points have their origin at the top left, and `look_vec` has y down. The angles in a
file's name are nominal, and are not read; nor is `head_pose`, a matrix whose direction nothing in
the files settles.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from typing_extensions import override

from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import (
    GAZE,
    IRIS_PX,
    LANDMARKS_PX,
    LID_PX,
    PUPIL_PX,
    Domain,
    LabelSpec,
    PixelType,
    Preprocess,
)
from storage.sources.crop import Box, Size, box_around, centre_box, crop_and_resize, to_crop
from storage.sources.image_file import Channels, opened_image
from storage.sources.landmark_crop import FindsLandmarks, landmark_boxes
from storage.sources.listing import Listing
from storage.sources.options import CroppedOptions, SizedOptions
from storage.sources.plain_pickle import NotPlainError, load_plain
from storage.sources.registry import register
from storage.sources.rows import BadSampleError, Sample, read_rows

MAX_LABEL_BYTES = 1 << 16

_CARUNCLE, _OUTER_CORNER = 0, 6
"""Points of the lids at the nose, where the sclera meets the caruncle, and at the ear."""
_TIP_OF_HEAD = {
    **{"f01": (-8, 3), "f02": (-15, 4), "f03": (-15, 2), "f04": (-13, 8), "f05": (-12, 3)},
    **{"m01": (-9, 3), "m02": (-15, 2), "m03": (-17, 5), "m04": (-12, 6), "m05": (-13, 4)},
}
"""Offset of the inner corner's tip from the caruncle's edge, x and y in pixels of a frame
120 wide: measured by eye, ± 2 px. The files have no point there, and landmarks of faces do."""
_TIP_OF_OTHERS = (-13, 4)
_FRAME_WIDTH = 120

IRIS_8_PX = IRIS_PX.model_copy(update={"shape": (8, 2)})
LID_12_PX = LID_PX.model_copy(update={"shape": (12, 2)})


@register
class SynthesEyesOptions(SizedOptions, CroppedOptions):
    """A folder of `X.png` + `X.pkl`; the pickles are read without running anything in them."""

    format: Literal["syntheseyes"] = "syntheseyes"
    folder: Path
    """The folder; nested folders are read too."""
    crop: Literal["frame", "corners", "landmarks"] = "frame"  # type: ignore[assignment]
    """Centre of the crop. frame: the frame's middle; corners: midway between the eye's corners, by
    the labels; landmarks: midway between those that the landmark network finds. Use one rule for
    both domains of a training."""
    channels: Channels = 1
    """1: grey, 3: colour."""

    @override
    def open_with(self, find: FindsLandmarks | None) -> "SynthesEyesSource":
        return SynthesEyesSource(self, find)


class SynthesEyesSource:
    """The pairs in a folder and the folders in it, named by their relative stem ("f01/f01_10_…").

    The image is cut from the frame's middle ("frame"), or midway between the eye's corners, the
    inner one's tip estimated by head ("corners"), or both found in the image by `find`
    ("landmarks"); as wide as the frame allows in its middle. The
    pupil label is the mean of the pupil's eight points. A pair that lacks a file, does not decode
    or has other labels is a row that is not valid.
    """

    name = "syntheseyes"
    domain: Domain = "synthetic"
    preprocess: Preprocess = "none"
    dtype: PixelType = "uint8"
    decodes = True

    def __init__(self, given: SynthesEyesOptions, find: FindsLandmarks | None = None) -> None:
        self._folder = given.folder
        self._size = Size(given.height, given.width)
        self._crop = given.crop
        self._channels: Channels = given.channels
        self.options: dict[str, JsonValue] = {"size": [*self._size], "channels": given.channels}
        if given.crop != "frame":
            self.options["crop"] = given.crop
        self.labels: tuple[LabelSpec, ...] = (GAZE, PUPIL_PX, IRIS_8_PX, LID_12_PX)
        self._find = find
        if find is not None:
            self.labels = (*self.labels, LANDMARKS_PX)
            self.options["landmarks"] = find.digest
        self.image_shape = (*self._size, given.channels)
        self._files = Listing(self._folder, _split_name, num_files=2)
        if not len(self._files):
            raise SourceError(
                f"folder {self._folder} holds no SynthesEyes pair; expected "
                "f01/f01_1_0.0_0.0.png with f01/f01_1_0.0_0.0.pkl and so on"
            )
        self._digest = self._files.digest()

    def __len__(self) -> int:
        return len(self._files)

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of pairs start to stop − 1."""
        return self._files.ids(start, stop)

    def content_digest(self) -> str:
        """Return a digest of the files' names and sizes."""
        return self._digest

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return pairs start to stop − 1."""
        return read_rows(self, start, stop, self._read_one)

    def _read_one(self, name: str) -> Sample:
        document = _read_labels(self._folder / f"{name}.pkl")
        look = _numbers(document, ("look_vec",), (3,))
        if not 0.9 <= np.linalg.norm(look) <= 1.1:
            raise BadSampleError("look_vec is no unit vector")
        with opened_image(self._folder / f"{name}.png") as image:
            if image.bits != 8:
                raise BadSampleError("the image has 16 bits a grey level, not 8")
            frame = image.read(self._channels)
        size = Size(*frame.shape[:2])
        points = [
            _points(document, key, count, size)
            for key, count in (("iris", 8), ("lids", 12), ("pupil", 8))
        ]
        box = centre_box(size, self._size)
        if self._crop == "corners":
            x, y = _middle_of_corners(points[1], name, size)
            box = box_around(x, y, box.width, self._size)
        found: dict[str, NDArray[np.float32]] = {}
        if self._find is not None:
            boxes, landmarks = landmark_boxes(frame[None], self._find, self._size)
            box = Box(*boxes[0].tolist())
            found = {LANDMARKS_PX.name: to_crop(landmarks[0], box, self._size)}
        iris, lids, pupil = (to_crop(each, box, self._size) for each in points)
        labels = {
            "gaze": (look / np.linalg.norm(look)).astype(np.float32),
            "pupil_px": pupil.mean(axis=0),
            "iris_px": iris,
            "lid_px": lids,
            **found,
        }
        return crop_and_resize(frame[None], box, self._size)[0], labels


def _middle_of_corners(lids: NDArray[np.float64], name: str, frame: Size) -> tuple[float, float]:
    """Return the point midway between the corners of an eye of the head that a name begins with."""
    head = name.rpartition("/")[2].partition("_")[0]
    tip = np.array(_TIP_OF_HEAD.get(head, _TIP_OF_OTHERS)) * (frame.width / _FRAME_WIDTH)
    x, y = (lids[_CARUNCLE] + tip + lids[_OUTER_CORNER]) / 2
    return float(x), float(y)


def _split_name(name: str) -> tuple[str, int] | None:
    stem, dot, suffix = name.rpartition(".")
    return {"png": (stem, 0), "pkl": (stem, 1)}.get(suffix) if dot and stem else None


def _read_labels(path: Path) -> Any:
    if not path.is_file():  # opening a pipe waits until somebody writes to it
        raise BadSampleError("the label file is missing")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LABEL_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise BadSampleError("the label file is missing") from None
    if len(data) > MAX_LABEL_BYTES:
        raise BadSampleError("the label file is too long")
    try:
        return load_plain(data)
    except NotPlainError as error:
        raise BadSampleError("the label file is no pickle of plain data") from error


def _points(document: Any, part: str, count: int, frame: Size) -> NDArray[np.float64]:
    """Return the points of a part of the eye; those far outside the frame are of another image."""
    points = _numbers(document, ("ldmks", f"ldmks_{part}_2d"), (count, 2))
    if np.abs(points).max() > 2 * max(frame):
        raise BadSampleError(f"the points of the {part} are not in the image")
    return points


def _numbers(document: Any, keys: tuple[str, ...], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the finite numbers under nested keys, nested as the shape says."""
    name = ".".join(keys)
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise BadSampleError(f"the label file lacks {name}")
        document = document[key]
    flat = [document]
    for length in shape:
        if not all(isinstance(of, list | tuple) and len(of) == length for of in flat):
            raise BadSampleError(f"malformed {name}")
        flat = [value for of in flat for value in of]
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in flat):
        raise BadSampleError(f"malformed {name}")
    return np.array(flat, np.float64).reshape(shape)
