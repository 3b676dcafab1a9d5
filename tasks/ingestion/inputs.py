"""Ingestion inputs: one frozen model per source format, as flow parameters."""

from typing import Annotated, Literal

from pydantic import Field

from simgan_core.config import Config

Side = Annotated[int, Field(ge=1, le=8192)]


class _Input(Config):
    height: int = Field(default=35, ge=8, le=1024)
    """Height of the stored images, in pixels."""
    width: int = Field(default=55, ge=8, le=1024)
    """Width of the stored images, in pixels."""


class UnityEyesInput(_Input):
    """A folder of `N.jpg` + `N.json`, as UnityEyes writes it."""

    format: Literal["unityeyes"] = "unityeyes"
    folder: str
    """The folder; nested folders are read too."""
    crop: Literal["eye-width", "margin"] = "eye-width"
    """How the eye is cut out of the frame; both domains of a training want the same rule."""
    channels: Literal[1, 3] = 1
    """1: grey, 3: colour."""
    head_limit_deg: float | None = Field(default=None, gt=0, le=180)
    """Leave out eyes of heads turned by more, in pitch or yaw, in degrees."""


class SynthesEyesInput(_Input):
    """A folder of `X.png` + `X.pkl`, as SynthesEyes has them."""

    format: Literal["syntheseyes"] = "syntheseyes"
    folder: str
    """The folder; nested folders are read too."""
    channels: Literal[1, 3] = 1
    """1: grey, 3: colour."""


class MPIIGazeInput(_Input):
    """The folder of MPIIGaze: `Data/Normalized` and `Evaluation Subset`."""

    format: Literal["mpiigaze"] = "mpiigaze"
    folder: str
    """The folder that holds `Data` and `Evaluation Subset`."""
    subset: Literal["evaluation", "all"] = "evaluation"
    """The official evaluation lists (right eyes mirrored), or every eye there is."""
    people: tuple[str, ...] | None = None
    """Only these people, such as p00 and p03; all when empty."""


class EyeGazeInput(_Input):
    """`gaze.h5` or `real_gaze.h5` of Kaggle's 4quant/eye-gaze."""

    format: Literal["eye-gaze"] = "eye-gaze"
    file: str
    """The file."""


class FolderInput(Config):
    """A folder of png, jpg, bmp or tiff images, with or without a table of labels."""

    format: Literal["folder"] = "folder"
    folder: str
    """The folder; nested folders are read too."""
    channels: Literal[1, 3] = 1
    """1: grey, 3: colour."""
    domain: Literal["synthetic", "real"] = "real"
    """Which domain the images belong to."""
    size: tuple[Side, Side] | None = None
    """Height and width to crop and resize to; those that most images have when empty."""


class NyuHandInput(Config):
    """A folder of NYU Hand Pose's depth frames."""

    format: Literal["nyu-hand"] = "nyu-hand"
    folder: str
    """The folder with `depth_1_0000001.png` and so on."""
    labels: str | None = None
    """Text file whose line n has u v d of each joint of frame n; unlabelled when empty."""
    domain: Literal["synthetic", "real"] = "real"
    """real: the frames `depth_…`, synthetic: `synthdepth_…`."""
    view: int = Field(default=1, ge=1, le=3)
    """Which of the three cameras."""
    height: int = Field(default=224, ge=8, le=1024)
    """Height of the stored images, in pixels."""
    width: int = Field(default=224, ge=8, le=1024)
    """Width of the stored images, in pixels."""


class ArraysInput(Config):
    """Named arrays: h5, npz, npy or zarr."""

    format: Literal["arrays"] = "arrays"
    file: str
    """The .h5 or .npz file, the folder of .npy files, or the zarr group (a folder or s3:// URL)."""
    images: str
    """Name of the images: [N, H, W] or [N, H, W, C]."""
    gaze: str | None = None
    """Name of the gaze vectors: [N, 3]."""
    gaze_pitchyaw: str | None = None
    """Name of the gaze angles in radians: [N, 2]."""
    y_up: bool = False
    """The gaze vectors have y pointing up (UnityEyes), not down."""
    pupil: str | None = None
    """Name of the pupil centres in pixels, origin top left: [N, 2]."""
    id: str | None = None
    """Name of the samples' names; the row number when there are none."""
    person: str | None = None
    """Name of whose images they are, text or whole numbers: comparisons group and leave out by
    it."""
    domain: Literal["synthetic", "real"] = "synthetic"
    """Which domain the images belong to."""
    size: tuple[Side, Side] | None = None
    """Height and width to resize to; as they are when empty."""


SourceInput = Annotated[
    UnityEyesInput
    | SynthesEyesInput
    | MPIIGazeInput
    | EyeGazeInput
    | ArraysInput
    | FolderInput
    | NyuHandInput,
    Field(discriminator="format"),
]
