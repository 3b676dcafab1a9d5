"""UnityEyes (Wood et al., ETRA 2016): folders of N.jpg with N.json, read and written.

In the files every number is text, vectors are "(x, y, z)", points have their origin at the bottom
left, and `look_vec` has y up.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import JsonValue

from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import GAZE, HEAD_POSE, IRIS_PX, LID_PX, PUPIL_PX, Domain, PixelType, Preprocess
from storage.sources.crop import (
    Box,
    Size,
    box_around,
    crop_and_resize,
    scaled,
    sufficient,
    to_crop,
)
from storage.sources.head_pose import from_unityeyes
from storage.sources.image_file import Channels, opened_image
from storage.sources.listing import Listing
from storage.sources.rows import BadSampleError, LeftOutError, Sample, read_rows

Crop = Literal["eye-width", "margin"]
Points = NDArray[np.float64]

EYE_WIDTHS = 1.5
"""Width of the "eye-width" crop, in distances from the caruncle to the outer corner."""

MARGIN_SHARE = 140 / 640
"""Width of the "margin" crop, as a share of the frame's."""

IRIS_WAY = 0.1343
"""How far the iris' centre is from the frame's, in frame heights per unit of look_vec."""

IRIS_TOLERANCE = 0.02
"""How far it may be from there, in frame heights; in real files it is under a thousandth."""

MAX_DIGITS = 18
MAX_LABEL_BYTES = 1 << 20
MAX_NUMBER = 1e6

_VECTORS = re.compile(r"\([^()\n]*\)(\n\([^()\n]*\))*")


