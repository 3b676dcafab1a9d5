"""Infinite samplers without replacement; a position restores the order, a seed determines it."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Sampler(Protocol):
    """Infinite sampler without replacement: a new permutation of the images every epoch.

    The order depends only on (seed, stream, epoch), so `position` is all that a checkpoint needs.
    """

    position: int
    """Number of images sampled so far; set it to continue from there."""

    def next_batch(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may span two epochs."""

    def next_batch_with_rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the next images and, on the CPU, their rows in the set [count]."""


class ImageSampler:
    """Sampler of images in memory."""

    def __init__(self, images: Tensor, seed: int, stream: int) -> None:
        """Sample from `images` [N, …]; `stream` tells samplers of one seed apart."""
        self.position = 0
        self._images = images
        self._seed = seed
        self._stream = stream
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.long)
        self._order_on_device = self._order

    def next_batch(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may span two epochs."""
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
            # On the device once an epoch, so that a step uploads nothing.
            self._order_on_device = self._order.to(self._images.device)


class ImageShards(Protocol):
    """Images in shards that are read one at a time."""

    @property
    def digest(self) -> str:
        """Digest of the images."""

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Images in each shard, none of them 0."""

    def read(self, shard: int) -> Tensor:
        """Return the images of a shard, pixels [n, H, W, C] on the CPU."""


class ShardSampler:
    """Sampler of images that do not fit in memory, by a shuffle buffer of a few shards.

    Each epoch draws the order of the shards, takes them a few at a time into a buffer and shuffles
    the images of the buffer. The next buffer is read meanwhile, so two are in memory.
    """

    def __init__(
        self,
        shards: ImageShards,
        seed: int,
        stream: int,
        device: torch.device,
        shards_at_once: int = 4,
    ) -> None:
        """Sample from `shards` to `device`; `stream` tells samplers of one seed apart."""
        self.position = 0
        self._shards = shards
        self._first_rows = [0, *accumulate(shards.shard_sizes)]
        self._key = (seed, stream)
        self._device = device
        self._at_once = shards_at_once
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards")
        self._reading: dict[tuple[int, int], Future[tuple[Tensor, Tensor]]] = {}

    def next_batch(self, count: int) -> Tensor:
        """Return the next `count` images [count, …]; they may span two epochs."""
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
        """Return the next image's buffer, as (epoch, number), and its offset in the buffer."""
        number, offset = divmod(self.position, self._first_rows[-1])
        sizes = [sum(self._size(shard) for shard in part) for part in self._buffers(number)]
        for part, (first, last) in enumerate(pairwise([0, *accumulate(sizes)])):
            if offset < last:
                return (number, part), offset - first
        raise AssertionError("an offset within an epoch lies in one of its buffers")

    def _buffers(self, number: int) -> list[list[int]]:
        order = _order(len(self._shards.shard_sizes), *self._key, number).tolist()
        return [order[i : i + self._at_once] for i in range(0, len(order), self._at_once)]

    def _fetch(self, buffer: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return a shuffled buffer with the images' rows; start to read the next one."""
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
    """Return a random generator on the CPU, seeded by these numbers."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed[0]))
