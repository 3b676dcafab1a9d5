"""NYU Hand Pose (Tompson et al., 2014): depth frames of one view, with joints as labels.

depth_1_0000001.png        640×480; depth in mm = B + 256·G; synthdepth_1_… are rendered
labels.txt                 a line a frame: u v d of each joint; pixels from 0, d in mm
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, JsonValue
from typing_extensions import override

from storage.atomic_file import atomic_write
from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.schema import Domain, LabelSpec, PixelType, Preprocess
from storage.sources.crop import Box, Size, to_crop
from storage.sources.image_file import opened_image
from storage.sources.listing import Listing
from storage.sources.options import SizedOptions
from storage.sources.registry import register
from storage.sources.rows import BadSampleError, Sample, read_rows

FX, FY, U0, V0 = 588.03, 587.07, 320.0, 240.0
"""The camera's intrinsics, in pixels."""

CUBE_MM = 300.0
NEAREST_MM, FARTHEST_MM = 100.0, 5000.0
FAR = np.uint16(65535)

HAND_MM = 150.0
"""Depth of an unlabelled hand behind the nearest surface, in mm."""
NEAREST_PIXELS = 100
"""Pixels of a surface at least; fewer are noise."""

CUBE_CENTRE_MM = LabelSpec(
    name="cube_centre_mm",
    shape=(3,),
    unit="mm",
    frame="camera: x right, y down, z into the scene",
    description=(
        "Centre x, y, z of the cube that the image shows. A pixel's depth is "
        "z - 150 + 300 · value / 65535 mm; 65535 is also what lies outside the cube."
    ),
)


@register
class NyuHandOptions(SizedOptions):
    """A folder of NYU Hand Pose's depth frames, cut to a cube of 300 mm round the hand."""

    format: Literal["nyu-hand"] = "nyu-hand"
    folder: Path
    """The folder with depth_1_0000001.png and so on."""
    labels: Path | None = None
    """Text file whose line n has u v d of each joint of frame n; by default no labels."""
    domain: Literal["synthetic", "real"] = "real"
    """real: read the frames depth_…; synthetic: read synthdepth_…."""
    view: int = Field(default=1, ge=1, le=3)
    """Number of the camera, 1 to 3."""
    height: int = Field(default=224, ge=8, le=1024)
    """Height of the stored images, in pixels."""
    width: int = Field(default=224, ge=8, le=1024)
    """Width of the stored images, in pixels."""

    @override
    def open(self) -> "NyuHandSource":
        return NyuHandSource(self)


class NyuHandSource:
    """The depth frames of a folder, cut to a cube of 300 mm round the hand, named by their stem.

    The image is the cube seen by the camera: 0 at its near face, 65535 at its far one, background
    and what has no depth at 65535. Depths are picked, not averaged: between hand and background
    lies nothing. The cube's centre is the mean of the joints; without labels, the hand is taken
    for what is nearest to the camera.

    A frame that does not decode, has no line of labels or no hand in its cube is not valid.
    """

    name = "nyu-hand"
    preprocess: Preprocess = "none"
    dtype: PixelType = "uint16"
    decodes = True

    def __init__(self, given: NyuHandOptions) -> None:
        self._folder = given.folder
        self._size = Size(given.height, given.width)
        self.domain: Domain = given.domain
        prefix = _prefix(given.domain, given.view)
        pattern = re.compile(rf"({prefix}\d{{1,9}})\.png")
        self._files = Listing(self._folder, _Split(pattern))
        if not len(self._files):
            raise SourceError(f"folder {self._folder} holds no frame; expected {prefix}0000001.png")
        self._joints = None if given.labels is None else _read_joints(given.labels)
        joints = b"" if self._joints is None else self._joints.tobytes()
        self._digest = f"{self._files.digest()} {hashlib.sha256(joints).hexdigest()}"
        self.labels: tuple[LabelSpec, ...] = (CUBE_CENTRE_MM,)
        if self._joints is not None:
            self.labels = (_joints_spec(self._joints.shape[1]), CUBE_CENTRE_MM)
        self.image_shape = (*self._size, 1)
        self.options: dict[str, JsonValue] = {
            "size": [*self._size],
            "view": given.view,
            "cube_mm": CUBE_MM,
        }

    def __len__(self) -> int:
        return len(self._files)

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of frames start to stop − 1."""
        return self._files.ids(start, stop)

    def content_digest(self) -> str:
        """Return a digest of the frames' names and sizes, and of the labels."""
        return self._digest

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return frames start to stop − 1."""
        return read_rows(self, start, stop, self._read_one)

    def _read_one(self, name: str) -> Sample:
        joints = self._joints_of(name)
        depth_mm = _read_depth(self._folder / f"{name}.png")
        centre = _nearest_centre(depth_mm) if joints is None else _mean_centre(joints)
        if not NEAREST_MM <= centre.z <= FARTHEST_MM:
            raise BadSampleError("the hand is at no plausible distance")
        box = _box_of(centre)
        image = _cut_cube(depth_mm, box, centre.z, self._size)
        if (image == FAR).all():
            raise BadSampleError("there is nothing where the hand should be")
        labels = {"cube_centre_mm": np.array(centre, np.float32)}
        if joints is not None:
            points = to_crop(joints[:, :2] + 0.5, box, self._size)
            labels["joints_uvd"] = np.concatenate([points, joints[:, 2:]], 1).astype(np.float32)
        return image[..., None], labels

    def _joints_of(self, name: str) -> NDArray[np.float64] | None:
        if self._joints is None:
            return None
        number = int(name.rpartition("_")[2])
        if not 1 <= number <= len(self._joints):
            raise BadSampleError("the labels have no line of the frame")
        joints: NDArray[np.float64] = self._joints[number - 1]
        if not np.isfinite(joints).all():
            raise BadSampleError("the line of labels is not all numbers")
        return joints


def write_nyu_frame(
    folder: Path | str,
    number: int,
    depth_mm: NDArray[np.integer[Any]],
    domain: Literal["synthetic", "real"],
) -> Path:
    """Write one depth frame of the first camera [480, 640], in mm, 0 where there is none.

    Where the file is, it is whole.
    """
    depth = depth_mm.astype(np.uint16)
    colours = np.stack([np.zeros_like(depth), depth >> 8, depth & 255], axis=2).astype(np.uint8)
    path = frame_path(folder, number, domain)
    with atomic_write(path, durable=False) as partial:
        Image.fromarray(colours).save(partial, format="PNG")
    return path


def write_nyu_labels(path: Path, joints_uvd: NDArray[np.floating[Any]]) -> None:
    """Write the joints [frames, J, 3] of frames 1, 2, …: u, v in pixels from 0, d in mm."""
    lines = (" ".join(f"{value:.3f}" for value in frame.ravel()) for frame in joints_uvd)
    with atomic_write(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def frame_path(folder: Path | str, number: int, domain: Literal["synthetic", "real"]) -> Path:
    """Return where a frame of the first camera is."""
    return Path(folder) / f"{_prefix(domain, view=1)}{number:07d}.png"


def _prefix(domain: str, view: int) -> str:
    return f"{'synth' if domain == 'synthetic' else ''}depth_{view}_"


class _Centre(NamedTuple):
    """A place in the camera's frame, in mm."""

    x: float
    y: float
    z: float


