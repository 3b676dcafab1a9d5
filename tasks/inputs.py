"""What an ingestion reads: one frozen model a source format, as flow parameters and as a form."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.sources.arrays import ArraysSource
from storage.sources.mpiigaze import MPIIGazeSource
from storage.sources.source import Source
from storage.sources.unityeyes import UnityEyesSource


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

    def open(self) -> Source:
        """List the folder; raises SourceError when it is missing or holds no pair."""
        return UnityEyesSource(Path(self.folder), size=(self.height, self.width), crop=self.crop)


class MPIIGazeInput(_Input):
    """The folder of MPIIGaze: `Data/Normalized` and `Evaluation Subset`."""

    format: Literal["mpiigaze"] = "mpiigaze"
    folder: str
    """The folder that holds `Data` and `Evaluation Subset`."""
    subset: Literal["evaluation", "all"] = "evaluation"
    """The official evaluation lists (right eyes mirrored), or every eye there is."""
    people: tuple[str, ...] | None = None
    """Only these people, such as p00 and p03; all when empty."""

    def open(self) -> Source:
        """List the samples; raises SourceError when the tree is not that of MPIIGaze."""
        size = (self.height, self.width)
        people = list(self.people) if self.people else None
        return MPIIGazeSource(Path(self.folder), size=size, subset=self.subset, people=people)


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

    def open(self) -> Source:
        """Look into the file; raises SourceError when a named array is missing or does not fit."""
        return ArraysSource(
            Path(self.file),
            images=self.images,
            gaze=self.gaze,
            gaze_pitchyaw=self.gaze_pitchyaw,
            y_up=self.y_up,
            pupil=self.pupil,
            id=self.id,
            domain=self.domain,
            size=self.size,
        )


SourceInput = Annotated[UnityEyesInput | MPIIGazeInput | ArraysInput, Field(discriminator="format")]


@lru_cache(maxsize=4)
def open_listed(source: SourceInput, listing_digest: str) -> Source:
    """Open a source once a process for all its shards, as long as its listing stays the same.

    Raises ValueError when the files are no longer those that were listed at the start of the run.
    """
    opened = source.open()
    if opened.content_digest() != listing_digest:
        raise ValueError(
            f"the files of {source} changed while they were being ingested; "
            "run the same command again, with --overwrite if it says that the dataset differs"
        )
    return opened
