import torch

from simgan_core.shuffling import ShuffledImages

NUMBERS = torch.arange(10)


def test_every_image_comes_once_before_any_comes_again() -> None:
    dealer = ShuffledImages(NUMBERS, seed=0, stream=0)
    dealt = torch.cat([dealer.deal(3) for _ in range(10)])
    for start in (0, 10, 20):
        assert sorted(dealt[start : start + 10].tolist()) == list(range(10))


def test_each_pass_has_an_order_of_its_own() -> None:
    dealer = ShuffledImages(NUMBERS, seed=0, stream=0)
    first, second = dealer.deal(10).tolist(), dealer.deal(10).tolist()
    assert first != second
    assert list(range(10)) not in (first, second)


def test_the_two_domains_are_dealt_in_different_orders() -> None:
    one, other = ShuffledImages(NUMBERS, seed=0, stream=0), ShuffledImages(NUMBERS, 0, stream=1)
    assert one.deal(10).tolist() != other.deal(10).tolist()


def test_the_position_is_all_that_continuing_takes() -> None:
    whole = ShuffledImages(NUMBERS, seed=7, stream=2)
    whole.deal(17)
    continued = ShuffledImages(NUMBERS, seed=7, stream=2)
    continued.position = whole.position
    assert continued.deal(9).tolist() == whole.deal(9).tolist()


def test_a_batch_may_be_larger_than_the_set() -> None:
    assert len(ShuffledImages(NUMBERS, seed=0, stream=0).deal(25)) == 25
