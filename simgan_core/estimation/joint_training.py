"""Train hand-joint estimators by the same loop as gaze estimators, and predict with them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.compute.settings import to_channels_last
from simgan_core.config import EstimatorConfig
from simgan_core.data.augmentation import draw_crops, randomly_degrade, shift_and_scale
from simgan_core.data.images import to_network
from simgan_core.errors import InputError
from simgan_core.estimation.fitting import Progress, fit, no_progress, split_rows
from simgan_core.models.hourglass import Hourglass, heat_map_loss, heat_maps, joints_from_heat_maps

_AT_ONCE = 32
"""Images that are predicted at once."""


def train_joint_estimator(
    config: EstimatorConfig,
    images: Tensor,
    joints: Tensor | NDArray[np.floating[Any]],
    seed: int,
    on_progress: Progress = no_progress,
    image_of_row: NDArray[np.int64] | None = None,
) -> Hourglass:
    """Train a stacked hourglass on images [N, H, W, C] and joints [N, J, 2 or 3].

    u and v are pixels, (0, 0) the image's top-left corner; a depth after them is not looked at. The
    loss is the cross-entropy of every stack's heat maps. Joints move with the image where
    training shifts and scales it. It runs where `images` are; `seed` and
    `image_of_row` as for gaze.

    Raises InputError where images and joints do not belong together, NonFiniteLossError where the
    training ran away.
    """
    truth = _joints_uv(images, joints)
    height, width = images.shape[1:3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Hourglass(truth.shape[1], int(images.shape[3]), config.num_features)
        to_channels_last(network, images.device)
    middle = torch.tensor([width, height], dtype=torch.float32, device=images.device) / 2

    def examples(rows: Tensor, changes: torch.Generator) -> tuple[Tensor, ...]:
        shift_px, scale = draw_crops(
            len(rows), config.max_shift_px, config.max_scale, changes, images.device
        )
        hands = shift_and_scale(to_network(images[rows]), shift_px, scale)
        if config.degrade:
            hands = randomly_degrade(hands, changes)
        moved = (truth[rows] - middle) * scale[:, None, None] + middle + shift_px[:, None]
        return hands, heat_maps(moved, height, width)

    def loss(hands: Tensor, maps: Tensor) -> Tensor:
        return heat_map_loss(network(hands), maps)

    def validate(rows: Tensor) -> float:
        found = torch.from_numpy(predict_joints(network, images[rows].cpu().numpy()))
        network.train()
        return float((found - truth[rows].cpu()).norm(dim=2).mean())

    split = split_rows(len(images), config.validation_share, seed, images.device, image_of_row)
    fit(network, config, split, seed, examples, loss, validate, on_progress)
    return network


@torch.no_grad()
def predict_joints(network: Hourglass, images: NDArray[Any]) -> NDArray[np.float32]:
    """Return the joints [N, J, 2] in images [N, H, W, C], in pixels, computed in float32.

    Leaves the network in eval mode.
    """
    network.eval()
    device = next(network.parameters()).device
    height, width = images.shape[1:3]
    found = []
    for first in range(0, len(images), _AT_ONCE):
        # A copy, since torch warns of arrays that it may not write to, such as memory maps.
        pixels = torch.from_numpy(images[first : first + _AT_ONCE].copy()).to(device)
        maps = network(to_network(pixels))[:, -1]
        found.append(joints_from_heat_maps(maps, height, width).cpu().numpy())
    return np.concatenate(found).astype(np.float32)


def _joints_uv(images: Tensor, joints: Tensor | NDArray[np.floating[Any]]) -> Tensor:
    """Return u and v on the images' device; InputError for wrong shapes."""
    given = torch.as_tensor(joints, dtype=torch.float32, device=images.device)
    fits = given.ndim == 3 and len(given) == len(images) > 0 and given.shape[2] in {2, 3}
    if images.ndim != 4 or not fits:
        raise InputError(
            "an estimator of joints is trained on images [N, H, W, C] and joints [N, J, 2 or 3], "
            f"N at least 1, found {list(images.shape)} and {list(given.shape)}"
        )
    if not given[..., :2].isfinite().all():
        raise InputError("a joint is not a number: leave out the rows without a label")
    return given[..., :2]
