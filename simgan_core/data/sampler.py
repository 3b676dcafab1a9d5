"""Infinite samplers without replacement; a position restores the order, a seed determines it."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Sampler(Protocol):
    """Deals a set of images out in random order, every image once before any comes again.

    The order of each pass depends on the seed, the stream and the number of the pass alone, so the
    position is all that a checkpoint needs.
    """

    position: int
    """How many images were dealt so far; set it to continue from there."""

    def next_batch(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may end one pass and begin the next."""

    def next_batch_with_rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the next images and, on the CPU, their rows in the set [count]."""


class ImageSampler:
    """A deck of images that are in memory."""

    def __init__(self, images: Tensor, seed: int, stream: int) -> None:
        """Deal from `images` [N, …]; `stream` tells sets under one seed apart."""
        self.position = 0
        self._images = images
        self._seed = seed
        self._stream = stream
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.long)
        self._order_on_device = self._order

    def next_batch(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may end one pass and begin the next."""
        return self.next_batch_with_rows(count)[0]

    def next_batch_with_rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the next images and, on the CPU, their rows in the set [count]."""
        images, rows = [], []
        while count > 0:
            number, offset = divmod(self.position, len(self._images))
            self._turn_to(number)
            part = slice(offset, offset + count)
            rows.append(self._order[part])
            images.append(self._images[self._order_on_device[part]])
            self.position += len(rows[-1])
            count -= len(rows[-1])
        return torch.cat(images), torch.cat(rows)

    def _turn_to(self, number: int) -> None:
        if number != self._pass:
            self._pass = number
            self._order = _order(len(self._images), self._seed, self._stream, number)
            # On the device once a pass, so that a step uploads nothing.
            self._order_on_device = self._order.to(self._images.device)


class ImageShards(Protocol):
    """Images in parts that are read one at a time."""

    @property
    def digest(self) -> str:
        """What tells this set of images from another."""

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Images in each shard, none of them 0."""

    def read(self, shard: int) -> Tensor:
        """Return the images of a shard, pixels [n, H, W, C] on the CPU."""


class ShardSampler:
    """A deck of images that do not fit in memory.

    Each pass draws the order of the shards, takes them a few at a time and shuffles the images of
    those few among themselves. While one handful is dealt the next is read, so two are in memory.
    """

    def __init__(
        self,
        shards: ImageShards,
        seed: int,
        stream: int,
        device: torch.device,
        shards_at_once: int = 4,
    ) -> None:
        """Deal from `shards` to `device`; `stream` tells sets under one seed apart."""
        self.position = 0
        self._shards = shards
        self._first_rows = [0, *accumulate(shards.shard_sizes)]
        self._key = (seed, stream)
        self._device = device
        self._at_once = shards_at_once
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards")
        self._reading: dict[tuple[int, int], Future[tuple[Tensor, Tensor]]] = {}

    def next_batch(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may end one pass and begin the next."""
        return self.next_batch_with_rows(count)[0]

    def next_batch_with_rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the next images and, on the CPU, their rows in the set [count]."""
        images, rows = [], []
        while count > 0:
            buffer, offset = self._place()
            all_images, all_rows = self._fetch(buffer)
            part = slice(offset, offset + count)
            images.append(all_images[part].to(self._device, non_blocking=True))
            rows.append(all_rows[part])
            self.position += len(rows[-1])
            count -= len(rows[-1])
        return torch.cat(images), torch.cat(rows)

    def _place(self) -> tuple[tuple[int, int], int]:
        """Return which handful the next image is in, as pass and number, and where in it."""
        number, offset = divmod(self.position, self._first_rows[-1])
        sizes = [sum(self._size(shard) for shard in part) for part in self._buffers(number)]
        for part, (first, last) in enumerate(pairwise([0, *accumulate(sizes)])):
            if offset < last:
                return (number, part), offset - first
        raise AssertionError("an offset within a pass lies in one of its handfuls")

    def _buffers(self, number: int) -> list[list[int]]:
        order = _order(len(self._shards.shard_sizes), *self._key, number).tolist()
        return [order[i : i + self._at_once] for i in range(0, len(order), self._at_once)]

    def _fetch(self, buffer: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return a handful, shuffled, with the images' rows; begin to read the one after it."""
        number, part = buffer
        follower = (number, part + 1)
        if part + 1 == len(self._buffers(number)):
            follower = (number + 1, 0)
        for wanted in (buffer, follower):
            if wanted not in self._reading:
                self._reading[wanted] = self._reader.submit(self._read, wanted)
        self._reading = {key: self._reading[key] for key in (buffer, follower)}
        return self._reading[buffer].result()

    def _read(self, buffer: tuple[int, int]) -> tuple[Tensor, Tensor]:
        number, part = buffer
        shards = self._buffers(number)[part]
        images = torch.cat([self._shards.read(shard) for shard in shards])
        rows = torch.cat([torch.arange(*self._first_rows[s : s + 2]) for s in shards])
        order = _order(len(rows), *self._key, number, part)
        return images[order], rows[order]

    def _size(self, shard: int) -> int:
        return self._shards.shard_sizes[shard]


def _order(count: int, *key: int) -> Tensor:
    return torch.randperm(count, generator=seeded_generator(*key))


def seeded_generator(*key: int) -> torch.Generator:
    """Return a generator on the CPU whose sequence is a function of these numbers."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed[0]))
