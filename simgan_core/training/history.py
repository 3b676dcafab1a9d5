"""History (replay) buffer of refined images for the discriminator (SimGAN, §2.3)."""

import torch
from torch import Tensor


class History:
    """Buffer of earlier refined images, so that the discriminator does not forget them.

    Images are kept as pixels [N, H, W, C], which is also how the discriminator step gets current
    refinements and real images: all three on the same grid of grey levels, so that rounding tells
    nothing about where an image comes from, at a quarter of float32's memory.
    """

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        """Make an empty buffer of `capacity` images; `generator` is on the CPU."""
        self._capacity = capacity
        self._generator = generator
        self._images: Tensor | None = None
        self._size = 0

    def __len__(self) -> int:
        """Return the number of images in the buffer."""
        return self._size

    def add(self, refined: Tensor) -> None:
        """Append images [n, H, W, C]; once the buffer is full, they replace random ones."""
        if self._capacity == 0:
            return
        if self._images is None:
            self._images = refined.new_zeros((self._capacity, *refined.shape[1:]))
        num_appended = min(len(refined), self._capacity - self._size)
        self._images[self._size : self._size + num_appended] = refined[:num_appended]
        self._size += num_appended
        replacing = refined[num_appended:][: self._capacity]
        if len(replacing) > 0:
            # As bytes, since PyTorch cannot write uint16 by index.
            chosen = self._choose(len(replacing))
            self._images.view(torch.uint8)[chosen] = replacing.view(torch.uint8)

    def draw(self, count: int) -> Tensor:
        """Return `count` ≤ `len(self)` different images [count, H, W, C], chosen at random."""
        assert self._images is not None
        assert count <= self._size
        return self._images[self._choose(count)]

    def images(self) -> Tensor | None:
        """Return the images [len(self), H, W, C] for a checkpoint; None before the first `add`."""
        return None if self._images is None else self._images[: self._size]

    def restore(self, images: Tensor | None) -> None:
        """Restore what `images` returned; the generator is restored by its owner."""
        self._images, self._size = None, 0
        if images is not None:
            self.add(images)

    def _choose(self, count: int) -> Tensor:
        assert self._images is not None
        chosen = torch.randperm(self._size, generator=self._generator)[:count]
        return chosen.to(self._images.device, non_blocking=True)
