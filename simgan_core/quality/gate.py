"""Label gate of bulk refinement: keep a refined row if its label holds and its content is intact.

The gate that chooses among refiners during training is `simgan_core.training.early_stopping`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.compute.array_api import Array, library_of, on_host
from simgan_core.quality.label_drift import PupilShift, pupil_shift_px

MAX_NEWLY_CLIPPED = 0.25
"""Share of pixels that refinement may turn black or white; beyond it an eye is mostly gone."""
HISTOGRAM_EDGES_PX = np.arange(0.0, 4.25, 0.25)
"""Edges of the histogram of shifts; the last bin is open."""


@dataclass(frozen=True)
class Inspection:
    """Measurements of the refinement of N images."""

    shift: PupilShift | None
    """Shifts of the pupils; None without labels of pupil centres."""
    saturated: NDArray[np.bool_]
    """True where refinement clipped more than MAX_NEWLY_CLIPPED of the pixels [N]."""

    def reasons(self, gate_shift_px: float) -> list[str | None]:
        """Return for each image the reason of its rejection, or None [N].

        A lost pupil counts as moved: it went beyond reach, or was painted over. One that was not
        found before either says nothing.
        """
        moved = lost = np.zeros(len(self.saturated), np.bool_)
        if self.shift is not None:
            # NaN, not found, compares as false.
            moved, lost = self.shift.shift_px > gate_shift_px, self.shift.lost
        why = np.select(
            [self.saturated, moved, lost],
            [
                f"refinement clipped more than {MAX_NEWLY_CLIPPED:.0%} of the pixels",
                f"refinement moved the pupil by more than {gate_shift_px:g} px",
                "the pupil is no longer found near its label",
            ],
            "",
        )
        return [reason or None for reason in why.tolist()]

    def figures(self) -> dict[str, float]:
        """Return the summary and the histogram of the shifts, and how many images saturated."""
        figures = {"num_saturated": float(self.saturated.sum())}
        if self.shift is not None:
            figures["num_lost"] = float(self.shift.lost.sum())
        if self.shift is None or not self.shift.found.any():
            return figures
        figures |= {f"pupil_shift_px.{name}": x for name, x in self.shift.summary().items()}
        counts = shift_histogram(self.shift.shift_px[self.shift.found])
        names = (f"pupil_shift_px.from_{edge:.2f}" for edge in HISTOGRAM_EDGES_PX)
        return figures | dict(zip(names, counts.astype(float).tolist(), strict=True))


def inspect(synthetic: Array, refined: Array, pupil_px: NDArray[Any] | None) -> Inspection:
    """Compare refined images with the same synthetic ones [N, H, W, C], row by row.

    Images are uint8, or uint16 of which the upper bytes are compared: NumPy arrays or fully
    computed GPU tensors. Tensors are processed on a CUDA stream of their own, so that other work
    continues. `pupil_px` [N, 2] are the labels, if there are any.
    """
    synthetic, refined = _upper_bits(synthetic), _upper_bits(refined)
    if not isinstance(synthetic, torch.Tensor):
        return _inspect(synthetic, refined, pupil_px)
    with torch.inference_mode(), torch.cuda.stream(_stream(synthetic.device)):
        return _inspect(synthetic, refined, pupil_px)


def _inspect(synthetic: Array, refined: Array, pupil_px: NDArray[Any] | None) -> Inspection:
    newly_clipped = _num_clipped(refined) - _num_clipped(synthetic)
    saturated = newly_clipped > MAX_NEWLY_CLIPPED * math.prod(synthetic.shape[1:])
    shift = None if pupil_px is None else pupil_shift_px(synthetic, refined, pupil_px)
    return Inspection(shift, saturated)


def shift_histogram(shift_px: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Count shifts by HISTOGRAM_EDGES_PX, a bin an edge and upward."""
    bins = np.searchsorted(HISTOGRAM_EDGES_PX, shift_px, side="right") - 1
    return np.bincount(bins, minlength=len(HISTOGRAM_EDGES_PX))


def _upper_bits(images: Array) -> Array:
    """Return uint8 images as they are, and a view of the upper bytes of uint16 ones."""
    xp = library_of(images)
    if images.dtype == xp.uint8:
        return images
    return images.view(xp.uint8)[..., 1::2]  # little-endian


def _num_clipped(images: Array) -> NDArray[np.int64]:
    """Return how many pixels of each image are black or white [N]."""
    # One comparison for both ends: 0 and 255 are neighbours modulo 256.
    ends = (images + 1 <= 1).reshape(len(images), math.prod(images.shape[1:]))
    # The sum of booleans takes twice as long.
    xp = library_of(images)
    return np.asarray(on_host(ends.view(xp.uint8).sum(axis=1, dtype=xp.int32)), np.int64)


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the CUDA stream of all inspections, so that torch reuses the memory they freed."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
