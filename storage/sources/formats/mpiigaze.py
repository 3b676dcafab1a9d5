"""MPIIGaze (Zhang et al., CVPR 2015): normalised eyes in day files.

    Data/Normalized/p00/day01.mat                              filenames, data.{left,right}
    Evaluation Subset/sample list for eye image/p00.txt        lines "day01/0005.jpg left"

The images are histogram-equalised as they come. Right eyes are mirrored, as the data set's own
protocol has it, with the signs of the gaze's x and of the head's yaw and roll; so every eye is a
left one.
"""

import hashlib
import logging
import re
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from typing_extensions import override

from storage.atomic_file import atomic_write
from storage.errors import SourceError
from storage.samples import Rejection, SampleBlock
from storage.schema import GAZE, HEAD_POSE, LANDMARKS_PX, Domain, LabelSpec, PixelType, Preprocess
from storage.sources.crop import Size, centre_box, crop_and_resize
from storage.sources.gaze_angles import directions
from storage.sources.head_pose import from_rotation_vectors, mirrored
from storage.sources.landmark_crop import FindsLandmarks, crop_about_corners
from storage.sources.options import CroppedOptions, SizedOptions
from storage.sources.registry import register
from storage.sources.rows import BadSampleError, read_together, rejected

logger = logging.getLogger(__name__)

Subset = Literal["evaluation", "all"]
Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")

_LIST_LINE = re.compile(r"(day\d+)/(\w+)\.jpg (left|right)")

