"""`simgan ingest`: one command a source format.

Everything heavy is imported inside the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter, validators
from pydantic import Field

from flows.cli.outcome import Outcome, dataset_outcome
from simgan_core.config import Config
from simgan_core.errors import InputError
from tasks.ingestion.inputs import (
    ArraysInput,
    EyeGazeInput,
    FolderInput,
    MPIIGazeInput,
    NyuHandInput,
    SynthesEyesInput,
    UnityEyesInput,
)

_SIDE = re.compile(r"[0-9]{1,9}")

app = App(name="ingest", help="Turn files into a dataset, or add new ones to it.")


class Storing(Config):
    """What the formats have in common: where the samples go, and how."""

    to: str
    """Path or URL of the dataset."""
    preprocess: Literal["none", "equalize"] = "none"
    """Histogram equalisation, as MPIIGaze's images have it, or none."""
    max_bad: str = "1%"
    """Share of bad samples above which nothing is kept."""
    rows_per_shard: int = Field(default=16384, ge=1, le=1 << 24)
    """Images in a shard, the unit of resuming; fewer where they are large."""
    append: bool = False
    """Add the samples, by id, that the dataset does not have, and read only these."""
    overwrite: bool = False
    """Replace another dataset that is there."""
    runner: Literal["local", "dask"] = "local"
    """Decode in this process, or by Dask's workers."""
    workers: int | None = Field(default=None, ge=1, le=1024)
    """With dask: start so many workers on this machine."""
    dask_address: str | None = None
    """With dask: the scheduler of a running cluster, tcp://HOST:PORT."""


Stored = Annotated[Storing, Parameter(name="*")]
Folder = Annotated[Path, Parameter(help="The folder; nested folders are read too.")]
Channels = Annotated[Literal[1, 3], Parameter(help="1: grey, 3: colour.")]
Size = Annotated[str, Parameter(help="Height x width of the stored images, in pixels.")]
CropSize = Annotated[
    str | None,
    Parameter(help="Height x width to crop and resize to, such as 35x55; as most are without."),
]
Domain = Annotated[
    Literal["synthetic", "real"], Parameter(help="Which domain the images belong to.")
]


@app.command(name="unityeyes")
def unityeyes(
    folder: Folder,
    *,
    crop: Literal["eye-width", "margin"] = "eye-width",
    channels: Channels = 1,
    head_limit: Annotated[
        float | None, Parameter(validator=validators.Number(gt=0, lte=180))
    ] = None,
    size: Size = "35x55",
    storing: Stored,
) -> Outcome:
    """Read a folder of N.jpg + N.json.

    Parameters
    ----------
    crop
        How the eye is cut out of the frame.
    head_limit
        Leave out eyes of heads turned by more, in pitch or yaw, in degrees.
    """
    height, width = height_and_width(size)
    source = UnityEyesInput(
        folder=str(folder),
        crop=crop,
        channels=channels,
        head_limit_deg=head_limit,
        height=height,
        width=width,
    )
    return _ingest(source, storing)


@app.command(name="syntheseyes")
def syntheseyes(
    folder: Folder, *, channels: Channels = 1, size: Size = "35x55", storing: Stored
) -> Outcome:
    """Read a folder of X.png + X.pkl; the pickles are read without running anything in them."""
    height, width = height_and_width(size)
    source = SynthesEyesInput(folder=str(folder), channels=channels, height=height, width=width)
    return _ingest(source, storing)


@app.command(name="mpiigaze")
def mpiigaze(
    folder: Path,
    *,
    subset: Literal["evaluation", "all"] = "evaluation",
    people: str | None = None,
    size: Size = "35x55",
    storing: Stored,
) -> Outcome:
    """Read the folder of MPIIGaze; its images are histogram-equalised and recorded so.

    Parameters
    ----------
    folder
        The folder that holds `Data` and `Evaluation Subset`.
    subset
        The official evaluation lists (right eyes mirrored), or every eye there is.
    people
        Only these, separated by commas: p00,p03.
    """
    height, width = height_and_width(size)
    chosen = None if people is None else tuple(filter(None, map(str.strip, people.split(","))))
    source = MPIIGazeInput(
        folder=str(folder), subset=subset, people=chosen, height=height, width=width
    )
    return _ingest(source, storing)


