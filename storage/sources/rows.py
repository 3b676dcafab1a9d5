"""Reading samples one by one: good ones become rows, bad ones rows with a reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.samples import Rejection, SampleBlock
from storage.sources.source import Source


class BadSampleError(Exception):
    """One sample cannot be used; its message becomes the rejection's reason."""


class LeftOutError(BadSampleError):
    """One sample is left out by an option of the ingestion, though nothing is wrong with it."""


Sample = tuple[NDArray[Any], dict[str, NDArray[np.float32]]]
"""An image [H, W, C] and its labels by name; a label that is not known is left away."""


def read_rows(
    source: Source, start: int, stop: int, read_one: Callable[[str], Sample]
) -> SampleBlock:
    """Return samples start to stop − 1 of a source, of which `read_one` reads each by its name.

    Those for which it raises BadSampleError are not valid, and rejected for its message.
    """
    ids = source.ids(start, stop)
    num_rows = len(ids)
    images = np.zeros((num_rows, *source.image_shape), source.dtype)
    labels = {spec.name: np.full((num_rows, *spec.shape), np.nan, np.float32)
              for spec in source.labels}  # fmt: skip
    rejections = []
    for place, name in enumerate(ids):
        try:
            image, known = read_one(name)
        except BadSampleError as error:
            by_choice = isinstance(error, LeftOutError)
            rejections.append(Rejection(start + place, name, str(error), by_choice))
            continue
        images[place] = image
        for label, value in known.items():
            labels[label][place] = value
    valid = np.ones(num_rows, bool)
    valid[[rejection.row - start for rejection in rejections]] = False
    return SampleBlock(images, valid, ids, labels, tuple(rejections))