class UnityEyesSource:
    """The pairs in a folder and the folders in it, named by their relative stem ("12", "a/12").

    The eye is cut out round the centre of its opening (the bounding box of the lids' inner
    margin): 1.5 eye widths wide ("eye-width"), or a fixed share of the frame ("margin"), and as
    high as `size` asks for. Frames may be of any size. The pupil label is the mean of the iris'
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

    def __init__(
        self,
        folder: Path | str,
        *,
        size: tuple[int, int] = (35, 55),
        crop: Crop = "eye-width",
        channels: Channels = 1,
        head_limit_deg: float | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._size = Size(*size)
        self._crop = crop
        self._channels: Channels = channels
        self._head_limit_deg = head_limit_deg
        self.options: dict[str, JsonValue] = {"size": [*size], "crop": crop}
        if channels != 1:
            self.options["channels"] = channels
        if head_limit_deg is not None:
            self.options["head_limit_deg"] = head_limit_deg
        self.image_shape = (*self._size, channels)
        self._files = Listing(self._folder, _split_name, num_files=2, by_number=True)
        if not len(self._files):
            raise SourceError(
                f"folder {folder} holds no UnityEyes pair; expected 1.jpg with 1.json and so on"
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
        eye = _read_eye(self._folder / f"{name}.json")
        head_pose = from_unityeyes(eye.head_deg)
        limit = self._head_limit_deg
        if limit is not None and np.abs(np.degrees(head_pose[:2])).max() > limit:
            raise LeftOutError(f"the head is turned by more than {limit:g}°")
        with opened_image(self._folder / f"{name}.jpg") as image:
            _require_paired(eye, image.size)
            upright = eye.with_origin_at_top(image.size.height)
            box = self._box(upright, image.size)
            frame = image.read(self._channels, sufficient(image.size, box, self._size))
            box_here = scaled(box, image.size, Size(*frame.shape[:2]))
        iris = to_crop(upright.iris, box, self._size)
        labels = {
            "gaze": (eye.look / np.linalg.norm(eye.look) * [1, -1, 1]).astype(np.float32),
            "head_pose": head_pose,
            "pupil_px": iris.mean(axis=0),
            "iris_px": _along(iris, IRIS_PX.shape[0]),
            "lid_px": _along(to_crop(upright.margin, box, self._size), LID_PX.shape[0]),
        }
        return crop_and_resize(frame[None], box_here, self._size)[0], labels

    def _box(self, eye: "_Eye", frame: Size) -> Box:
        x, y = (eye.margin.min(axis=0) + eye.margin.max(axis=0)) / 2
        inner = eye.caruncle.mean(axis=0)
        # The outer corner is the point of the lids that is farthest from the inner one.
        eye_width = float(np.linalg.norm(eye.margin - inner, axis=1).max())
        if not 4 <= eye_width <= 2 * frame.width:
            raise BadSampleError("the lids are of no plausible size")
        wide = EYE_WIDTHS * eye_width if self._crop == "eye-width" else MARGIN_SHARE * frame.width
        return box_around(x, y, wide, self._size)


class _Eye(NamedTuple):
    """What a label file says that we use; points [K, 2] in pixels."""

    look: Points
    head_deg: Points
    iris: Points
    margin: Points
    caruncle: Points

    def with_origin_at_top(self, height: int) -> "_Eye":
        """Return the eye with its points measured from the frame's top."""
        iris, margin, caruncle = (
            points * [1, -1] + [0, height] for points in (self.iris, self.margin, self.caruncle)
        )
        return self._replace(iris=iris, margin=margin, caruncle=caruncle)


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
    details: Mapping[str, Mapping[str, str]],
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
    partial = path.with_name(f".{number}.{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps(document, indent=2))
    partial.replace(path.with_suffix(".json"))
    Image.fromarray(frame).save(partial, format="JPEG", quality=95)
    partial.replace(path.with_suffix(".jpg"))


def _split_name(name: str) -> tuple[str, int] | None:
    """Return the number and the kind of a file N.jpg or N.json."""
    stem, dot, suffix = name.rpartition(".")
    if not (dot and stem.isascii() and stem.isdecimal() and len(stem) <= MAX_DIGITS):
        return None
    return {"jpg": (stem, 0), "json": (stem, 1)}.get(suffix)


def _read_eye(path: Path) -> _Eye:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_LABEL_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise BadSampleError("the label file is missing") from None
    if len(text) > MAX_LABEL_BYTES:
        raise BadSampleError("the label file is too long")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSampleError("the label file is no json") from error
    look = _numbers([_entry(document, "eye_details", "look_vec")], "look_vec")[0, :3]
    if not 0.9 <= np.linalg.norm(look) <= 1.1:
        raise BadSampleError("look_vec is no unit vector")
    return _Eye(
        look=look,
        head_deg=_numbers([_entry(document, "head_pose")], "head_pose")[0, :3],
        iris=_numbers(_entry(document, "iris_2d"), "iris_2d")[:, :2],
        margin=_numbers(_entry(document, "interior_margin_2d"), "interior_margin_2d")[:, :2],
        caruncle=_numbers(_entry(document, "caruncle_2d"), "caruncle_2d")[:, :2],
    )


def _entry(document: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            raise BadSampleError(f"the label file lacks {'.'.join(keys)}")
        document = document[key]
    return document


def _numbers(vectors: Any, key: str) -> Points:
    """Return the numbers [K, 3 or more] of a list of "(x, y, z)"."""
    try:
        # All at once: a sample has some sixty vectors, and would take as long as its image.
        text = "\n".join(vectors)
        (num_commas,) = {vector.count(",") for vector in vectors}
        numbers = np.array([float(number) for number in _bare(text).split(",")])
        numbers = numbers.reshape(len(vectors), num_commas + 1)
    except (ValueError, TypeError) as error:
        raise BadSampleError(f"malformed vector in {key}") from error
    # "Not under the limit" is also what no number is.
    if num_commas < 2 or not np.abs(numbers).max() < MAX_NUMBER:
        raise BadSampleError(f"malformed vector in {key}")
    return numbers


def _bare(text: str) -> str:
    """Return lines of "(x, y, z)" as numbers between commas; raises ValueError for other lines."""
    if _VECTORS.fullmatch(text) is None:
        raise ValueError("not a vector a line")
    return text[1:-1].replace(")\n(", ",")


def _require_paired(eye: _Eye, frame: Size) -> None:
    """Refuse labels whose iris is not where their own gaze puts it in this frame."""
    centre = np.array([frame.width, frame.height]) / 2 + IRIS_WAY * frame.height * eye.look[:2]
    if np.abs(eye.iris.mean(axis=0) - centre).max() > IRIS_TOLERANCE * frame.height:
        raise BadSampleError("image and labels do not belong together: the iris is elsewhere")


def _along(contour: NDArray[np.float32], num_points: int) -> NDArray[np.float32]:
    """Return `num_points` points along a closed contour [K, 2], beginning at its first."""
    if len(contour) == num_points:
        return contour
    places = np.arange(num_points) * (len(contour) / num_points)
    closed = np.concatenate([contour, contour[:1]])
    axes = [np.interp(places, np.arange(len(closed)), axis) for axis in closed.T]
    return np.stack(axes, axis=-1).astype(np.float32)


def _vectors(points_px: NDArray[np.floating[Any]], height: int) -> list[str]:
    return [_vector((x, height - y, 0.0)) for x, y in points_px]


def _vector(numbers: Iterable[float]) -> str:
    return f"({', '.join(f'{number:.4f}' for number in numbers)})"
