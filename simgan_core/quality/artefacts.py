"""Artefacts of refinement: the share of local patches that are unlike any real patch.

Adversarial training can leave patterns that no real image has (SimGAN, §2.3: what the history of
refined images is against). A patch of 7×7 pixels counts as an artefact where it is farther from its
nearest real patch than 99% of the patches of other real images are. So images of the real kind have
a share of about 0.01, and 1 is the most. Patches are compared without their mean, which is tone,
and whitened: a faint pattern in a direction in which real patches hardly vary counts as much as a
strong one elsewhere. What is missing is no artefact: smooth or even blank images have a share of 0,
and a KID that tells them.

Shapes: N images [N, H, W, C], P patches, D = 7 · 7 · C numbers of a patch.
"""

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from simgan_core.quality.nearest import squared_distances

PATCH_PX = 7
HELD_OUT_SHARE = 0.01
"""Share of the patches of held-out real images beyond the limit, by its definition."""

_NUM_REFERENCES, _NUM_SAMPLES = 20_000, 20_000
"""Real patches to compare with, and patches of images that a share is estimated from."""
_FLOOR = 0.02
"""Part of the mean variance that is added to every direction's: without it rounding would count."""
_PAIRS_AT_ONCE = 20_000_000

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class ArtefactDetector:
    """Distances of patches from those of real images, and the limit that tells artefacts.

    A random half of the real images gives the patches to compare with, the other half the limit.
    """

    def __init__(self, real: Pixels, seed: int = 0) -> None:
        """Draw patches of real images [M, H, W, C] by `seed`.

        Raises InputError where there are fewer than two images, or they are smaller than a patch.
        """
        if len(real) < 2 or min(real.shape[1:3]) < PATCH_PX:
            raise InputError(
                f"artefacts need at least 2 real images of at least {PATCH_PX}×{PATCH_PX} pixels, "
                f"found {real.shape}"
            )
        self._seed = seed
        random = np.random.default_rng(seed)
        order = random.permutation(len(real))
        known, held_out = real[order[::2]], real[order[1::2]]
        patches = _random_patches(known, _NUM_REFERENCES, random)
        variances, directions = np.linalg.eigh(np.cov(patches, rowvar=False))
        variances = np.maximum(variances, 0)
        scale = 1 / np.sqrt(variances + _FLOOR * variances.mean() + 1e-12)
        self._whitening = (directions * scale).astype(np.float32)
        self._references = patches @ self._whitening
        distances = self._distances(_random_patches(held_out, _NUM_SAMPLES, random))
        self.limit = float(np.quantile(distances, 1 - HELD_OUT_SHARE))
        """Distance that 99% of the patches of held-out real images do not exceed."""

    def share(self, images: Pixels) -> float:
        """Return the share of artefacts among random patches of images [N, H, W, C]."""
        random = np.random.default_rng(self._seed)
        distances = self._distances(_random_patches(images, _NUM_SAMPLES, random))
        return float((distances > self.limit).mean())

    def distances(self, images: Pixels) -> NDArray[np.float32]:
        """Return every patch's distance from the nearest real one, float32 [N, H − 6, W − 6]."""
        views = _patch_views(images)
        flat = views.reshape(-1, views.shape[3] * PATCH_PX**2)
        return self._distances(_without_mean(flat, images.dtype)).reshape(views.shape[:3])

    def _distances(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distances [P] of patches [P, D] from the nearest reference."""
        whitened = patches @ self._whitening
        found = np.empty(len(patches), np.float32)
        step = max(1, _PAIRS_AT_ONCE // len(self._references))
        for begin in range(0, len(patches), step):
            rows = slice(begin, begin + step)
            found[rows] = squared_distances(whitened[rows], self._references).min(axis=1)
        return np.sqrt(found)


def _patch_views(images: Pixels) -> NDArray[np.unsignedinteger]:
    """Return all patches of images, views [N, H − 6, W − 6, C, 7, 7]."""
    return np.lib.stride_tricks.sliding_window_view(images, (PATCH_PX, PATCH_PX), axis=(1, 2))


def _random_patches(images: Pixels, count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return `count` patches [P, D] at random places of random images."""
    views = _patch_views(images)
    image, row, column = (random.integers(0, size, count) for size in views.shape[:3])
    return _without_mean(views[image, row, column].reshape(count, -1), images.dtype)


def _without_mean(
    patches: NDArray[np.unsignedinteger], dtype: np.dtype[np.unsignedinteger]
) -> NDArray[np.float32]:
    """Return patches [P, D] as shares of the full scale, less the mean of each."""
    shares = patches.astype(np.float32) / np.iinfo(dtype).max
    return np.asarray(shares - shares.mean(axis=1, keepdims=True))
