import pytest
import torch

from simgan_core.data.images import to_network, to_pixels


@pytest.mark.parametrize(("dtype", "white"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_every_pixel_value_survives_the_way_there_and_back(dtype: torch.dtype, white: int) -> None:
    pixels = torch.arange(white + 1, dtype=torch.int32).to(dtype).reshape(1, 1, -1, 1)
    assert torch.equal(to_pixels(to_network(pixels), dtype), pixels)


def test_black_is_minus_one_and_white_is_one() -> None:
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1)
    assert to_network(black_and_white).flatten().tolist() == [-1.0, 1.0]


def test_a_pixel_means_the_same_whatever_the_rest_of_its_image_holds() -> None:
    dark = torch.full((1, 4, 4, 1), 10, dtype=torch.uint8)
    with_glare = dark.clone()
    with_glare[0, 0, 0, 0] = 255
    assert torch.equal(to_network(dark)[..., 1:, :], to_network(with_glare)[..., 1:, :])


def test_a_loss_of_contrast_is_still_there_in_the_pixels() -> None:
    faint = torch.linspace(-0.1, 0.1, 9).reshape(1, 1, 3, 3)
    pixels = to_pixels(faint)
    assert (pixels.min().item(), pixels.max().item()) == (115, 140)


def test_values_beyond_the_range_become_black_and_white() -> None:
    assert to_pixels(torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_images_are_channels_last_without_a_copy_of_their_order() -> None:
    images = torch.zeros((2, 5, 7, 3), dtype=torch.uint8)
    network = to_network(images)
    assert network.shape == (2, 3, 5, 7)
    assert network.is_contiguous(memory_format=torch.channels_last)
