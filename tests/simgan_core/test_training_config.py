import subprocess
import sys

import pytest
from pydantic import ValidationError

from simgan_core.config import PRESETS, BilateralConfig, RefinerConfig, TrainingConfig


def test_configuration_needs_no_torch() -> None:
    code = "import sys, simgan_core.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_odd_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size should be even, found 33"):
        TrainingConfig(batch_size=33)


def test_a_history_smaller_than_half_a_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least half of batch_size"):
        TrainingConfig(batch_size=32, history_size=15)


def test_a_memory_without_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="adam_betas should be at least 0 and below 1"):
        TrainingConfig(adam_betas=(0.5, 1.0))


def test_twins_of_an_odd_number_of_maps_are_refused() -> None:
    with pytest.raises(
        ValidationError, match="num_features should be even where mirrored, found 5"
    ):
        RefinerConfig(num_features=5, mirrored=True)


def test_a_training_without_a_family_is_written_as_before_there_were_families() -> None:
    # A refiner's id is a digest of this.
    written = PRESETS["stable"].model_dump()
    assert "family" not in written
    assert "bilateral" not in written
    assert TrainingConfig(family="convolutional").model_dump() == written


def test_a_family_and_the_other_ones_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="bilateral should be left out where family is conv"):
        TrainingConfig(family="convolutional", bilateral=BilateralConfig(grid_height=2))


def test_settings_of_a_family_choose_it() -> None:
    assert TrainingConfig(bilateral=BilateralConfig(grid_height=2)).family == "bilateral"
    assert TrainingConfig().family == "convolutional"


def test_a_kernel_size_is_read_from_the_text_of_a_command_line() -> None:
    assert RefinerConfig.model_validate({"kernel_size": "7"}).kernel_size == 7
    with pytest.raises(ValidationError, match="3, 5 or 7"):
        RefinerConfig.model_validate({"kernel_size": "4"})


def test_depth_images_of_hands_are_refused_to_the_bilateral_family() -> None:
    with pytest.raises(ValidationError, match="in depth images are the distances that labels hold"):
        TrainingConfig.model_validate(PRESETS["hand"].model_dump() | {"family": "bilateral"})


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="stepz"):
        TrainingConfig.model_validate({"stepz": 10})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json(name: str) -> None:
    preset = PRESETS[name]
    assert TrainingConfig.model_validate_json(preset.model_dump_json()) == preset
