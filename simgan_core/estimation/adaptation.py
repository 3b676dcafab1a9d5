"""Unsupervised adaptation: pseudo-labels for unlabelled real images, centred among look-alikes.

Estimators trained on another domain err by an offset that is constant for a look: a person, a head
turn, a crop. People of every look are assumed to look in the same directions on average; so what
the predictions on images that look alike have in common beyond the overall mean is that offset, and
is subtracted. A student is then trained on the real images with the centred predictions as labels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError

_GRID = (12, 18)
"""Blocks of an image, rows and columns, whose means describe its look."""
_IRIS = (slice(3, 9), slice(3, 15))
"""Blocks in the middle that are left out: they show where the eye looks."""
_EDGE_WEIGHT = 3.0
"""Weight of the mean absolute vertical difference of a block against its mean grey level."""
_NUM_NEIGHBOURS = 20
_NUM_STEPS = 10
"""Steps of the random walk over which predictions are averaged."""
_MAX_REFERENCES = 4000
"""Images among which all distances are taken; others have the mean offset of some of them."""
_NUM_NEAREST_REFERENCES = 20


def student_config(config: EstimatorConfig) -> EstimatorConfig:
    """Return the recipe of a student: wide random crops, no part kept out of noisy labels."""
    return config.model_copy(
        update={"max_shift_px": 4.0, "max_scale": 0.15, "validation_share": 0.0}
    )


def centre_by_look(
    predictions_deg: NDArray[np.floating],
    images: NDArray[np.uint8] | NDArray[np.uint16],
    seed: int,
) -> NDArray[np.float64]:
    """Subtract from predictions [N, 2] (pitch, yaw in degrees) what images that look alike share.

    `images` are [N, H, W, C]. The offset is the predictions' average over a random walk of a few
    steps on the graph of mutual nearest neighbours by look (block means and vertical edges outside
    the iris), less the overall mean, which stays. Beyond 4,000 images the graph is over so many
    drawn by `seed`, and the others take the mean offset of their nearest ones.

    Raises InputError where predictions and images do not belong together.
    """
    if predictions_deg.shape != (len(images), 2) or not np.isfinite(predictions_deg).all():
        raise InputError(
            f"centring needs finite pitch and yaw [N, 2] of {len(images)} images, found "
            f"{list(predictions_deg.shape)}"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    references = np.sort(order[:_MAX_REFERENCES])
    looks = _looks(images)
    predicted = torch.from_numpy(np.asarray(predictions_deg, np.float64))
    walk = _random_walk(looks[references])
    local = predicted[references]
    for _ in range(_NUM_STEPS):
        local = torch.sparse.mm(walk, local)
    offset = torch.empty_like(predicted)
    offset[references] = local - predicted[references].mean(dim=0)
    others = np.setdiff1d(order, references)
    for rows in np.array_split(others, -(-len(others) // _MAX_REFERENCES) or 1):
        distance = torch.cdist(looks[rows], looks[references])
        count = min(_NUM_NEAREST_REFERENCES, len(references))
        nearest = distance.topk(count, dim=1, largest=False).indices
        offset[rows] = offset[references][nearest].mean(dim=1)
    return np.asarray((predicted - offset).numpy())


def _looks(images: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """Describe images [N, H, W, C] by what surrounds the iris [N, D], float32, of 0 to 255."""
    keep = torch.ones(_GRID, dtype=torch.bool)
    keep[_IRIS] = False
    scale = 255 / np.iinfo(images.dtype).max
    described = []
    for rows in np.array_split(np.arange(len(images)), -(-len(images) // _MAX_REFERENCES)):
        pixels = torch.from_numpy(images[rows].astype(np.float32) * np.float32(scale))
        planes = pixels.permute(0, 3, 1, 2)
        level, edges = (
            functional.adaptive_avg_pool2d(each, _GRID)[:, :, keep]
            for each in (planes, planes.diff(dim=2).abs())
        )
        described.append(torch.cat([level, _EDGE_WEIGHT * edges], dim=2).flatten(1))
    return torch.cat(described)


def _random_walk(looks: Tensor) -> Tensor:
    """Return the transition matrix [N, N], sparse, over mutual nearest neighbours and oneself."""
    distance = torch.cdist(looks, looks)
    count = min(_NUM_NEIGHBOURS, len(looks))
    nearest = distance.topk(count, dim=1, largest=False).indices
    near = torch.zeros(distance.shape, dtype=torch.float64).scatter_(1, nearest, 1.0)
    mutual = torch.minimum(near, near.T).fill_diagonal_(1.0)
    return (mutual / mutual.sum(dim=1, keepdim=True)).to_sparse()
