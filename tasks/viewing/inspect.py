"""Dataset summary: schema, statistics, and a sheet of labelled images."""

import io
import logging
from collections import Counter
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, JsonValue

from simgan_core.landmarks.model import LandmarkModel
from storage.errors import CorruptDatasetError
from storage.reader import Dataset, open_dataset
from storage.samples import SampleBlock
from storage.schema import CORNERS_PX, HEAD_POSE, LID_PX, LabelSpec
from storage.verification import check_shards
from tasks.runtime.pairing import check_dataset_pairing
from tasks.runtime.pictures import png
from tasks.runtime.stages import position
from tasks.viewing.eye_position import CropDifference, EyePosition, crop_difference, eye_position
from tasks.viewing.overlays import draw_sample

logger = logging.getLogger(__name__)

NUM_IMAGES = 24
NUM_COLUMNS = 6
CELL_WIDTH = 220
GAP = 6
PAPER = (255, 255, 255)
MAX_VALUES = 200_000
"""Histograms are of so many rows, evenly spread."""


class LabelRange(BaseModel):
    """Range of a label's numbers over the valid rows."""

    name: str
    unit: str
    frame: str
    shape: tuple[int, ...]
    low: tuple[float | None, ...]
    """Smallest of each component (the last axis); None for one that no row has."""
    high: tuple[float | None, ...]
    num_unknown: int
    """Valid rows of which it is not known; of a head pose, pitch or yaw."""
    num_roll_unknown: int = 0
    """Valid rows with pitch and yaw of a head pose, and without its roll."""

    def __str__(self) -> str:
        ranges = ", ".join(
            "unknown" if low is None else f"{low:.3g} … {high:.3g}"
            for low, high in zip(self.low, self.high, strict=True)
        )
        unit = "" if self.unit == "1" else f" in {self.unit}"
        unknown = f", unknown in {self.num_unknown:,} rows" if self.num_unknown else ""
        roll = f", roll unknown in {self.num_roll_unknown:,} rows" if self.num_roll_unknown else ""
        return f"{self.name} {list(self.shape)}{unit}: {ranges}{unknown}{roll}"


class CropCentre(BaseModel):
    """Centre of the crops: the eye's corners relative to the image's middle.

    Both domains of a training should share one rule: a pixel at a width of 55 is about 3°
    of gaze.
    """

    landmarks: Literal["corners", "lids"]
    """The corners' labels, or the lids' leftmost and rightmost points."""
    offset_px: tuple[float, float]
    """Midpoint of the corners less the image's middle, x to the right and y down: mean."""
    offset_sd_px: tuple[float, float]
    width_px: float
    """Mean distance of the corners."""
    width_sd_px: float

    def __str__(self) -> str:
        (x, y), (x_sd, y_sd) = self.offset_px, self.offset_sd_px
        return (
            f"midpoint of the {self.landmarks} from the image's middle: {x:+.1f} ± {x_sd:.1f} px "
            f"right, {y:+.1f} ± {y_sd:.1f} px down; corner to corner {self.width_px:.1f} ± "
            f"{self.width_sd_px:.1f} px"
        )


