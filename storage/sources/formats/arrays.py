"""Named arrays of images and labels: h5, npz, npy or zarr."""

import hashlib
import re
from collections import Counter
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, model_validator
from typing_extensions import override

from storage.errors import SourceError
from storage.samples import Floats, Images, Rejection, SampleBlock
from storage.schema import (
    GAZE,
    HEAD_POSE,
    LANDMARKS_PX,
    PUPIL_PX,
    Domain,
    LabelSpec,
    PixelType,
    Preprocess,
)
from storage.sources.array_file import open_array_file
from storage.sources.crop import Box, Size, centre_box, crop_and_resize, to_crops
from storage.sources.gaze_angles import directions, directions_of_angles
from storage.sources.image_file import MAX_SIDE_PX
from storage.sources.landmark_crop import FindsLandmarks, landmark_boxes
from storage.sources.options import CroppedOptions, Side
from storage.sources.registry import register
from storage.sources.rows import read_together

Floats64 = NDArray[np.float64]

PIXEL_TYPES: dict[str, PixelType] = {"uint8": "uint8", "uint16": "uint16"}

PIECES = 8
PIECE_ROWS = 512
"""Rows of each piece that the digest covers; pieces are evenly spread."""


@register
class ArraysOptions(CroppedOptions):
    """Named arrays: h5, npz, npy or zarr."""

    format: Literal["arrays"] = "arrays"
    file: str
    """The .h5 or .npz file, the folder of .npy files, or the zarr group (a folder or s3:// URL)."""
    images: str
    """Name of the images: uint8 or uint16 [N, H, W] or [N, H, W, C], C = 1 or 3."""
    gaze: str | None = None
    """Name of the gaze vectors [N, 3], of any length: x right, y down, z into the scene."""
    gaze_pitchyaw: str | None = None
    """Name of the gaze angles [N, 2] in radians, positive up and to the image's left."""
    head_pose: str | None = None
    """Name of the head poses [N, 2] or [N, 3] in radians: pitch and yaw, positive where the face is
    turned up and to the image's left, and roll. NaN where not known. Flip yaw and roll of mirrored
    images."""
    y_up: bool = False
    """The gaze vectors' y points up, as UnityEyes has it."""
    pupil: str | None = None
    """Name of the pupil centres [N, 2], x and y in pixels from the top left."""
    corners: str | None = None
    """Name of both eye corners [N, 2, 2], likewise: crops are centred midway between them."""
    id: str | None = None
    """Name of the ids [N], text or whole numbers; by default the row number."""
    person: str | None = None
    """Name of the people [N], text or whole numbers, by whom comparisons group samples. Ids begin
    with the person: 7 becomes p07/…, anna becomes person-anna/…."""
    domain: Literal["synthetic", "real"] = "synthetic"
    """Domain of the images."""
    size: tuple[Side, Side] | None = None
    """Height and width to crop and resize to, in pixels; by default images keep their size."""

    @model_validator(mode="after")
    def _labels_agree(self) -> Self:
        if self.gaze is not None and self.gaze_pitchyaw is not None:
            raise ValueError("give gaze or gaze_pitchyaw, not both")
        if self.y_up and self.gaze is None:
            raise ValueError("y_up describes gaze vectors; give the name of their array as gaze")
        if self.corners is not None and self.crop == "landmarks":
            raise ValueError("crops go by corners or by crop: landmarks; give one of them")
        return self

    @override
    def open_with(self, find: FindsLandmarks | None) -> "ArraysSource":
        return ArraysSource(self, find)