@app.command(name="eye-gaze")
def eye_gaze(file: Path, *, size: Size = "35x55", storing: Stored) -> Outcome:
    """Read gaze.h5 or real_gaze.h5 of Kaggle's 4quant/eye-gaze.

    Parameters
    ----------
    file
        The file.
    """
    height, width = height_and_width(size)
    return _ingest(EyeGazeInput(file=str(file), height=height, width=width), storing)


@app.command(name="folder")
def folder(
    folder: Folder,
    *,
    channels: Channels = 1,
    domain: Domain = "real",
    size: CropSize = None,
    storing: Stored,
) -> Outcome:
    """Read a folder of images: png, jpg, bmp, tiff; 8 or 16 bits; labels.csv or labels.parquet."""
    source = FolderInput(
        folder=str(folder),
        channels=channels,
        domain=domain,
        size=None if size is None else height_and_width(size),
    )
    return _ingest(source, storing)


@app.command(name="nyu-hand")
def nyu_hand(
    folder: Path,
    *,
    labels: Path | None = None,
    domain: Literal["synthetic", "real"] = "real",
    view: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=3))] = 1,
    size: Size = "224x224",
    storing: Stored,
) -> Outcome:
    """Read depth frames of NYU Hand Pose, cut to a cube of 300 mm round the hand.

    Parameters
    ----------
    folder
        The folder with depth_1_0000001.png and so on.
    labels
        Text file whose line n has u v d of each joint of frame n.
    domain
        real: the frames depth_…, synthetic: synthdepth_….
    view
        Which of the three cameras.
    """
    height, width = height_and_width(size)
    source = NyuHandInput(
        folder=str(folder),
        labels=None if labels is None else str(labels),
        domain=domain,
        view=view,
        height=height,
        width=width,
    )
    return _ingest(source, storing)


@app.command(name="arrays")
def arrays(
    file: str,
    *,
    images: str,
    gaze: str | None = None,
    gaze_pitchyaw: str | None = None,
    y_up: bool = False,
    pupil: str | None = None,
    id: str | None = None,
    person: str | None = None,
    domain: Domain = "synthetic",
    size: CropSize = None,
    storing: Stored,
) -> Outcome:
    """Read named arrays: h5, npz, npy or zarr.

    Parameters
    ----------
    file
        An .h5 or .npz file, a folder of .npy files, or a zarr group (a folder or s3:// URL).
    images
        Name of the images, [N, H, W] or [N, H, W, C].
    gaze
        Name of the gaze vectors, [N, 3].
    gaze_pitchyaw
        Name of the gaze angles in radians, [N, 2].
    y_up
        The gaze vectors' y points up, as UnityEyes has it.
    pupil
        Name of the pupil centres in pixels from the top left, [N, 2].
    id
        Name of the samples' names; the row number when not given.
    person
        Name of whose images they are, [N]: comparisons group and leave out by it.
    """
    source = ArraysInput(
        file=file,
        images=images,
        gaze=gaze,
        gaze_pitchyaw=gaze_pitchyaw,
        y_up=y_up,
        pupil=pupil,
        id=id,
        person=person,
        domain=domain,
        size=None if size is None else height_and_width(size),
    )
    return _ingest(source, storing)


def _ingest(source: Any, storing: Storing) -> Outcome:
    from flows.ingest import ingest
    from tasks.runtime.policies import Runner

    info = ingest(
        source,
        storing.to,
        storing.preprocess,
        _share(storing.max_bad),
        storing.rows_per_shard,
        storing.overwrite,
        storing.append,
        Runner(kind=storing.runner, workers=storing.workers, dask_address=storing.dask_address),
    )
    return dataset_outcome(info)


def height_and_width(text: str) -> tuple[int, int]:
    """Return the numbers of --size HEIGHTxWIDTH; raises InputError for other text."""
    height, times, width = text.lower().partition("x")
    if not (times and _SIDE.fullmatch(height) and _SIDE.fullmatch(width)):
        raise InputError(f"--size {text}: expected height x width in pixels, such as 35x55")
    return int(height), int(width)


def _share(text: str) -> float:
    number, scale = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        share = float(number) / scale
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"--max-bad {text}: expected a share such as 1% or 0.01")
    return share
