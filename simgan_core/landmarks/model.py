"""Landmark model: weights in a file, and predictions for images of any size.

The product brings one, trained on the built-in simulator's eyes and on renders of UnityEyes' assets
(`simgan landmarks train` has the commands).
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.compute.parallel import single_threaded_map
from simgan_core.data.images import to_network
from simgan_core.landmarks.network import (
    LANDMARKS,
    LandmarkNetwork,
    fit,
    means_and_spreads,
    to_canvas,
)
from simgan_core.models.checkpoint import load_weights, save_weights, tensors_digest

DEFAULT_MODEL = Path(__file__).parent / "eye_landmarks.pt"
_KIND = "simgan landmarks 1"
MAX_SPREAD = 0.12
"""Spread of a corner, as a share of the image's width, above which it counts as not found."""
_LEAST_CONTRAST = 0.01
"""Largest value of a canvas below which its image shows nothing; what is seen has one above 1."""
_PART_SIZE = 16
"""Images that a thread takes at once."""


@dataclass(frozen=True)
class Landmarks:
    """`LANDMARKS` of N images."""

    points: NDArray[np.float32]
    """[N, L, 2], x and y in pixels of the images, (0, 0) the top-left corner."""
    spread: NDArray[np.float32]
    """Standard deviation of each [N, L], as a share of the image's width: large where the network
    sees several places or none."""

    @property
    def confident(self) -> NDArray[np.bool_]:
        """True where both corners were found and lie side by side, bool [N]."""
        in_order = self.points[:, 0, 0] < self.points[:, 1, 0]
        return np.asarray((self.spread[:, :2] <= MAX_SPREAD).all(axis=1) & in_order)


class LandmarkModel:
    """A trained landmark network."""

    def __init__(self, network: LandmarkNetwork) -> None:
        self.network = network.eval()

    @cached_property
    def digest(self) -> str:
        """Digest of the weights."""
        return tensors_digest(self.network.state_dict())

    def save(self, path: Path) -> None:
        """Write the weights."""
        save_weights(path, _KIND, self.network)

    @classmethod
    def load(cls, path: Path = DEFAULT_MODEL) -> "LandmarkModel":
        """Read a model; raises InputError where the file is another or damaged."""
        network = LandmarkNetwork()
        load_weights(path, _KIND, network)
        return cls(network)

    def predict(self, images: NDArray[Any]) -> Landmarks:
        """Find the landmarks in images [N, H, W, C], uint8 or uint16, computed in float32.

        An image's landmarks are the same bits whatever images it is predicted with and however many
        threads there are: each is computed alone, by one thread, and the threads share the images.
        """
        place = fit(*images.shape[1:3])
        points = np.empty((len(images), len(LANDMARKS), 2), np.float32)
        spread = np.empty(points.shape[:2], np.float32)

        def predict_rows(rows: slice) -> None:
            # A copy: torch takes no negative strides, as mirrored images have, nor what is frozen.
            means, spreads = self._means_and_spreads(torch.from_numpy(images[rows].copy()))
            points[rows] = (means - torch.tensor(place.origin)) / torch.tensor(place.scale)
            spread[rows] = spreads / place.width

        starts = range(0, len(images), _PART_SIZE)
        parts = [slice(start, start + _PART_SIZE) for start in starts]
        deque(single_threaded_map(predict_rows, parts), maxlen=0)
        return Landmarks(points, spread)

    @torch.inference_mode()
    def _means_and_spreads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return means [N, L, 2] and spreads [N, L], in pixels of the canvas, of [N, H, W, C]."""
        canvases = to_canvas(to_network(images))
        # One by one: convolutions of a batch have other last bits than those of its images.
        maps = torch.cat([self.network(canvas) for canvas in torch.split(canvases, 1)])
        means, spreads = means_and_spreads(maps)
        # For an image of one grey level the network would return the mean place of eyes.
        spreads[canvases.abs().amax(dim=(1, 2, 3)) < _LEAST_CONTRAST] = torch.inf
        return means, spreads