class Description(BaseModel):
    """Summary of a dataset, as `simgan inspect` prints it."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    domain: str
    num_rows: int
    num_valid: int
    num_shards: int
    image: str
    preprocess: str
    source: dict[str, JsonValue]
    provenance: dict[str, JsonValue]
    labels: tuple[LabelRange, ...]
    rejections: dict[str, int]
    """Rows that are not valid, by reason."""
    pupil_labels_missed: float | None
    """Share of rows whose eye is no darker at its own pupil label than at those of others; None
    without pupil labels."""
    crop_centre: CropCentre | None
    """By the labels; None without landmarks of the corners or the lids."""
    eye_position: EyePosition | None
    """By the landmark network; None where it finds no eyes."""
    against: str | None = None
    """Another dataset that its crops were compared with."""
    crop_difference: CropDifference | None = None
    """Of the other dataset; None where none is given or one of them shows no eyes."""
    warnings: tuple[str, ...]
    digest: str
    code: dict[str, JsonValue]

    def text(self) -> str:
        """Return the summary as text."""
        shards = f"{self.num_shards} shard{'s' if self.num_shards > 1 else ''}"
        lines = [
            f"{self.dataset}: {self.num_rows:,} rows, {self.num_valid:,} valid, {shards}",
            f"  {self.domain}, {self.image}, preprocess {self.preprocess}",
            f"  source: {_listed(self.source)}",
        ]
        if self.provenance:
            lines.append(f"  provenance: {_listed(self.provenance)}")
        if self.code:
            lines.append(f"  code: {_listed(self.code)}")
        frame = ""
        for label in self.labels:
            if label.frame != frame:
                lines.append(f"  labels, {label.frame}")
                frame = label.frame
            lines.append(f"    {label}")
        lines += [f"  rejected: {n:,} × {reason}" for reason, n in self.rejections.items()]
        if self.pupil_labels_missed is not None:
            lines.append(
                "  pupil labels that miss the dark pupil of their image: "
                f"{self.pupil_labels_missed:.1%}"
            )
        if self.crop_centre is not None:
            lines.append(f"  {self.crop_centre}")
        if self.eye_position is not None:
            lines.append(f"  {self.eye_position}")
        if self.crop_difference is not None:
            lines.append(f"  in {self.against} {self.crop_difference}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join([*lines, f"  digest {self.digest}"])


def inspect_dataset(url: str, sheet: Path, against: str | None = None) -> Description:
    """Describe a dataset and write its contact sheet, a PNG; compare its crops with another's."""
    dataset = open_dataset(url)
    other = None if against is None else open_dataset(against)
    labels = {name: label[dataset.read_valid()] for name, label in dataset.read_labels().items()}
    sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.write_bytes(png(contact_sheet(dataset, labels)))
    description = _describe(dataset, labels)
    return description if other is None else _compared(description, other)


def _compared(description: Description, other: Dataset) -> Description:
    """Add how the crops of another dataset differ."""
    here, there = description.eye_position, eye_position(other, LandmarkModel.load())
    name = other.info.url
    if here is None or there is None:
        whose = description.dataset if here is None else name
        difference, warning = None, f"no eyes were found in {whose}: its crops were not compared"
    else:
        difference = crop_difference(here, there, other.info.spec.height / other.info.spec.width)
        warning = difference.warning
    return description.model_copy(
        update={
            "against": name,
            "crop_difference": difference,
            "warnings": (*description.warnings, *filter(None, [warning])),
        }
    )


def verify_dataset(url: str) -> int:
    """Read every shard again; returns how many there are.

    Raises CorruptDatasetError, naming those that are not what was written.
    """
    dataset = open_dataset(url)
    faults = []
    for check in check_shards(dataset):
        at = position("verifying", check.shard + 1, dataset.num_shards)
        words = "shard %d of %d: %s"
        logger.info(words, check.shard + 1, dataset.num_shards, check.fault or "ok", extra=at)
        if check.fault:
            faults.append(f"shard {check.shard} {check.fault}")
    if faults:
        raise CorruptDatasetError(
            f"{len(faults)} of {dataset.num_shards} shards of {dataset.info.url} are damaged: "
            f"{'; '.join(faults[:5])}. Restore it from a copy, or make it again with --overwrite"
        )
    return dataset.num_shards


