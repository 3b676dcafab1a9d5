import pytest
import torch

from simgan_core.data.augmentation import shift_and_scale
from simgan_core.data.images import to_network, to_pixels
from simgan_core.data.preprocess import equalize
from simgan_core.quality.alignment import Alignment, align, mean_image
from simgan_core.simulator.appearance import REAL
from simgan_core.simulator.eyes import render, sample_scenes


@pytest.fixture(scope="module")
def eyes() -> torch.Tensor:
    images = render(sample_scenes("synthetic", 400, seed=7), "crop", 35, 55).images
    return torch.from_numpy(images)


def moved(images: torch.Tensor, x_px: float, y_px: float, scale: float) -> torch.Tensor:
    shift_px = torch.tensor([[x_px, y_px]]).expand(len(images), 2)
    scales = torch.full((len(images),), scale)
    return to_pixels(shift_and_scale(to_network(images), shift_px, scales))


@pytest.mark.parametrize(
    ("x", "y", "scale"), [(0, 0, 1), (2.5, -1.5, 1), (-1, 2, 1.1), (1, -1, 1.3)]
)
def test_another_crop_of_other_eyes_in_other_light_is_measured(eyes, x, y, scale) -> None:
    other = (moved(eyes[200:], x, y, scale).float() * 0.6 + 10).to(torch.uint8)
    found = align(mean_image(eyes[:200]), mean_image(other))
    assert (found.shift_x_px, found.shift_y_px) == pytest.approx((x, y), abs=0.3)
    assert found.scale == pytest.approx(scale, abs=0.02)
    assert found.correlation > 0.95
    assert bool(found.warning()) == (scale != 1 or x != 0)


def test_the_warning_names_what_does_not_match() -> None:
    warning = Alignment(0.1, -1.5, 1.12, 0.9, image_width=55).warning()
    assert "-1.5 px down, 1.12 times as large" in warning
    assert "to the right" not in warning


def test_crops_that_match_are_no_worse_for_another_look(eyes) -> None:
    synthetic = torch.from_numpy(equalize(eyes.numpy()))
    grey_whites = {"sclera_albedo": (0.2, 0.3), "skin_albedo": (0.5, 0.6)}
    look = REAL.model_copy(update={"person": REAL.person.model_copy(update=grey_whites)})
    scenes = sample_scenes("real", 800, seed=2, appearance=look)
    real = torch.from_numpy(render(scenes[~scenes.is_right], "crop", 35, 55).images)
    found = align(mean_image(synthetic), mean_image(real))
    assert 0.5 < found.correlation < 0.8
    assert not found.warning()
    elsewhere = align(mean_image(synthetic), mean_image(moved(real, 2.5, 0, 1)))
    assert "px to the right" in elsewhere.warning()


def test_a_pixel_of_a_wider_image_is_less() -> None:
    assert not Alignment(1.2, 0.0, 1.0, 0.9, image_width=110).warning()


def test_images_of_other_things_are_said_to_be_no_help_and_no_figures_are_made_up() -> None:
    noise = torch.rand(2, 35, 55, generator=torch.Generator().manual_seed(0))
    found = align(noise[0], noise[1])
    assert max(abs(found.shift_x_px), abs(found.shift_y_px)) <= 6
    assert abs(found.scale - 1) <= 0.4 + 1e-6
    assert "too unlike to tell" in found.warning()
    assert "px" not in found.warning()
