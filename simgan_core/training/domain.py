"""Images of one domain for training: checked, and sampled from memory or from shards."""

import torch
from torch import Tensor

from simgan_core.data.images import FULL_SCALE
from simgan_core.data.sampler import ImageSampler, ImageShards, Sampler, ShardSampler
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import tensors_digest

FEWEST_PIXELS = 2
"""Of a side: an image derivative takes two."""

NUM_LOOKED_AT = 256


class Domain:
    """Synthetic or real images: a tensor, which is kept on the device, or shards, which are not."""

    def __init__(
        self, name: str, images: Tensor | ImageShards, device: torch.device, seed: int
    ) -> None:
        """Check pixels [N, H, W, C], uint8 or uint16; `seed` makes every choice among them.

        Raises `InputError`, with `name` in its message, for anything else.
        """
        self.name = name
        self._seed = seed
        self._device = device
        example = images if isinstance(images, Tensor) else images.read(0)
        _require_pixels(name, example)
        self.dtype = example.dtype
        self.image_shape = (example.shape[1], example.shape[2], example.shape[3])
        """Height, width, channels."""
        self._images = images.to(device) if isinstance(images, Tensor) else images

    def __len__(self) -> int:
        """Return the number of images."""
        if isinstance(self._images, Tensor):
            return len(self._images)
        return sum(self._images.shard_sizes)

    def sampler(self, stream: int) -> Sampler:
        """Return a sampler of all images; `stream` tells samplers of one seed apart."""
        if isinstance(self._images, Tensor):
            return ImageSampler(self._images, self._seed, stream)
        return ShardSampler(self._images, self._seed, stream, self._device)

    def choose(self, count: int, stream: int) -> tuple[Tensor, Tensor]:
        """Return `count` different random images, or all there are, and their rows."""
        count = min(count, len(self))
        if isinstance(self._images, Tensor):
            return self.sampler(stream).next_batch_with_rows(count)
        # One shard at a time: a larger buffer would only have to be read.
        sampler = ShardSampler(self._images, self._seed, stream, self._device, shards_at_once=1)
        return sampler.next_batch_with_rows(count)

    def require_content(self, stream: int) -> None:
        """Raise `InputError` where the images are too small, or hold one value alone.

        Nothing can be learnt from either, and a loss that is no number would be blamed on the
        settings. `stream` chooses the images to check.
        """
        height, width, _ = self.image_shape
        if min(height, width) < FEWEST_PIXELS:
            raise InputError(
                f"{self.name} images: expected at least {FEWEST_PIXELS} pixels a side, found "
                f"{height}×{width}; ingest them in a larger --size"
            )
        chosen, _ = self.choose(NUM_LOOKED_AT, stream)
        images = chosen.to(torch.int32)  # of 16 bits torch has no least value
        if images.min() == images.max():
            raise InputError(
                f"{self.name} images: expected pixels that differ, found the value "
                f"{int(images.max())} alone in all of {len(images)} images; look at the files they "
                "come from (simgan inspect), and ingest those that show something"
            )

    def digest(self) -> str:
        """Return the digest of the images."""
        if isinstance(self._images, Tensor):
            return tensors_digest({"images": self._images})
        return self._images.digest


def require_same_kind(synthetic: Domain, real: Domain) -> None:
    """Raise `InputError` where the two domains differ in size, channels or depth."""
    for what, ours, theirs in (
        ("(height, width, channels)", synthetic.image_shape, real.image_shape),
        ("(type)", synthetic.dtype, real.dtype),
    ):
        if ours != theirs:
            raise InputError(
                f"synthetic images are {ours} {what} and real ones {theirs}; ingest both with one "
                "size, number of channels and depth"
            )


def _require_pixels(name: str, images: Tensor) -> None:
    if images.dtype not in FULL_SCALE or images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"{name} images: expected uint8 or uint16 [N, H, W, C] with at least one image, "
            f"found {images.dtype} {list(images.shape)}"
        )
