import subprocess
import sys

import pytest
from pydantic import ValidationError

from simgan_core.config import PRESETS, RefinerConfig, TrainingConfig


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


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="stepz"):
        TrainingConfig.model_validate({"stepz": 10})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json(name: str) -> None:
    preset = PRESETS[name]
    assert TrainingConfig.model_validate_json(preset.model_dump_json()) == preset
