"""Endless shuffled batches, whose order is a function of the seed and of a position."""

import numpy as np
import torch
from torch import Tensor


class ShuffledImages:
    """Deals a set of images out in random order, every image once before any comes again.

    The order of each pass depends on the seed, the name and the number of the pass alone, so the
    position is all that a checkpoint needs.
    """

    def __init__(self, images: Tensor, seed: int, stream: int) -> None:
        """Deal from `images` [N, …]; `stream` tells sets under one seed apart."""
        self.position = 0
        """How many images were dealt so far; set it to continue from there."""
        self._images = images
        self._seed = seed
        self._stream = stream
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.long)

    def deal(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may end one pass and begin the next."""
        dealt: list[Tensor] = []
        while count > 0:
            number, offset = divmod(self.position, len(self._images))
            indices = self._order_of(number)[offset : offset + count]
            dealt.append(self._images[indices])
            self.position += len(indices)
            count -= len(indices)
        return torch.cat(dealt)

    def _order_of(self, number: int) -> Tensor:
        if number != self._pass:
            generator = seeded_generator(self._seed, self._stream, number)
            order = torch.randperm(len(self._images), generator=generator)
            # On the device once a pass, so that a step uploads nothing.
            self._pass, self._order = number, order.to(self._images.device)
        return self._order


def seeded_generator(*key: int) -> torch.Generator:
    """Return a generator on the CPU whose sequence is a function of these numbers."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed[0]))
