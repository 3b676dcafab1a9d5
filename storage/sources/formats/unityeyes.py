"""UnityEyes (Wood et al., ETRA 2016): folders of N.jpg with N.json.

In the files every number is text, vectors are "(x, y, z)", points have their origin at the bottom
left, and `look_vec` has y up.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, JsonValue
from typing_extensions import override

from storage.atomic_file import atomic_write
from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import GAZE, HEAD_POSE, IRIS_PX, LID_PX, PUPIL_PX, Domain, PixelType, Preprocess
from storage.sources.crop import (
    Box,
    Size,
    box_around,
    crop_and_resize,
    sufficient,
    to_crops,
)
from storage.sources.head_pose import from_unityeyes
from storage.sources.image_file import Channels, opened_image
from storage.sources.listing import Listing
from storage.sources.options import SizedOptions
from storage.sources.registry import register
from storage.sources.rows import (
    BadSampleError,
    LeftOutError,
    blank_rows,
    read_together,
    tried,
)

Crop = Literal["eye-width", "margin", "corners"]
Points = NDArray[np.float64]

EYE_WIDTHS = 1.5
"""Width of the "eye-width" crop, in distances from the caruncle to the outer corner."""

MARGIN_SHARE = 140 / 640
"""Width of the "margin" and "corners" crops, as a share of the frame's."""

IRIS_WAY = 0.1343
"""Distance of the iris' centre from the frame's, in frame heights per unit of look_vec."""

IRIS_TOLERANCE = 0.02
"""Tolerance of the iris' place, in frame heights; in real files it is under a thousandth."""

MAX_DIGITS = 18
MAX_LABEL_BYTES = 1 << 20
MAX_NUMBER = 1e6

_VECTORS = re.compile(r"\([^()\n]*\)(\n\([^()\n]*\))*")


@register
class UnityEyesOptions(SizedOptions):
    """A folder of `N.jpg` + `N.json`, as UnityEyes writes it."""

    format: Literal["unityeyes"] = "unityeyes"
    folder: Path
    """The folder; nested folders are read too."""
    crop: Crop = "eye-width"
    """Crop. eye-width: about the eye's opening, 1.5 eye widths wide; margin: about the opening, a
    fixed share of the frame wide; corners: midway between the eye's corners. Use one rule for both
    domains of a training."""
    channels: Channels = 1
    """1: grey, 3: colour."""
    head_limit_deg: float | None = Field(default=None, gt=0, le=180)
    """Leave out eyes of heads turned by more than this in pitch or yaw, in degrees."""

    @override
    def open(self) -> "UnityEyesSource":
        return UnityEyesSource(self)


