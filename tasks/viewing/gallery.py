"""Gallery data: matching images of several datasets, and metrics to sort them by.

Rows are the samples of the first dataset. A dataset that has the same ids is aligned by them; of
one that has others, real images say, each row shows the image that is most like it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.gaze import angular_error_deg, pitchyaw_from_gaze
from simgan_core.quality.label_drift import pupil_shift_px
from simgan_core.quality.nearest import nearest
from storage.reader import Dataset, open_dataset
from storage.samples import SampleBlock
from storage.schema import Domain
from tasks.runtime.compatibility import require_same_images
from tasks.runtime.pictures import as_8_bits
from tasks.runtime.styles import base_ids

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Column:
    """The images of one dataset, M of them, and which of them each row of the gallery shows."""

    title: str
    domain: Domain
    images: NDArray[np.uint8]
    """uint8 [M, H, W, C]."""
    ids: list[str]
    """M names."""
    labels: dict[str, NDArray[np.float32]]
    """float32 [M, …] by name."""
    of_row: NDArray[np.int64]
    """int64 [N]: the image of each row; −1 where the dataset has none of that id."""
    is_nearest: bool = False
    """Chosen for being alike, and not for bearing the same id."""


@dataclass(frozen=True)
class Figure:
    """A figure of every row, to sort by."""

    title: str
    unit: str
    values: Floats
    """[N]; NaN where not known."""


@dataclass(frozen=True)
class Gallery:
    """Content of a gallery page: N rows."""

    columns: list[Column]
    figures: list[Figure]
    pitchyaw_deg: Floats | None
    """[N, 2] where the gaze is labelled."""

    @property
    def num_rows(self) -> int:
        """Rows of the gallery."""
        return len(self.columns[0].of_row)


def make_gallery(urls: Sequence[str], max_images: int, errors: Path | None) -> Gallery:
    """Read at most `max_images` valid rows of each dataset and join them; raises InputError."""
    if max_images < 1:
        raise InputError(f"--max-images {max_images}: expected at least 1")
    first, *others = [open_dataset(url) for url in urls]
    for other in others:
        require_same_images(first.info, other.info, "first", "other")
    rows = first.load(max_rows=max_images)
    if len(rows) == 0:
        raise InputError(f"dataset {first.info.url} has no valid rows; there is nothing to show")
    columns = [_column(first, rows, np.arange(len(rows)))]
    known = set(rows.ids)
    alike = [dataset for dataset in others if known.isdisjoint(base_ids(dataset))]
    columns += [_aligned(dataset, rows.ids) for dataset in others if dataset not in alike]
    figures = _shift_of(columns)
    for dataset in alike:
        column, distance = _nearest(dataset, columns, max_images)
        columns.append(column)
        figures.append(distance)
    if errors is not None:
        figures.append(_errors_of(errors, rows.ids))
    gaze = rows.labels.get("gaze")
    return Gallery(
        columns=columns,
        figures=figures,
        pitchyaw_deg=None if gaze is None else np.degrees(pitchyaw_from_gaze(gaze)),
    )


def _column(dataset: Dataset, block: SampleBlock, of_row: NDArray[np.int64]) -> Column:
    spec = dataset.info.spec
    return Column(
        title=f"{spec.domain} ({Path(dataset.info.url).name})",
        domain=spec.domain,
        images=as_8_bits(block.images),
        ids=block.ids,
        labels=block.labels,
        of_row=of_row,
    )


def _aligned(dataset: Dataset, ids: Sequence[str]) -> Column:
    """Return the rows of another dataset that bear these ids and are valid."""
    # Of several styles of an image the first one counts.
    row_of = {name: row for row, name in reversed(list(enumerate(base_ids(dataset))))}
    rows = np.array([row_of.get(name, -1) for name in ids])
    block = dataset.read(0, int(rows.max()) + 1)
    shown = (rows >= 0) & block.valid[rows]
    return _column(dataset, block, np.where(shown, rows, -1))


def _nearest(dataset: Dataset, columns: Sequence[Column], max_images: int) -> tuple[Column, Figure]:
    """Return the image of a dataset that is most like each row's refined one, and how far it is.

    Where there is no refined column, most like the first column's.
    """
    of = next((column for column in columns if column.domain == "refined"), columns[0])
    candidates = dataset.load(max_rows=max_images)
    has_image = of.of_row >= 0
    found = np.full(len(of.of_row), -1, dtype=np.int64)
    distance = np.full(len(of.of_row), np.nan, dtype=np.float32)
    among = as_8_bits(candidates.images)
    found[has_image], distance[has_image] = nearest(of.images[of.of_row[has_image]], among)
    used, of_row = np.unique(found[has_image], return_inverse=True)
    found[has_image] = of_row
    column = Column(
        title=f"most alike {dataset.info.spec.domain} ({Path(dataset.info.url).name})",
        domain=dataset.info.spec.domain,
        images=among[used],
        ids=[candidates.ids[index] for index in used],
        labels={name: label[used] for name, label in candidates.labels.items()},
        of_row=found,
        is_nearest=True,
    )
    title = f"distance of {of.domain} to most alike {dataset.info.spec.domain}"
    return column, Figure(title, "grey levels", distance)


def _shift_of(columns: Sequence[Column]) -> list[Figure]:
    """Return how far refinement moved each pupil, where there is a pair to measure it on."""
    synthetic = next((column for column in columns if column.domain == "synthetic"), None)
    refined = next((column for column in columns if column.domain == "refined"), None)
    if synthetic is None or refined is None or "pupil_px" not in synthetic.labels:
        return []
    both = (synthetic.of_row >= 0) & (refined.of_row >= 0)
    before, after = synthetic.of_row[both], refined.of_row[both]
    shift = pupil_shift_px(
        synthetic.images[before], refined.images[after], synthetic.labels["pupil_px"][before]
    )
    values = np.full(len(both), np.nan, dtype=np.float32)
    values[both] = np.where(shift.found, shift.shift_px, np.nan)
    return [Figure("pupil shift", "px", values)]


def _errors_of(path: Path, ids: Sequence[str]) -> Figure:
    """Return the estimator's error of each row, from the predictions that `evaluate` keeps."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            errors = angular_error_deg(kept["gaze"], kept["predicted"])
            error_of = dict(zip(kept["id"].tolist(), errors.tolist(), strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--errors {path}: expected an .npz file with id, gaze and predicted, such as "
            f"evaluate keeps under estimates/; {error}"
        ) from None
    values = np.array([error_of.get(name, np.nan) for name in ids])
    if np.isnan(values).all():
        raise InputError(
            f"--errors {path}: none of its ids is in the first dataset; give the dataset that the "
            "estimator was tested on first"
        )
    return Figure("estimator error", "°", values)
