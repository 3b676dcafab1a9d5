from itertools import pairwise

import torch

from simgan_core.data.sampler import ImageSampler, ShardSampler

NUMBERS = torch.arange(10)


def test_every_image_comes_once_before_any_comes_again() -> None:
    sampler = ImageSampler(NUMBERS, seed=0, stream=0)
    dealt = torch.cat([sampler.next_batch(3) for _ in range(10)])
    for start in (0, 10, 20):
        assert sorted(dealt[start : start + 10].tolist()) == list(range(10))


def test_each_pass_has_an_order_of_its_own() -> None:
    sampler = ImageSampler(NUMBERS, seed=0, stream=0)
    first, second = sampler.next_batch(10).tolist(), sampler.next_batch(10).tolist()
    assert first != second
    assert list(range(10)) not in (first, second)


def test_the_two_domains_are_dealt_in_different_orders() -> None:
    one, other = ImageSampler(NUMBERS, seed=0, stream=0), ImageSampler(NUMBERS, 0, stream=1)
    assert one.next_batch(10).tolist() != other.next_batch(10).tolist()


def test_the_position_is_all_that_continuing_takes() -> None:
    whole = ImageSampler(NUMBERS, seed=7, stream=2)
    whole.next_batch(17)
    continued = ImageSampler(NUMBERS, seed=7, stream=2)
    continued.position = whole.position
    assert continued.next_batch(9).tolist() == whole.next_batch(9).tolist()


def test_a_batch_may_be_larger_than_the_set() -> None:
    assert len(ImageSampler(NUMBERS, seed=0, stream=0).next_batch(25)) == 25


def test_rows_come_with_their_images() -> None:
    images, rows = ImageSampler(100 + NUMBERS, seed=0, stream=0).next_batch_with_rows(25)
    assert torch.equal(images, 100 + rows)


class Shards:
    """The numbers from 100 on in shards of these sizes; remembers which were read."""

    digest = "numbers"

    def __init__(self, *sizes: int) -> None:
        self.shard_sizes = sizes
        self.read_so_far: list[int] = []

    def read(self, shard: int) -> torch.Tensor:
        self.read_so_far.append(shard)
        first = 100 + sum(self.shard_sizes[:shard])
        return torch.arange(first, first + self.shard_sizes[shard])


def sampler_of(shards: Shards) -> ShardSampler:
    return ShardSampler(shards, 0, 0, torch.device("cpu"), shards_at_once=2)


def test_of_shards_too_every_image_comes_once_before_any_comes_again() -> None:
    sampler = sampler_of(Shards(7, 3, 5, 2, 6))
    images, rows = zip(*(sampler.next_batch_with_rows(4) for _ in range(23)), strict=True)
    dealt = torch.cat(images)
    assert torch.equal(dealt, 100 + torch.cat(rows))
    passes = dealt.reshape(4, 23).tolist()
    for one_pass in passes:
        assert sorted(one_pass) == list(range(100, 123))
    assert all(one != other for one, other in pairwise(passes))


def test_shards_continue_at_a_position() -> None:
    undisturbed, resumed = sampler_of(Shards(7, 3, 5, 2)), sampler_of(Shards(7, 3, 5, 2))
    undisturbed.next_batch(20)
    resumed.position = 20
    assert torch.equal(undisturbed.next_batch(30), resumed.next_batch(30))


def test_images_of_several_shards_are_mixed_and_each_shard_is_read_once_a_pass() -> None:
    shards = Shards(50, 50, 50, 50)
    dealt = sampler_of(shards).next_batch(200) - 100
    assert len(dealt[:30].div(50, rounding_mode="floor").unique()) == 2
    assert sorted(shards.read_so_far[:4]) == [0, 1, 2, 3]
