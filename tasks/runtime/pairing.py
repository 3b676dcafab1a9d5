"""Image-label check of a dataset: pupil labels against the images, on rows spread over it."""

import numpy as np

from simgan_core.quality.pairing import Pairing, check_pairing
from storage.reader import Dataset
from storage.schema import PUPIL_PX

_BLOCKS, _ROWS_A_BLOCK = 8, 512


def check_dataset_pairing(dataset: Dataset) -> Pairing | None:
    """Check up to 4,096 valid rows; None for a dataset without pupil labels."""
    spec = dataset.info.spec
    if PUPIL_PX.name not in {label.name for label in spec.labels}:
        return None
    if spec.num_rows <= _BLOCKS * _ROWS_A_BLOCK:
        starts = list(range(0, spec.num_rows, _ROWS_A_BLOCK))
    else:
        last = spec.num_rows - _ROWS_A_BLOCK
        starts = [round(last * block / (_BLOCKS - 1)) for block in range(_BLOCKS)]
    blocks = [dataset.read(start, min(start + _ROWS_A_BLOCK, spec.num_rows)) for start in starts]
    images = np.concatenate([block.images[block.valid] for block in blocks])
    pupil_px = np.concatenate([block.labels[PUPIL_PX.name][block.valid] for block in blocks])
    return check_pairing(images, pupil_px)