class UnityEyesSource:
    """The pairs in a folder and the folders in it, named by their relative stem ("12", "a/12").

    The eye is cut out round the centre of its opening (the bounding box of the lids' inner
    margin), 1.5 eye widths wide ("eye-width") or a fixed share of the frame ("margin"), or midway
    between the caruncle's tip and the outer corner, a fixed share wide ("corners"); as high as
    `size` asks for. Frames may be of any size. The pupil label is the mean of the iris'
    contour, since the files have no pupil.

    With a limit, eyes of heads whose pitch or yaw exceeds it are left out. A frame much larger
    than its crop is decoded at a half or less, at least two pixels for one of the crop.

    A pair that lacks a file, does not decode, or has labels that contradict the frame is a row
    that is not valid.
    """

    name = "unityeyes"
    domain: Domain = "synthetic"
    labels = (GAZE, HEAD_POSE, PUPIL_PX, IRIS_PX, LID_PX)
    preprocess: Preprocess = "none"
    dtype: PixelType = "uint8"
    decodes = True

    def __init__(self, given: UnityEyesOptions) -> None:
        self._folder = given.folder
        self._size = Size(given.height, given.width)
        self._crop = given.crop
        self._channels: Channels = given.channels
        self._head_limit_deg = given.head_limit_deg
        self.options: dict[str, JsonValue] = {"size": [*self._size], "crop": given.crop}
        if given.channels != 1:
            self.options["channels"] = given.channels
        if given.head_limit_deg is not None:
            self.options["head_limit_deg"] = given.head_limit_deg
        self.image_shape = (*self._size, given.channels)
        self._files = Listing(self._folder, _split_name, num_files=2, by_number=True)
        if not len(self._files):
            raise SourceError(
                f"folder {self._folder} holds no UnityEyes pair; expected 1.jpg with 1.json and "
                "so on"
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
        return read_together(self, start, stop, self._read)

    def _read(self, start: int, stop: int) -> SampleBlock:
        # Labels of all, frames of all, crops of all: what takes turns with decoding finds its code
        # and data gone from the processor's caches, and takes twice as long.
        eyes: dict[int, _Eye] = {}
        found: dict[int, _Found] = {}

        def read_eye(place: int, name: str) -> None:
            eyes[place] = _read_eye(f"{self._folder}/{name}.json")

        def find(place: int, name: str) -> None:
            found[place] = self._find(name, eyes[place])

        block = tried(tried(blank_rows(self, start, stop), start, read_eye), start, find)
        for place, one in found.items():
            block.images[place] = crop_and_resize(one.pixels, one.box_in_pixels, self._size)[0]
        if found:
            for label, values in self._labels(list(found.values())).items():
                block.labels[label][block.valid] = values
        return block

    def _find(self, name: str, eye: "_Eye") -> "_Found":
        """Find the eye in its frame."""
        limit = self._head_limit_deg
        if limit is not None and np.abs(np.degrees(_head_pose([eye])[0, :2])).max() > limit:
            raise LeftOutError(f"the head is turned by more than {limit:g}°")
        with opened_image(Path(f"{self._folder}/{name}.jpg")) as image:
            _require_paired(eye, image.size)
            box = self._box(eye, image.size)
            at_least = sufficient(image.size, box, self._size)
            pixels, box_in_them = image.read_box(self._channels, box, at_least)
        return _Found(eye, box, image.size.height, pixels, box_in_them)

    def _box(self, eye: "_Eye", frame: Size) -> Box:
        (xs, ys), (inner_x, inner_y) = eye.margin, map(fmean, eye.caruncle)
        # The outer corner is the point of the lids that is farthest from the inner one.
        eye_width, outer_x, outer_y = max(
            (math.sqrt((x - inner_x) ** 2 + (y - inner_y) ** 2), x, y)
            for x, y in zip(xs, ys, strict=True)
        )
        if not 4 <= eye_width <= 2 * frame.width:
            raise BadSampleError("the lids are of no plausible size")
        wide = EYE_WIDTHS * eye_width if self._crop == "eye-width" else MARGIN_SHARE * frame.width
        x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        if self._crop == "corners":
            tip_x, tip_y = max(
                zip(*eye.caruncle, strict=True),
                key=lambda point: (point[0] - outer_x) ** 2 + (point[1] - outer_y) ** 2,
            )
            x, y = (tip_x + outer_x) / 2, (tip_y + outer_y) / 2
        return box_around(x, frame.height - y, wide, self._size)

    def _labels(self, found: list["_Found"]) -> dict[str, NDArray[np.float32]]:
        """Return the labels of n eyes as they are in their crops."""
        eyes = [one.eye for one in found]
        boxes = np.array([one.box for one in found])
        heights = np.array([[one.frame_height] for one in found])
        iris, margin = (
            to_crops(np.stack([points[:, 0], heights - points[:, 1]], axis=-1), boxes, self._size)
            for points in (
                np.array([_along(eye.iris, IRIS_PX.shape[0]) for eye in eyes]),
                np.array([_along(eye.margin, LID_PX.shape[0]) for eye in eyes]),
            )
        )
        look = np.array([eye.look for eye in eyes])
        look /= np.linalg.norm(look, axis=1, keepdims=True)
        return {
            "gaze": (look * [1, -1, 1]).astype(np.float32),
            "head_pose": _head_pose(eyes),
            "pupil_px": iris.mean(axis=1),
            "iris_px": iris,
            "lid_px": margin,
        }


Contour = tuple[list[float], list[float]]
"""The x and the y of its points, in pixels, origin bottom left."""


class _Eye(NamedTuple):
    """Labels of one file that are used."""

    look: list[float]
    head_deg: list[float]
    iris: Contour
    margin: Contour
    caruncle: Contour
    """Its middle counts as the inner corner, its farthest point as that corner's tip."""


class _Found(NamedTuple):
    """An eye in its frame."""

    eye: _Eye
    box: Box
    """Crop box in the frame."""
    frame_height: int
    pixels: NDArray[np.uint8]
    """Decoded pixels [1, h, w, C] that hold the box."""
    box_in_pixels: Box


def write_unityeyes_pair(
    folder: Path | str,
    number: int,
    *,
    frame: NDArray[np.uint8],
    look_vec_y_up: NDArray[np.floating[Any]],
    head_pose_deg: NDArray[np.floating[Any]],
    iris_px: NDArray[np.floating[Any]],
    lid_margin_px: NDArray[np.floating[Any]],
    caruncle_px: NDArray[np.floating[Any]],
    details: Mapping[str, Mapping[str, JsonValue]],
) -> None:
    """Write one pair as UnityEyes does; where N.jpg is, the pair is whole.

    Args:
        folder: Where to write; it exists.
        number: N of the files' names.
        frame: Image, uint8 [H, W] or [H, W, 3]; those of UnityEyes itself have colours.
        look_vec_y_up: Gaze [3], x right, y up, z into the scene.
        head_pose_deg: The file's own angles [3], as `head_pose.to_unityeyes` gives them.
        iris_px: The iris' contour [K, 2], x, y from the frame's top left, as all points here.
        lid_margin_px: The lids' inner margin [M, 2].
        caruncle_px: Points round the caruncle [C, 2].
        details: More entries of the file's sections: `eye_details`, `lighting_details`,
            `eye_region_details`.
    """
    height = frame.shape[0]
    eye_details = {"look_vec": _vector([*look_vec_y_up, 0.0]), **details.get("eye_details", {})}
    document = {
        "interior_margin_2d": _vectors(lid_margin_px, height),
        "caruncle_2d": _vectors(caruncle_px, height),
        "iris_2d": _vectors(iris_px, height),
        "eye_details": eye_details,
        "lighting_details": dict(details.get("lighting_details", {})),
        "eye_region_details": dict(details.get("eye_region_details", {})),
        "head_pose": _vector(np.asarray(head_pose_deg) % 360),
    }
    path = Path(folder) / str(number)
    with atomic_write(path.with_suffix(".json"), durable=False) as partial:
        partial.write_text(json.dumps(document, indent=2))
    with atomic_write(path.with_suffix(".jpg"), durable=False) as partial:
        Image.fromarray(frame).save(partial, format="JPEG", quality=95)


def _split_name(name: str) -> tuple[str, int] | None:
    """Return the number and the kind of a file N.jpg or N.json."""
    stem, dot, suffix = name.rpartition(".")
    if not (dot and stem.isascii() and stem.isdecimal() and len(stem) <= MAX_DIGITS):
        return None
    return {"jpg": (stem, 0), "json": (stem, 1)}.get(suffix)


def _read_eye(path: str) -> _Eye:
    document = _read_json(path)
    look, head_deg = (
        [of_axis[0] for of_axis in _numbers([_entry(document, *keys)], keys[-1])[:3]]
        for keys in (("eye_details", "look_vec"), ("head_pose",))
    )
    if not 0.9 <= math.hypot(*look) <= 1.1:
        raise BadSampleError("look_vec is no unit vector")
    iris, margin, caruncle = (
        _numbers(_entry(document, key), key)
        for key in ("iris_2d", "interior_margin_2d", "caruncle_2d")
    )
    return _Eye(
        look=look,
        head_deg=head_deg,
        iris=(iris[0], iris[1]),
        margin=(margin[0], margin[1]),
        caruncle=(caruncle[0], caruncle[1]),
    )


def _read_json(path: str) -> Any:
    if not os.path.isfile(path):  # noqa: PTH113  a pipe is waited on; a Path costs more
        raise BadSampleError("the label file is missing")
    try:
        # Path.open would take as long as the reading; the file is not read bit by bit.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            text = file.read(MAX_LABEL_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise BadSampleError("the label file is missing") from None
    if len(text) > MAX_LABEL_BYTES:
        raise BadSampleError("the label file is too long")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSampleError("the label file is no json") from error


def _entry(document: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise BadSampleError(f"the label file lacks {'.'.join(keys)}")
        document = document[key]
    return document


def _numbers(vectors: Any, key: str) -> list[list[float]]:
    """Return the numbers of a list of "(x, y, z)", or of longer ones, by axis."""
    try:
        # All at once: a sample has some sixty vectors, and would take as long as its image.
        text = "\n".join(vectors)
        (num_commas,) = {vector.count(",") for vector in vectors}
        numbers = list(map(float, _bare(text).split(",")))
    except (ValueError, TypeError) as error:
        raise BadSampleError(f"malformed vector in {key}") from error
    # The sum of what holds something that is no number is none either.
    small = max(numbers) < MAX_NUMBER and min(numbers) > -MAX_NUMBER
    whole = len(numbers) == len(vectors) * (num_commas + 1)
    if num_commas < 2 or not whole or not small or math.isnan(sum(numbers)):
        raise BadSampleError(f"malformed vector in {key}")
    return [numbers[axis :: num_commas + 1] for axis in range(num_commas + 1)]


def _bare(text: str) -> str:
    """Return lines of "(x, y, z)" as numbers between commas; raises ValueError for other lines."""
    if _VECTORS.fullmatch(text) is None:
        raise ValueError("not a vector a line")
    return text[1:-1].replace(")\n(", ",")


def _require_paired(eye: _Eye, frame: Size) -> None:
    """Refuse labels whose iris is not where their own gaze puts it in this frame."""
    middle = frame.width / 2, frame.height / 2
    for points, centre, look in zip(eye.iris, middle, eye.look, strict=False):
        from_there = fmean(points) - centre - IRIS_WAY * frame.height * look
        if abs(from_there) > IRIS_TOLERANCE * frame.height:
            raise BadSampleError("image and labels do not belong together: the iris is elsewhere")


def _head_pose(eyes: list[_Eye]) -> NDArray[np.float32]:
    return from_unityeyes(np.array([eye.head_deg for eye in eyes]))


def _along(contour: Contour, num_points: int) -> Contour:
    """Return `num_points` points along a closed contour, beginning at its first."""
    if len(contour[0]) == num_points:
        return contour
    places = np.arange(num_points) * (len(contour[0]) / num_points)
    x, y = (
        np.interp(places, np.arange(len(of_axis) + 1), [*of_axis, of_axis[0]]).tolist()
        for of_axis in contour
    )
    return x, y


def _vectors(points_px: NDArray[np.floating[Any]], height: int) -> list[str]:
    return [_vector((x, height - y, 0.0)) for x, y in points_px]


def _vector(numbers: Iterable[float]) -> str:
    return f"({', '.join(f'{number:.4f}' for number in numbers)})"