class _Split:
    """Matcher of frames' file names."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def __call__(self, name: str) -> tuple[str, int] | None:
        match = self._pattern.fullmatch(name)
        return None if match is None else (match[1], 0)


def _joints_spec(num_joints: int) -> LabelSpec:
    return LabelSpec(
        name="joints_uvd",
        shape=(num_joints, 3),
        unit="px, px, mm",
        frame="image: u right, v down, as pixels are counted; d: distance along the camera's axis",
        description="The hand's joints, in the order of the source.",
    )


def _read_joints(path: Path) -> NDArray[np.float64]:
    """Return the joints [frames, J, 3] (u, v, d) of a text file; NaN where a line is none."""
    if not path.is_file():
        raise SourceError(f"there is no file of labels {path}")
    lines = [line.split() for line in path.read_text(errors="replace").splitlines()]
    if not lines or not lines[0] or len(lines[0]) % 3:
        raise SourceError(f"{path} must have lines of u v d for each joint, a line a frame")
    joints = np.full((len(lines), len(lines[0])), np.nan)
    for row, words in enumerate(lines):
        if len(words) == joints.shape[1]:
            try:
                joints[row] = [float(word) for word in words]
            except ValueError:
                continue  # the frame is rejected when it is read
    return joints.reshape(len(lines), -1, 3)


def _read_depth(path: Path) -> NDArray[np.int32]:
    """Return depths in mm [H, W]; 0 where the camera had none."""
    with opened_image(path) as image:
        if image.bits != 8:
            raise BadSampleError("the frame has 16 bits a channel, not 8")
        colours = image.read(3).astype(np.int32)
    return np.asarray(colours[..., 2] + 256 * colours[..., 1])


def _mean_centre(joints: NDArray[np.float64]) -> _Centre:
    """Return the mean of joints [J, 3] (u, v, d) in space."""
    u, v, d = joints.T
    return _Centre(*(float(of.mean()) for of in ((u - U0) * d / FX, (v - V0) * d / FY, d)))


def _nearest_centre(depth_mm: NDArray[np.int32]) -> _Centre:
    """Return the centre of the surface nearest to the camera."""
    known = depth_mm[depth_mm > 0]
    if len(known) < NEAREST_PIXELS:
        raise BadSampleError("the frame has no depth")
    nearest = int(np.partition(known, NEAREST_PIXELS - 1)[NEAREST_PIXELS - 1])
    v, u = np.nonzero((depth_mm > 0) & (depth_mm <= nearest + HAND_MM))
    d = depth_mm[v, u]
    return _Centre(
        float(((u - U0) * d).mean() / FX), float(((v - V0) * d).mean() / FY), float(d.mean())
    )


def _box_of(centre: _Centre) -> Box:
    """Return the box of the frame that the cube's middle plane covers."""
    width, height = CUBE_MM * FX / centre.z, CUBE_MM * FY / centre.z
    u, v = centre.x * FX / centre.z + U0 + 0.5, centre.y * FY / centre.z + V0 + 0.5
    return Box(u - width / 2, v - height / 2, width, height)


def _cut_cube(depth_mm: NDArray[np.int32], box: Box, z: float, size: Size) -> NDArray[np.uint16]:
    """Return the cube's depths, full scale, uint16 [height, width]."""
    rows = np.floor(box.top + (np.arange(size.height) + 0.5) * box.height / size.height)
    columns = np.floor(box.left + (np.arange(size.width) + 0.5) * box.width / size.width)
    height, width = depth_mm.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    picked = depth_mm[
        np.clip(rows, 0, height - 1).astype(np.intp)[:, None],
        np.clip(columns, 0, width - 1).astype(np.intp),
    ]
    share = (picked - (z - CUBE_MM / 2)) / CUBE_MM
    hand = inside & (picked > 0) & (share >= 0) & (share <= 1)
    return np.where(hand, np.rint(share * FAR), FAR).astype(np.uint16)
