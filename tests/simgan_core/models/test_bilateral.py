from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.compute.settings import choose_compute_settings
from simgan_core.config import (
    PRESETS,
    BilateralConfig,
    DiscriminatorConfig,
    StoppingConfig,
)
from simgan_core.data.images import to_network
from simgan_core.errors import InputError
from simgan_core.inference import UInt8Refiner, refine_images, refine_pixels
from simgan_core.models.bilateral import BilateralRefiner, interpolation, pooling
from simgan_core.models.checkpoint import load_refiner
from simgan_core.quality.label_drift import pupil_shift_px
from simgan_core.simulator.eyes import render, sample_scenes
from simgan_core.training.losses import style_change_levels
from simgan_core.training.trainer import Trainer
from tests.refinement_inputs import make_bilateral_refiner, random_bilateral_refiner


def styles(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def random_images(count: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return 2 * torch.rand(count, channels, 35, 55, generator=generator) - 1


def eyes(count: int) -> tuple[np.ndarray, np.ndarray]:
    rendered = render(sample_scenes("synthetic", count, seed=0), "crop", 35, 55)
    return rendered.images, rendered.pupil_px.astype(np.float32)


@pytest.mark.parametrize("segments", [1, 2, 5])
def test_a_lighter_pixel_stays_lighter_at_every_place(segments: int) -> None:
    refiner = BilateralRefiner(BilateralConfig(grey_segments=segments), channels=1)
    grid = 3 * torch.randn(1, 1 + segments, 4, 6, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(-1, 1, 256)[:, None, None, None].expand(-1, 1, 35, 55)
    refined = refiner.through_curves(levels, grid.expand(256, -1, -1, -1))
    assert (refined.diff(dim=0) > 0).all()


def test_a_grid_of_zeros_leaves_images_as_they_are() -> None:
    refiner = BilateralRefiner(BilateralConfig(grey_segments=3), channels=3)
    images = random_images(2, channels=3)
    torch.testing.assert_close(refiner.through_curves(images, torch.zeros(2, 12, 4, 6)), images)


def test_pupils_stay_where_they_are_whatever_the_weights() -> None:
    images, pupil_px = eyes(100)
    shifts = []
    for seed in range(3):
        refiner = random_bilateral_refiner(strength=0.2, seed=seed)
        refined = refine_images(refiner, images, style=styles(100, seed).numpy())
        assert np.abs(refined.astype(int) - images).mean() > 10
        shifts.append(pupil_shift_px(images, refined, pupil_px).summary()["mean"])
    assert max(shifts) < 0.5


def test_without_the_image_one_style_gives_every_image_the_same_curves_blur_and_noise() -> None:
    config = BilateralConfig(sees_image=False)
    refiner, images = BilateralRefiner(config, channels=1), random_images(5)
    one_style = styles(1).expand(5, -1)
    for predicted in refiner.predict(images, one_style):
        torch.testing.assert_close(predicted, predicted[:1].expand_as(predicted), rtol=0, atol=0)
    curves, _ = refiner.predict(images, styles(5))
    assert curves.shape == (5, 3, 4, 6)
    assert curves.std(dim=0).mean() > 0


def test_an_image_is_refined_the_same_alone_and_in_a_batch() -> None:
    refiner, images, style = random_bilateral_refiner(0.3), random_images(5), styles(5)
    together = refiner(images, style)
    torch.testing.assert_close(refiner(images[2:3], style[2:3]), together[2:3])
    assert together.dtype == torch.float32
    assert together.min() >= -1
    assert together.max() <= 1


def test_bulk_refinement_says_that_a_style_is_missing() -> None:
    images, _ = eyes(2)
    with pytest.raises(InputError, match=r"style: expected float32 \[2, 8\], found none"):
        refine_images(random_bilateral_refiner(0.3), images)


def test_noise_is_white_and_of_the_style() -> None:
    refiner, images = random_bilateral_refiner(0.0), torch.zeros(400, 1, 35, 55)
    with torch.no_grad():
        refiner.degradation.bias.copy_(torch.tensor([-20.0, 20.0]))
    noise = refiner(images, styles(400)) - refiner.through_curves(images, torch.zeros(400, 3, 4, 6))
    noise = noise - noise.mean()
    levels = noise.std() * 255 / 2
    assert 19 < levels < 21  # max_noise_levels
    correlation = (noise[..., :-1] * noise[..., 1:]).mean() / noise.var()
    assert abs(correlation) < 0.05
    assert abs((noise[:-1] * noise[1:]).mean() / noise.var()) < 0.05


def test_layers_in_bf16_round_no_pixels() -> None:
    refiner, images, style = random_bilateral_refiner(0.0), random_images(8), styles(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = refiner(images, style)
    levels = (rounded - refiner(images, style)).abs().max() * 255 / 2
    assert levels < 0.5


def test_pooling_is_adaptive_average_pooling_and_interpolation_bilinear() -> None:
    maps = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    pooled = pooling(5, 4, maps) @ maps @ pooling(7, 6, maps).T
    torch.testing.assert_close(pooled, torch.nn.functional.adaptive_avg_pool2d(maps, (4, 6)))
    sliced = interpolation(35, 5, maps) @ maps @ interpolation(55, 7, maps).T
    expected = torch.nn.functional.interpolate(maps, (35, 55), mode="bilinear", align_corners=True)
    torch.testing.assert_close(sliced, expected)


def test_a_saved_refiner_refines_as_before(tmp_path: Path) -> None:
    loaded = load_refiner(make_bilateral_refiner(tmp_path / "refiner.pt"))
    images, style = random_images(3), styles(3)
    assert loaded.config.family == "bilateral"
    assert torch.equal(loaded.refiner(images, style), random_bilateral_refiner(0.3)(images, style))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_exported_refiner_takes_any_number_of_images_and_styles(
    channels: int, tmp_path: Path
) -> None:
    module = UInt8Refiner(random_bilateral_refiner(0.3, channels=channels))
    images = np.random.default_rng(0).integers(0, 256, (9, 35, 55, channels), np.uint8)
    pixels, count = torch.from_numpy(images), torch.export.Dim("images")
    program = torch.export.export(
        module, (pixels[:2], styles(2)), dynamic_shapes=({0: count}, {0: count})
    )
    torch.export.save(program, tmp_path / "refiner.pt2")
    exported = torch.export.load(tmp_path / "refiner.pt2").module()
    for number in (1, 9):
        style = styles(number)
        difference = exported(pixels[:number], style).int() - module(pixels[:number], style).int()
        assert difference.abs().max() <= 1


def test_training_learns_the_spread_of_the_real_images_light() -> None:
    images, _ = eyes(64)
    dark, light = images // 2, 127 + images // 2
    real = np.concatenate([dark[:32], light[32:]])
    config = PRESETS["bilateral"].model_copy(
        update={
            "steps": 150,
            "discriminator_pretraining_steps": 10,
            "precision": "fp32",
            "stopping": StoppingConfig(evaluate_every=0),
            "discriminator": DiscriminatorConfig(gradient_penalty=0.01),
        }
    )
    refiner = Trainer(config, torch.from_numpy(images), torch.from_numpy(real)).run().refiner
    compute = choose_compute_settings("cpu", "fp32")
    one, other = (
        to_network(refine_pixels(refiner, torch.from_numpy(images), compute, styles(64, seed)))
        for seed in (1, 2)
    )
    assert style_change_levels(one, other).mean() > config.bilateral.min_style_change_levels / 2
