"""Pairs of synthetic images and the same ones refined."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.reader import Dataset
from storage.samples import Images
from tasks.runtime.styles import load_first_style


class Pairs(NamedTuple):
    """Synthetic images and the same ones refined [N, H, W, C], N at least 1."""

    synthetic: Images
    refined: Images
    pupil_px: NDArray[np.float32] | None
    """Labels [N, 2] where the synthetic dataset has them."""


def valid_pairs(synthetic: Dataset, refined: Dataset, max_rows: int) -> Pairs | None:
    """Pair the first rows of two datasets that are valid in both, in the first style.

    The label gate of a refinement leaves out rows of one of them. None where ids differ.
    """
    before, after = (
        load_first_style(dataset, max_rows, valid_only=False) for dataset in (synthetic, refined)
    )
    both = before.valid & after.valid if before.ids == after.ids else np.zeros(0, bool)
    if not both.any():
        return None
    pupil_px = before.labels.get("pupil_px")
    return Pairs(
        before.images[both], after.images[both], None if pupil_px is None else pupil_px[both]
    )