def contact_sheet(dataset: Dataset, labels: dict[str, NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return images with their labels drawn on them, and histograms below, uint8 [H, W, 3]."""
    cells = [draw_sample(block, CELL_WIDTH) for block in _chosen(dataset)]
    histograms = _histograms(labels, NUM_COLUMNS * (CELL_WIDTH + GAP) - GAP)
    width, height = CELL_WIDTH + GAP, max((cell.height for cell in cells), default=0) + GAP
    num_rows = -(-len(cells) // NUM_COLUMNS)
    below = num_rows * height
    size = (NUM_COLUMNS * width - GAP, below + (0 if histograms is None else histograms.height))
    sheet = Image.new("RGB", (size[0], max(1, size[1])), PAPER)
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % NUM_COLUMNS * width, place // NUM_COLUMNS * height))
    if histograms is not None:
        sheet.paste(histograms, (0, below))
    return np.asarray(sheet)


def _chosen(dataset: Dataset) -> list[SampleBlock]:
    """Return valid samples, evenly spread, each as a block of one."""
    valid = np.flatnonzero(dataset.read_valid())
    places = np.linspace(0, len(valid) - 1, min(NUM_IMAGES, len(valid))).astype(np.intp)
    return [dataset.read(row, row + 1) for row in valid[places].tolist()]


def _histograms(labels: dict[str, NDArray[np.float32]], width: int) -> Image.Image | None:
    """Return histograms of the labels' components; of several points, of all together."""
    names = [name for name, label in labels.items() if np.isfinite(label).any()]
    if not names:
        return None
    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415  takes a second to load

    figure = Figure(figsize=(width / 100, 2.2), dpi=100, layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        label = labels[name][:: max(1, len(labels[name]) // MAX_VALUES)]
        for component in range(label.shape[-1]):
            values = label[..., component].ravel()
            axes.hist(values[np.isfinite(values)], bins=40, histtype="step",
                      label=str(component))  # fmt: skip
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _describe(dataset: Dataset, labels: dict[str, NDArray[np.float32]]) -> Description:
    spec = dataset.info.spec
    reasons = Counter(r.reason for record in dataset.records() for r in record.rejections)
    pairing = check_dataset_pairing(dataset)
    return Description(
        dataset=dataset.info.url,
        domain=spec.domain,
        num_rows=spec.num_rows,
        num_valid=dataset.info.num_valid,
        num_shards=dataset.num_shards,
        image=f"{spec.height}×{spec.width}×{spec.channels} {spec.dtype}",
        preprocess=spec.preprocess,
        source=spec.source,
        provenance=spec.provenance,
        code=dataset.info.code,
        pupil_labels_missed=None if pairing is None else pairing.share_missed,
        crop_centre=_crop_centre(dataset, labels),
        eye_position=eye_position(dataset, LandmarkModel.load()),
        warnings=(warning,) if pairing is not None and (warning := pairing.warning()) else (),
        labels=tuple(_label_range(label, labels[label.name]) for label in spec.labels),
        rejections=dict(reasons.most_common()),
        digest=dataset.info.digest,
    )


def _crop_centre(dataset: Dataset, labels: dict[str, NDArray[np.float32]]) -> CropCentre | None:
    if CORNERS_PX.name in labels:
        landmarks: Literal["corners", "lids"] = "corners"
        corners = labels[CORNERS_PX.name]
    elif LID_PX.name in labels:
        landmarks, lids = "lids", labels[LID_PX.name]
        lids = lids[np.isfinite(lids).all(axis=(1, 2))]
        at = np.stack([lids[..., 0].argmin(axis=1), lids[..., 0].argmax(axis=1)], axis=1)
        corners = np.take_along_axis(lids, at[..., None], axis=1)
    else:
        return None
    corners = corners[np.isfinite(corners).all(axis=(1, 2))]
    if not len(corners):
        return None
    spec = dataset.info.spec
    offset = corners.mean(axis=1) - np.array([spec.width, spec.height]) / 2
    width = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
    (x, y), (x_sd, y_sd) = offset.mean(axis=0).tolist(), offset.std(axis=0).tolist()
    return CropCentre(
        landmarks=landmarks,
        offset_px=(x, y),
        offset_sd_px=(x_sd, y_sd),
        width_px=float(width.mean()),
        width_sd_px=float(width.std()),
    )


def _label_range(spec: LabelSpec, values: NDArray[np.float32]) -> LabelRange:
    """Return the range of a label's values [N, …] of the valid rows."""
    is_unknown = np.isnan(values.reshape(len(values), -1))
    # Many sources tell no roll, and nothing that uses head poses looks at it.
    needed = slice(2) if spec.name == HEAD_POSE.name else slice(None)
    lacks_needed = is_unknown[:, needed].any(axis=1)
    return LabelRange(
        name=spec.name,
        unit=spec.unit,
        frame=spec.frame,
        shape=spec.shape,
        low=_along_components(values, np.fmin),
        high=_along_components(values, np.fmax),
        num_unknown=int(lacks_needed.sum()),
        num_roll_unknown=int((is_unknown.any(axis=1) & ~lacks_needed).sum()),
    )


def _along_components(label: NDArray[np.float32], extreme: np.ufunc) -> tuple[float | None, ...]:
    """Return the smallest or largest number of each component; empty where there are no rows."""
    rows = label.reshape(-1, label.shape[-1])
    found = extreme.reduce(rows, axis=0).tolist() if len(rows) else []
    return tuple(None if np.isnan(number) else number for number in found)


def _listed(values: dict[str, JsonValue]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())
