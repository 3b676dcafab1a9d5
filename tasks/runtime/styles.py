"""Styles of refined rows: the ids of several styles of one image, and the random numbers of each.

A dataset of k styles has k rows for each row of the dataset that it was refined from, one after
another: row r is row r // k in style r % k + 1, and its id is that row's with `#` and the style.
With one style rows and ids are those of the other dataset. Refined again, a dataset of k styles in
l others has k·l rows for each image, with ids such as `eye/0#2#1`.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from storage.reader import Dataset
from storage.samples import SampleBlock
from storage.schema import DatasetInfo

_MAX_NUMBERS = 16
"""Of one digest of 64 bytes, by 32 bits each."""


def num_styles(info: DatasetInfo) -> int:
    """Return how many rows of a refined dataset are of one image; 1 of any other dataset."""
    return math.prod(styles_of(info))


def styles_of(info: DatasetInfo) -> list[int]:
    """Return the number of styles of each refinement in several, the first one's first."""
    made = info.spec.provenance
    earlier, last = made.get("styles_before", []), made.get("styles", 1)
    assert isinstance(earlier, list)
    return [count for count in (*earlier, last) if isinstance(count, int) and count > 1]


def base_ids(dataset: Dataset) -> list[str]:
    """Return for each row the id of the image that it was refined from, or its own."""
    return image_ids(dataset.read_ids(), dataset.info)


def image_ids(ids: Sequence[str], info: DatasetInfo) -> list[str]:
    """Return the ids of the images that some rows of a dataset were refined from, or their own."""
    return _without_styles(ids, len(styles_of(info)))


def load_first_style(
    dataset: Dataset, max_rows: int | None = None, *, valid_only: bool = True
) -> SampleBlock:
    """Return rows of the first style, at most `max_rows`, by the ids of what they were made from.

    Of a dataset of one style these are its rows.
    """
    styles = styles_of(dataset.info)
    limit = None if max_rows is None else max_rows * math.prod(styles)
    block = dataset.load(valid_only=valid_only, max_rows=limit)
    if not styles:
        return block
    first = np.array([sample_id.endswith("#1" * len(styles)) for sample_id in block.ids], bool)
    ids = _without_styles(block.ids, len(styles))
    return SampleBlock(
        images=block.images[first],
        valid=block.valid[first],
        ids=[sample_id for sample_id, is_first in zip(ids, first, strict=True) if is_first],
        labels={name: label[first] for name, label in block.labels.items()},
    )


def read_styled(dataset: Dataset, rows: range, styles: int) -> SampleBlock:
    """Return rows of a dataset of `styles` styles whose images are still those of `dataset`."""
    first = rows.start // styles
    block = dataset.read(first, -(-rows.stop // styles))
    if styles == 1:
        return block
    from_row = np.arange(rows.start, rows.stop) // styles - first
    rejections = (
        replace(rejection, row=row, id=_styled_id(rejection.id, row % styles + 1))
        for rejection in block.rejections
        for row in range(rejection.row * styles, (rejection.row + 1) * styles)
        if row in rows
    )
    return SampleBlock(
        images=block.images[from_row],
        valid=block.valid[from_row],
        ids=[
            _styled_id(block.ids[source], row % styles + 1)
            for row, source in zip(rows, from_row.tolist(), strict=True)
        ],
        labels={name: label[from_row] for name, label in block.labels.items()},
        rejections=tuple(rejections),
    )


def style_numbers(ids: Sequence[str], styles: int, seed: int, size: int) -> NDArray[np.float32]:
    """Return the style of each row of a dataset of `styles` styles, standard normal [N, size].

    A row's numbers follow from the seed, the image's id and the style's index alone: not from the
    rows beside it, nor from how many styles there are.
    """
    assert size <= _MAX_NUMBERS
    indices = [int(each.rpartition("#")[2]) if styles > 1 else 1 for each in ids]
    digests = b"".join(
        hashlib.blake2b(f"{seed}\n{index}\n{name}".encode()).digest()
        for index, name in zip(indices, _without_styles(ids, int(styles > 1)), strict=True)
    )
    words = np.frombuffer(digests, "<u4").reshape(len(ids), _MAX_NUMBERS)
    uniform = (words + 0.5) / 2.0**32
    # Box–Muller: of two uniform numbers two normal ones.
    radius = np.sqrt(-2.0 * np.log(uniform[:, ::2]))
    angle = 2.0 * np.pi * uniform[:, 1::2]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.ascontiguousarray(normal[:, :size], dtype=np.float32)


def _styled_id(sample_id: str, style: int) -> str:
    return f"{sample_id}#{style}"


def _without_styles(ids: Sequence[str], count: int) -> list[str]:
    """Return ids without the styles of the last `count` refinements."""
    return [each.rsplit("#", count)[0] for each in ids] if count else list(ids)