class ArraysSource:
    """The rows of named arrays of equal length.

    A row whose gaze is no direction, or whose corners are not known, is not valid; a pupil that is
    not known is NaN.

    Raises SourceError where an array is missing, of another shape or type, or of another length.
    """

    name = "arrays"
    preprocess: Preprocess = "none"
    decodes = False

    def __init__(self, given: ArraysOptions, find: FindsLandmarks | None = None) -> None:
        self._find = find
        self._file = open_array_file(given.file)
        self._images, self._gaze, self._angles = given.images, given.gaze, given.gaze_pitchyaw
        self._y_up, self._pupil, self._corners = given.y_up, given.pupil, given.corners
        self._head_pose = given.head_pose
        self._id, self._person = given.id, given.person
        self.domain: Domain = given.domain
        self._num_rows, self._frame, channels, self.dtype = self._look_at_images()
        self._size = self._frame if given.size is None else Size(*given.size)
        self.image_shape = (*self._size, channels)
        self.labels = self._look_at_labels()
        self._require_distinct_names()
        self.options: dict[str, JsonValue] = {
            "images": given.images,
            "gaze": given.gaze,
            "gaze_pitchyaw": given.gaze_pitchyaw,
            "y_up": given.y_up,
            "pupil": given.pupil,
            "id": given.id,
            "person": given.person,
            "size": [*self._size],
        }
        if given.corners is not None:
            self.options["corners"] = given.corners
        if given.head_pose is not None:
            self.options["head_pose"] = given.head_pose
        if find is not None:
            self.options |= {"crop": given.crop, "landmarks": find.digest}
        self._digest = self._digest_of_pieces()

    def __len__(self) -> int:
        return self._num_rows

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of rows start to stop − 1."""
        stop = min(stop, len(self))
        names = list(map(str, range(start, stop)))
        if self._id is not None:
            names = [str(name) for name in self._file.rows(self._id, start, stop).tolist()]
        if self._person is None:
            return names
        people = self._file.rows(self._person, start, stop).tolist()
        return [f"{_person(who)}/{name}" for who, name in zip(people, names, strict=True)]

    def content_digest(self) -> str:
        """Return a digest of the arrays' shapes and of up to 4,096 of their rows."""
        return self._digest

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1."""
        return read_together(self, start, stop, self._read)

    def _read(self, start: int, stop: int) -> SampleBlock:
        frames = self._read_frames(start, stop)
        boxes, landmarks = self._boxes(frames, start, stop)
        known: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(axis=1))
        boxes[~known] = centre_box(self._frame, self._size)
        images = self._crop(frames, boxes)
        ids, labels = self.ids(start, stop), self._read_labels(start, stop, boxes)
        if landmarks is not None:
            labels[LANDMARKS_PX.name] = to_crops(landmarks, boxes, self._size)
        faults: dict[str, NDArray[np.bool_]] = {"the eye corners are not known": ~known}
        if "gaze" in labels:
            directed = np.asarray(np.isfinite(labels["gaze"]).all(axis=1))
            faults["the gaze is no direction"] = ~directed
        reasons = [
            next((why for why, at in faults.items() if at[row]), "") for row in range(len(ids))
        ]
        valid = np.array([not reason for reason in reasons], bool)
        if not valid.all():
            images = np.where(valid[:, None, None, None], images, images.dtype.type(0))
        for label in labels.values():
            label[~valid] = np.nan
        rejections = (
            Rejection(start + row, ids[row], reason) for row, reason in enumerate(reasons) if reason
        )
        return SampleBlock(images, valid, ids, labels, tuple(rejections))

    def _boxes(self, frames: NDArray[Any], start: int, stop: int) -> tuple[Floats64, Floats | None]:
        """Return the box of each row, [n, 4] as `Box` has it; not finite where it is not known.

        With it come the landmarks [n, 5, 2] in the frames, where boxes go by them.
        """
        if self._find is not None:
            return landmark_boxes(frames, self._find, self._size)
        middle = centre_box(self._frame, self._size)
        boxes = np.tile(np.array(middle), (min(stop, len(self)) - start, 1))
        if self._corners is not None:
            corners = self._file.rows(self._corners, start, stop).astype(np.float64)
            # Those far away are another image's, or none's.
            corners[np.abs(corners) > 2 * max(self._frame)] = np.nan
            boxes[:, :2] = corners.mean(axis=1) - [middle.width / 2, middle.height / 2]
        return boxes, None

    def _digest_of_pieces(self) -> str:
        """Return the digest; of few pieces, since every one opens the file anew."""
        sha = hashlib.sha256()
        labels = (self._gaze, self._angles, self._pupil, self._id, self._person, self._corners)
        for key in filter(None, (self._images, *labels, self._head_pose)):
            sha.update(f"{key} {self._file.look(key)}".encode())
            for start in range(0, len(self), max(PIECE_ROWS, len(self) // PIECES)):
                rows = self._file.rows(key, start, min(start + PIECE_ROWS, len(self)))
                sha.update(repr(rows.tolist()).encode() if rows.dtype.kind in "OTU" else rows.data)
        return sha.hexdigest()

    def _look_at_images(self) -> tuple[int, Size, Literal[1, 3], PixelType]:
        """Return the number of images, their size, channels and type of pixel."""
        shape, dtype = self._file.look(self._images)
        pixel = PIXEL_TYPES.get(dtype.name)
        channels = shape[3] if len(shape) == 4 else 1
        if pixel is None or len(shape) not in (3, 4) or channels not in (1, 3):
            raise SourceError(
                f"images {self._images!r} must be uint8 or uint16 [N, H, W] or [N, H, W, 1 or 3], "
                f"all of one size; got {dtype} {list(shape)}"
            )
        if not 0 < min(shape[1:3]) <= max(shape[1:3]) <= MAX_SIDE_PX:
            raise SourceError(
                f"images {self._images!r} must have 1 to {MAX_SIDE_PX} pixels a side, "
                f"got {list(shape)}"
            )
        if shape[0] == 0:
            raise SourceError(f"images {self._images!r} of {self._file.path} has no rows")
        return shape[0], Size(*shape[1:3]), 1 if channels == 1 else 3, pixel

    def _look_at_labels(self) -> tuple[LabelSpec, ...]:
        labels = []
        if self._gaze is not None:
            self._require_floats("gaze", self._gaze, 3)
            labels.append(GAZE)
        if self._angles is not None:
            self._require_floats("gaze_pitchyaw", self._angles, 2)
            self._require_radians("gaze_pitchyaw", self._angles)
            labels.append(GAZE)
        if self._head_pose is not None:
            has_roll = self._file.look(self._head_pose)[0][1:] != (2,)
            self._require_floats("head_pose", self._head_pose, 3 if has_roll else 2)
            self._require_radians("head_pose", self._head_pose)
            labels.append(HEAD_POSE)
        if self._pupil is not None:
            self._require_floats("pupil", self._pupil, 2)
            labels.append(PUPIL_PX)
        if self._corners is not None:
            self._require_floats("corners", self._corners, 2, 2)
        if self._find is not None:
            labels.append(LANDMARKS_PX)
        return tuple(labels)

    def _require_radians(self, role: str, key: str) -> None:
        angles = self._file.rows(key, 0, len(self))
        largest = np.max(np.abs(angles), where=~np.isnan(angles), initial=0)
        if largest > np.pi:
            raise SourceError(f"{role} {key!r} must be in radians, got angles up to {largest:.1f}")

    def _require_floats(self, role: str, key: str, *shape_of_one: int) -> None:
        shape, dtype = self._file.look(key)
        if dtype.kind not in "fiu" or shape[1:] != shape_of_one:
            wanted = ", ".join(["N", *map(str, shape_of_one)])
            raise SourceError(
                f"{role} {key!r} must be numbers [{wanted}], got {dtype} {list(shape)}"
            )
        self._require_length(role, key, shape)

    def _require_length(self, role: str, key: str, shape: tuple[int, ...]) -> None:
        if shape[0] != len(self):
            raise SourceError(
                f"{role} {key!r} has {shape[0]} rows, images {self._images!r} has {len(self)}; "
                "they must be as many"
            )

    def _require_distinct_names(self) -> None:
        if self._person is not None:
            self._require_names("person", self._person)
        if self._id is None:
            return
        self._require_names("id", self._id)
        name, count = Counter(self.ids(0, len(self))).most_common(1)[0]
        if count > 1:
            raise SourceError(f"id {self._id!r} has {name!r} {count} times; names must be distinct")

    def _require_names(self, role: str, key: str) -> None:
        shape, dtype = self._file.look(key)
        if len(shape) != 1 or dtype.kind not in "OSTUiu":
            raise SourceError(
                f"{role} {key!r} must be text or whole numbers [N], got {dtype} {list(shape)}"
            )
        self._require_length(role, key, shape)

    def _read_frames(self, start: int, stop: int) -> NDArray[Any]:
        # A file may have the other order of bytes.
        frames = self._file.rows(self._images, start, stop).astype(self.dtype, copy=False)
        return frames.reshape(len(frames), *self._frame, self.image_shape[2])

    def _crop(self, frames: NDArray[Any], boxes: Floats64) -> Images:
        if self._corners is None and self._find is None:
            return crop_and_resize(frames, centre_box(self._frame, self._size), self._size)
        each = [
            crop_and_resize(frame[None], Box(*box), self._size)
            for frame, box in zip(frames, boxes.tolist(), strict=True)
        ]
        return np.concatenate(each)

    def _read_labels(self, start: int, stop: int, boxes: Floats64) -> dict[str, Floats]:
        labels: dict[str, Floats] = {}
        if self._gaze is not None:
            vectors = self._file.rows(self._gaze, start, stop).astype(np.float64)
            labels["gaze"] = directions(vectors * [1, -1 if self._y_up else 1, 1])
        if self._angles is not None:
            angles = self._file.rows(self._angles, start, stop).astype(np.float64)
            labels["gaze"] = directions_of_angles(angles)
        if self._head_pose is not None:
            poses = self._file.rows(self._head_pose, start, stop).astype(np.float32)
            missing = [(0, 0), (0, HEAD_POSE.shape[0] - poses.shape[1])]
            labels[HEAD_POSE.name] = np.pad(poses, missing, constant_values=np.nan)
        if self._pupil is not None:
            points = self._file.rows(self._pupil, start, stop).astype(np.float64)
            pupils = to_crops(points, boxes, self._size)
            labels["pupil_px"] = np.where(np.isfinite(pupils), pupils, np.float32(np.nan))
        return labels


def _person(name: str | int) -> str:
    """Return a person's part of an id, distinct from a day's or a folder's."""
    if isinstance(name, int):
        return f"p{name:02d}"
    whole = str(name).replace("/", "-")
    return whole if re.fullmatch(r"p\d+", whole) else f"person-{whole}"
