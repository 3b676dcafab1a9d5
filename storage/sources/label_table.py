"""Label tables keyed by file name: labels.csv or labels.parquet.

| columns | label |
|---|---|
| `file` | which image: its path in the folder, "a/12.png" |
| `gaze_x`, `gaze_y`, `gaze_z` | `gaze`: x right, y down, z into the scene; of any length |
| `gaze_pitch`, `gaze_yaw` | `gaze`: radians, positive where it goes up and to the image's left |
| `head_pitch`, `head_yaw`, `head_roll` | `head_pose`: radians |
| `pupil_x`, `pupil_y` | `pupil_px`: pixels of the file's image, from its top left |
"""

import hashlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.schema import GAZE, HEAD_POSE, PUPIL_PX, LabelSpec
from storage.sources.crop import Box, Size, to_crop
from storage.sources.gaze_angles import directions, directions_of_angles
from storage.sources.listing import Listing
from storage.sources.rows import BadSampleError

logger = logging.getLogger(__name__)

KEY = "file"
GROUPS: dict[tuple[str, ...], LabelSpec] = {
    ("gaze_x", "gaze_y", "gaze_z"): GAZE,
    ("gaze_pitch", "gaze_yaw"): GAZE,
    ("head_pitch", "head_yaw", "head_roll"): HEAD_POSE,
    ("pupil_x", "pupil_y"): PUPIL_PX,
}
"""The columns of a label, and the label."""


class LabelTable:
    """Labels by file name; other columns are named in the log and left alone.

    Raises SourceError where the table is damaged, lacks `file` or has a file or a column twice, has
    no label, or some of a label's columns only.
    """

    def __init__(self, path: Path, files: Listing) -> None:
        self._path = path
        table = _read_table(path)
        columns = _distinct_columns(path, table)
        if KEY not in columns:
            raise SourceError(f"{path} has no column {KEY!r}; it has: {', '.join(sorted(columns))}")
        self._groups = _groups_of(path, columns)
        self.labels: tuple[LabelSpec, ...] = tuple(self._groups.values())
        self._rows: dict[str, int] = {}
        for row, name in enumerate(map(str, table.column(KEY).to_pylist())):
            if self._rows.setdefault(name, row) != row:
                raise SourceError(f"{path} has {name!r} twice; a file has one row")
        self._values = {
            group: np.stack([_numbers(table.column(name)) for name in group], axis=1)
            for group in self._groups
        }
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self._tell_of_others(columns, files)

    def find(self, name: str, box: Box, size: Size) -> dict[str, NDArray[np.float32]]:
        """Return the labels of an image of which a box was cut out and resized.

        Raises BadSampleError where the table has no row of it, or no number in it.
        """
        row = self._rows.get(name)
        if row is None:
            raise BadSampleError(f"{self._path.name} has no row of the file")
        labels: dict[str, NDArray[np.float32]] = {}
        for group, spec in self._groups.items():
            values = self._values[group][row]
            if not np.isfinite(values).all():
                raise BadSampleError(f"{', '.join(group)} are not all numbers")
            # Not by identity: specs of another process are equal, and not the same.
            if spec == PUPIL_PX:
                labels[spec.name] = to_crop(values, box, size)
            elif group == ("gaze_pitch", "gaze_yaw"):
                _require_radians(group, values)
                labels[spec.name] = directions_of_angles(values)
            elif spec == GAZE:
                labels[spec.name] = directions(values)
                if not np.isfinite(labels[spec.name]).all():
                    raise BadSampleError("the gaze is no direction")
            else:
                _require_radians(group, values)
                labels[spec.name] = values.astype(np.float32)
        if not all(np.isfinite(label).all() for label in labels.values()):
            raise BadSampleError("a label is of absurd size")
        return labels

    def _tell_of_others(self, columns: set[str], files: Listing) -> None:
        others = sorted(columns - {KEY} - {name for group in self._groups for name in group})
        if others:
            logger.warning("%s: columns that are no labels: %s", self._path, ", ".join(others))
        if len(self._rows) > len(files):
            more = len(self._rows) - len(files)
            logger.warning("%s has %d rows more than there are images", self._path, more)


def _read_table(path: Path) -> Any:
    try:
        if path.suffix == ".csv":
            as_text = pyarrow.csv.ConvertOptions(column_types={KEY: pa.string()})
            table = pyarrow.csv.read_csv(path, convert_options=as_text)
        else:
            table = pyarrow.parquet.read_table(path)
        # Text that is none is found here, in the names of columns as in their values.
        _ = table.column_names
        table.validate(full=True)
    except OSError as error:
        if error.errno is not None:
            raise
        raise SourceError(f"{path} is damaged: {error}") from error
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(f"{path} is damaged: {error}") from error
    return table


def _distinct_columns(path: Path, table: Any) -> set[str]:
    counts = Counter(table.column_names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise SourceError(
            f"{path} has columns twice ({', '.join(map(repr, twice))}), and which of them counts "
            "is not clear; rename or remove one"
        )
    return set(counts)


def _groups_of(path: Path, columns: set[str]) -> dict[tuple[str, ...], LabelSpec]:
    found = {group: spec for group, spec in GROUPS.items() if columns & set(group)}
    for group in found:
        if missing := [name for name in group if name not in columns]:
            raise SourceError(f"{path} has {group[0]} and the like, but no {', '.join(missing)}")
    names = [spec.name for spec in found.values()]
    known = "; ".join(", ".join(group) for group in GROUPS)
    if not names:
        raise SourceError(
            f"{path} has no column of a label; it has: {', '.join(sorted(columns))}; "
            f"known are {known}; for unlabelled images, remove the table"
        )
    if len(set(names)) < len(names):
        raise SourceError(f"{path} must have the columns of each label once; known are {known}")
    return found


def _require_radians(group: tuple[str, ...], values: NDArray[np.float64]) -> None:
    if np.abs(values).max() > np.pi:
        raise BadSampleError(f"{', '.join(group)} are not in radians")


def _numbers(column: Any) -> NDArray[np.float64]:
    """Return a column as numbers; NaN for what is none."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy(), np.float64)
    return np.array([_number(value) for value in column.to_pylist()], np.float64)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")
