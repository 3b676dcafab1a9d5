"""Reading samples one by one: good ones become rows, bad ones rows with a reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.samples import Rejection, SampleBlock
from storage.schema import LabelSpec
from storage.sources.crop import Size


class BadSampleError(Exception):
    """One sample cannot be used; its message becomes the rejection's reason."""


Sample = tuple[NDArray[Any], dict[str, NDArray[np.float32]]]
"""An image [H, W, C] and its labels by name."""


def read_rows(
    ids: list[str],
    start: int,
    read_one: Callable[[int], Sample],
    size: Size,
    labels: tuple[LabelSpec, ...],
) -> SampleBlock:
    """Return the grey uint8 samples named `ids`, of which `read_one` reads each by its row.

    The rows are counted from `start`. Those for which `read_one` raises BadSampleError are not
    valid, and rejected for its message.
    """
    num_rows = len(ids)
    images = np.zeros((num_rows, *size, 1), np.uint8)
    values = {spec.name: np.full((num_rows, *spec.shape), np.nan, np.float32) for spec in labels}
    rejections = []
    for place, name in enumerate(ids):
        try:
            images[place], known = read_one(start + place)
        except BadSampleError as error:
            rejections.append(Rejection(start + place, name, str(error)))
            continue
        for label, value in known.items():
            values[label][place] = value
    valid = np.ones(num_rows, bool)
    valid[[rejection.row - start for rejection in rejections]] = False
    return SampleBlock(images, valid, ids, values, tuple(rejections))