_UNREADABLE = (
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""Errors of SciPy on files that are no .mat file, or a damaged one, beside its own and OSError."""


class EyeArrays(NamedTuple):
    """One side's eyes in a day file."""

    image: NDArray[np.uint8]
    """uint8 [N, H, W], as a camera sees them; 36×60 in the data set."""
    gaze: NDArray[np.floating[Any]]
    """Unit vectors [N, 3], x right, y down, z into the scene."""
    pose: NDArray[np.floating[Any]]
    """Rotation vectors [N, 3] of the head (axis times radians); NaN where not known."""


@register
class MPIIGazeOptions(SizedOptions, CroppedOptions):
    """The folder of MPIIGaze; its images are histogram-equalised and recorded so."""

    format: Literal["mpiigaze"] = "mpiigaze"
    folder: Path
    """The folder that holds `Data` and `Evaluation Subset`."""
    subset: Subset = "evaluation"
    """evaluation: the official evaluation lists (right eyes mirrored); all: every eye."""
    people: tuple[str, ...] | None = None
    """Only these people, such as p00 and p03; by default all."""

    @override
    def open_with(self, find: FindsLandmarks | None) -> "MPIIGazeSource":
        return MPIIGazeSource(self, find)


class MPIIGazeSource:
    """The eyes of the evaluation subset, or all there are, named "p00/day01/0005/left".

    Of the evaluation lists, those samples are rows whose frame is in the day's file; a tree with
    some of the people or days is read for what it has, and how many listed samples it lacks is
    logged. A sample that is listed twice (p13 has four) is two rows, as the protocol counts it; the
    second one's name ends in "#2". All rows listed in a day file that cannot be read, and lines
    that are none, are rows that are not valid; of `all`, such a file is one row ("p00/day01").
    """

    name = "mpiigaze"
    domain: Domain = "real"
    preprocess: Preprocess = "equalize"
    dtype: PixelType = "uint8"
    # Neighbouring rows share a day's file: cut into pieces, it would be read again for each.
    decodes = False

    def __init__(self, given: MPIIGazeOptions, find: FindsLandmarks | None = None) -> None:
        self._root = given.folder
        self._size = Size(given.height, given.width)
        self.options: dict[str, JsonValue] = {"size": [*self._size], "subset": given.subset}
        self.image_shape = (*self._size, 1)
        self.labels: tuple[LabelSpec, ...] = (GAZE, HEAD_POSE)
        self._find = find
        if find is not None:
            self.labels = (*self.labels, LANDMARKS_PX)
            self.options |= {"crop": given.crop, "landmarks": find.digest}
        found = _list_people(self._root)
        chosen = _choose(given.people, found) if given.people else found
        if given.people:
            self.options["people"] = [*chosen]
        days = _list_days(self._root, chosen)
        evaluated = given.subset == "evaluation"
        rows = _listed_rows(self._root, chosen, days) if evaluated else _all_rows(days)
        self._rows = _with_distinct_names(rows)
        if all(row.reason for row in self._rows):
            raise SourceError(_nothing_readable(self._root, days, self._rows))
        self._digest = _digest(days, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of eyes start to stop − 1."""
        return [row.name for row in self._rows[start:stop]]

    def content_digest(self) -> str:
        """Return a digest of the day files' names and sizes and of the samples chosen."""
        return self._digest

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return eyes start to stop − 1; every day file that they are in is read once."""
        return read_together(self, start, stop, self._read)

    def _read(self, start: int, stop: int) -> SampleBlock:
        rows = self._rows[start:stop]
        images = np.zeros((len(rows), *self.image_shape), np.uint8)
        labels = {
            spec.name: np.full((len(rows), *spec.shape), np.nan, np.float32) for spec in self.labels
        }
        gaze, pose = labels["gaze"], labels["head_pose"]
        reasons = {place: row.reason for place, row in enumerate(rows) if row.reason}
        for day, places in _by_day(rows).items():
            try:
                sides = _read_day(_day_path(self._root, day))
            except _UnreadableDayError as error:
                reasons.update(dict.fromkeys(places, str(error)))
                continue
            for side, eyes in sides.items():
                mine = [place for place in places if rows[place].side == side]
                beyond = [place for place in mine if rows[place].frame >= len(eyes.image)]
                reasons.update(dict.fromkeys(beyond, "the day file has a name and no image of it"))
                mine = [place for place in mine if place not in reasons]
                frames = [rows[place].frame for place in mine]
                frames_as_left, gaze[mine], pose[mine] = _as_left_eyes(eyes, side, frames)
                images[mine], found = self._crop(frames_as_left)
                if found is not None:
                    labels[LANDMARKS_PX.name][mine] = found
            pointless = ~np.isfinite(gaze[places]).all(axis=1)
            for place in np.array(places)[pointless].tolist():
                reasons.setdefault(place, "the gaze is no direction")
        bad = sorted(reasons)
        images[bad] = 0
        for label in labels.values():
            label[bad] = np.nan
        valid = np.ones(len(rows), bool)
        valid[bad] = False
        rejections = (Rejection(start + n, rows[n].name, reasons[n]) for n in bad)
        return SampleBlock(images, valid, [row.name for row in rows], labels, tuple(rejections))

    def _crop(
        self, frames: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Return crops of frames [n, H, W, 1], and the landmarks that they go by, in the crops."""
        if self._find is not None:
            found = crop_about_corners(frames, self._find, self._size)
            return found.images, found.landmarks
        box = centre_box(Size(*frames.shape[1:3]), self._size)
        return crop_and_resize(frames, box, self._size), None


def _as_left_eyes(
    eyes: EyeArrays, side: Side, frames: list[int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Return images [n, H, W, 1], gazes and head poses of these frames, right eyes mirrored."""
    images = eyes.image[frames][..., None]
    gaze = directions(eyes.gaze[frames])
    pose = from_rotation_vectors(eyes.pose[frames])
    if side == "right":
        images = images[:, :, ::-1]
        gaze = gaze * np.array([-1, 1, 1], np.float32)
        pose = mirrored(pose)
    return images, gaze, pose


class _Row(NamedTuple):
    """Row of the source: the sample's place in a day file, or why it has none."""

    name: str
    day: str = ""
    side: str = ""
    frame: int = -1
    reason: str = ""
    """Reason for rejection by the listing alone; empty where there is none."""


class _Day(NamedTuple):
    """A day file."""

    num_bytes: int
    frames: dict[str, int]
    """Frames' places in the file's arrays by name without suffix."""
    reason: str
    """Fault of the file; empty where it can be read."""


class _UnreadableDayError(BadSampleError):
    """A day file cannot be read; its message becomes its rows' reason."""


def write_mpiigaze_day(
    root: Path | str,
    *,
    person: str,
    day: int,
    filenames: Sequence[str],
    left: EyeArrays,
    right: EyeArrays,
) -> None:
    """Write both eyes of N frames, named "0005.jpg" and so on, as one day file of a person."""
    path = _day_path(Path(root), f"{person}/day{day:02d}")
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.empty((len(filenames), 1), dtype=object)
    names[:, 0] = filenames
    sides = {"left": left, "right": right}
    data = {
        side: {
            "gaze": np.asarray(eyes.gaze, dtype=np.float64),
            "image": eyes.image,
            "pose": np.asarray(eyes.pose, dtype=np.float64),
        }
        for side, eyes in sides.items()
    }
    variables = {"data": data, "filenames": names}
    from scipy.io import savemat  # noqa: PLC0415  slow to import; most commands read no .mat file

    with atomic_write(path) as partial:
        savemat(str(partial), variables, appendmat=False, do_compression=True)


def write_evaluation_list(root: Path | str, person: str, lines: Sequence[str]) -> None:
    """Write a person's list of the evaluation subset: lines "day01/0005.jpg left"."""
    path = _list_path(Path(root), person)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines))


def _list_people(root: Path) -> list[str]:
    if not root.is_dir():
        raise SourceError(f"there is no folder {root}; name the one that holds Data/Normalized")
    folders = root.glob("Data/Normalized/p[0-9]*")
    people = sorted(folder.name for folder in folders if folder.is_dir())
    if not people:
        raise SourceError(
            f"{root} holds no Data/Normalized/p00 or other person's folder; name the folder of the "
            "unpacked MPIIGaze"
        )
    return people


def _choose(people: Sequence[str], found: list[str]) -> list[str]:
    missing = sorted(set(people) - set(found))
    if missing:
        raise SourceError(f"no {', '.join(missing)} among the people there: {', '.join(found)}")
    return sorted(set(people))


def _list_days(root: Path, people: list[str]) -> dict[str, _Day]:
    """List the people's day files, by "p00/day01", in order."""
    paths = [
        path
        for person in people
        for path in sorted((root / "Data/Normalized" / person).glob("day*.mat"))
    ]
    if not paths:
        raise SourceError(f"{root} holds no day file such as {_day_path(root, 'p00/day01')}")
    return {f"{path.parent.name}/{path.stem}": _look_into_day(path) for path in paths}


def _look_into_day(path: Path) -> _Day:
    num_bytes = 0
    try:
        status = path.stat()
        num_bytes = status.st_size
        if not stat.S_ISREG(status.st_mode):  # opening a pipe waits until somebody writes to it
            return _Day(num_bytes, {}, "the day file is no regular file")
        return _Day(num_bytes, _read_frames(path), "")
    except Exception as error:  # noqa: BLE001  a day file that cannot be read is a rejection
        return _Day(num_bytes, {}, rejected(0, path.stem, error).reason)


def _day_path(root: Path, day: str) -> Path:
    return root / "Data/Normalized" / f"{day}.mat"


def _list_path(root: Path, person: str) -> Path:
    return root / "Evaluation Subset/sample list for eye image" / f"{person}.txt"


def _listed_rows(root: Path, people: list[str], days: dict[str, _Day]) -> Iterator[_Row]:
    """Yield the listed samples that are there, in the lists' order."""
    for person in people:
        path = _list_path(root, person)
        if not path.is_file():
            raise SourceError(f"there is no list {path}; without lists, ingest --subset all")
        lines = [line.strip() for line in path.read_text(errors="replace").split("\n")]
        rows = [_listed_row(person, number, line, days) for number, line in enumerate(lines, 1)]
        yield from (row for row in rows if row is not None)
        num_missing = rows.count(None) - lines.count("")
        if num_missing:
            logger.info("%s: %d listed samples are not in %s", person, num_missing, root)


def _listed_row(person: str, number: int, line: str, days: dict[str, _Day]) -> _Row | None:
    """Return the row of a list's line, or None where it is empty or its frame is not there."""
    if not line:
        return None
    match = _LIST_LINE.fullmatch(line)
    if match is None:
        reason = 'the list\'s line is not "dayNN/NNNN.jpg left" or "… right"'
        return _Row(f"{person}/line-{number}", reason=reason)
    day_name, frame_name, side = match.groups()
    name = f"{person}/{day_name}/{frame_name}/{side}"
    day = days.get(f"{person}/{day_name}")
    if day is not None and day.reason:
        return _Row(name, reason=day.reason)
    if day is None or frame_name not in day.frames:
        return None
    return _Row(name, f"{person}/{day_name}", side, day.frames[frame_name])


def _all_rows(days: dict[str, _Day]) -> Iterator[_Row]:
    """Yield all eyes by person, day and frame, left then right."""
    for name, day in days.items():
        if day.reason:
            yield _Row(name, reason=day.reason)
        for frame_name, frame in day.frames.items():
            for side in SIDES:
                yield _Row(f"{name}/{frame_name}/{side}", name, side, frame)


def _with_distinct_names(rows: Iterator[_Row]) -> list[_Row]:
    """Mark a name's later occurrences: "#2", "#3" and so on."""
    seen: Counter[str] = Counter()
    distinct = []
    for row in rows:
        seen[row.name] += 1
        count = seen[row.name]
        distinct.append(row if count == 1 else row._replace(name=f"{row.name}#{count}"))
    return distinct


def _nothing_readable(root: Path, days: dict[str, _Day], rows: list[_Row]) -> str:
    reasons = Counter(row.reason for row in rows).most_common(3)
    found = "; ".join(f"{count} × {reason}" for reason, count in reasons)
    return (
        f"none of the {len(days)} day files in {root} has a sample that can be read "
        f"({found or 'none is listed'}); check the unpacking and the lists"
    )


def _digest(days: dict[str, _Day], rows: list[_Row]) -> str:
    listing = [f"{name} {day.num_bytes}" for name, day in days.items()]
    listing.extend(row.name for row in rows)
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def _by_day(rows: list[_Row]) -> dict[str, list[int]]:
    """Return the places in `rows` of each day file's samples."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if not row.reason:
            places.setdefault(row.day, []).append(place)
    return places


def _read_frames(path: Path) -> dict[str, int]:
    """Return by name the frames' places in a day file, without reading the images."""
    cells = _load(path, "filenames").ravel()
    try:
        names = [str(cell.item()).removesuffix(".jpg") for cell in cells]
    except (AttributeError, ValueError) as error:
        raise _UnreadableDayError("the day file's filenames are no list of names") from error
    return {name: frame for frame, name in enumerate(names)}


def _read_day(path: Path) -> dict[Side, EyeArrays]:
    """Return both sides' eyes of a day file."""
    data = _load(path, "data")
    try:
        return {side: _eyes(data[0, 0][side][0, 0]) for side in SIDES}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _UnreadableDayError("the day file is not laid out as MPIIGaze's are") from error


def _eyes(struct_array: Any) -> EyeArrays:
    eyes = EyeArrays(struct_array["image"], struct_array["gaze"], struct_array["pose"])
    num_frames = len(eyes.image)
    if eyes.image.ndim != 3 or eyes.image.dtype != np.uint8:
        raise ValueError("image is not uint8 [N, H, W]")
    if eyes.gaze.shape != (num_frames, 3) or eyes.pose.shape != (num_frames, 3):
        raise ValueError("gaze or pose is not [N, 3]")
    return eyes


def _load(path: Path, variable: str) -> NDArray[Any]:
    # SciPy is slow to import, and most commands read no .mat file.
    from scipy.io import loadmat  # noqa: PLC0415
    from scipy.io.matlab import MatReadError  # noqa: PLC0415

    # Without squeezing, a day of one frame keeps its first axis.
    try:
        return np.asarray(loadmat(path, variable_names=[variable])[variable])
    except OSError as error:
        if error.errno is not None:
            raise
        raise _UnreadableDayError("the day file cannot be read as a .mat file") from error
    except (MatReadError, *_UNREADABLE) as error:
        raise _UnreadableDayError("the day file cannot be read as a .mat file") from error
