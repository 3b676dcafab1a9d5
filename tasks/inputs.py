"""What an ingestion reads: one frozen model a source format, as flow parameters and as a form."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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


class MPIIGazeInput(_Input):
    """The folder of MPIIGaze: `Data/Normalized` and `Evaluation Subset`."""

    format: Literal["mpiigaze"] = "mpiigaze"
    folder: str
    """The folder that holds `Data` and `Evaluation Subset`."""
    subset: Literal["evaluation", "all"] = "evaluation"
    """The official evaluation lists (right eyes mirrored), or every eye there is."""
    people: tuple[str, ...] | None = None
    """Only these people, such as p00 and p03; all when empty."""


class ArraysInput(BaseModel):
    """One .h5 or .npz file with named arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal["arrays"] = "arrays"
    file: str
    """The file."""
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
    domain: Literal["synthetic", "real"] = "synthetic"
    """Which domain the images belong to."""
    size: tuple[int, int] | None = None
    """Height and width to resize to; as they are when empty."""


SourceInput = Annotated[UnityEyesInput | MPIIGazeInput | ArraysInput, Field(discriminator="format")]
