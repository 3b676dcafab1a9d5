import numpy as np
import pytest
import torch

from simgan_core.simulator.eyes import render, sample_scenes
from simgan_core.training.validation import Validator


@pytest.fixture(scope="module")
def validator() -> Validator:
    synthetic = render(sample_scenes("synthetic", 60, seed=7), "crop", 35, 55)
    real = render(sample_scenes("real", 60, seed=8), "crop", 35, 55)
    return Validator(
        torch.from_numpy(synthetic.images),
        torch.from_numpy(real.images),
        torch.from_numpy(synthetic.pupil_px),
        seed=0,
    )


def test_synthetic_images_themselves_are_told_apart_and_have_moved_nothing(validator) -> None:
    metrics = validator.validate(validator.synthetic)
    assert metrics["realism/kid"] > 1
    assert metrics["realism/classifier_accuracy"] > 0.9
    assert metrics["change/mean_levels"] == 0
    assert metrics["change/spread"] == pytest.approx(1)
    assert metrics["labels/pupil_shift_px.mean"] == 0
    assert metrics["labels/pupils_kept"] == 1


def test_what_was_done_to_images_is_measured(validator) -> None:
    images = validator.synthetic.clone()
    images[:15] = 128
    metrics = validator.validate(images)
    assert metrics["labels/pupils_kept"] == pytest.approx(0.75, abs=0.03)
    assert metrics["change/mean_levels"] == pytest.approx(
        np.abs(images.numpy().astype(float) - validator.synthetic.numpy()).mean(), rel=1e-4
    )


@pytest.mark.gpu("images, kernel distance and pupils are on the GPU in a training there")
def test_a_validation_on_a_gpu_measures_what_one_on_a_cpu_measures(validator) -> None:
    on_gpu = Validator(
        validator.synthetic.cuda(),
        validator._real.cuda(),
        torch.from_numpy(validator._pupil_px).cuda(),
        seed=0,
    )
    refined = validator.synthetic // 2 + 20
    assert on_gpu.validate(refined.cuda()) == pytest.approx(
        validator.validate(refined), rel=0.01, abs=0.01
    )


def test_one_image_for_all_has_no_spread(validator) -> None:
    same = validator.synthetic[:1].expand_as(validator.synthetic).contiguous()
    assert validator.validate(same)["change/spread"] == 0


def test_without_known_pupils_nothing_is_said_of_labels() -> None:
    images = torch.randint(0, 256, (8, 16, 20, 1), dtype=torch.uint8)
    metrics = Validator(images, images.flip(0), None, seed=0).validate(images)
    assert not [name for name in metrics if name.startswith("labels/")]
