import torch

from simgan_core.training.history import History


def numbered(first: int, count: int) -> torch.Tensor:
    """Images [count, 2, 3, 1], each filled with its own number."""
    numbers = torch.arange(first, first + count, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return numbers.expand(count, 2, 3, 1).clone()


def numbers_of(images: torch.Tensor | None) -> list[int]:
    assert images is not None
    assert (images == images[:, :1, :1]).all(), "an image was written in parts"
    return images[:, 0, 0, 0].tolist()


def seeded(capacity: int, seed: int = 0) -> History:
    return History(capacity, torch.Generator().manual_seed(seed))


def test_it_fills_up_to_its_capacity() -> None:
    history = seeded(capacity=10)
    sizes = []
    for first in range(0, 20, 4):
        history.add(numbered(first, 4))
        sizes.append(len(history))
    assert sizes == [4, 8, 10, 10, 10]


def test_a_full_history_replaces_whole_random_images_one_for_each_new_one() -> None:
    history = seeded(capacity=100)
    history.add(numbered(0, 100))
    history.add(numbered(200, 20))
    held = numbers_of(history.images())
    assert {number for number in held if number >= 200} == set(range(200, 220))
    replaced = [position for position, number in enumerate(held) if number >= 200]
    assert len(replaced) == 20
    assert replaced != list(range(replaced[0], replaced[0] + 20))


def test_draws_are_different_images_in_random_order() -> None:
    history = seeded(capacity=100)
    history.add(numbered(0, 100))
    first, second = numbers_of(history.draw(50)), numbers_of(history.draw(50))
    assert len(set(first)) == 50
    assert first != sorted(first)
    assert first != second


def test_old_images_are_forgotten_in_time() -> None:
    history = seeded(capacity=16)
    history.add(numbered(0, 16))
    for _ in range(20):
        history.add(numbered(100, 8))
    assert all(number >= 100 for number in numbers_of(history.images()))


def test_what_is_drawn_is_a_copy() -> None:
    history = seeded(capacity=4)
    history.add(numbered(1, 4))
    history.draw(4).zero_()
    assert 0 not in numbers_of(history.images())


def test_without_capacity_nothing_is_kept() -> None:
    history = seeded(capacity=0)
    history.add(numbered(0, 4))
    assert len(history) == 0


def test_a_restored_history_goes_on_as_the_first_would_have() -> None:
    history = seeded(capacity=8, seed=5)
    history.add(numbered(0, 6))
    restored = seeded(capacity=8, seed=5)
    restored.restore(history.images())
    for one in (history, restored):
        one.add(numbered(50, 4))
    assert torch.equal(history.draw(8), restored.draw(8))
