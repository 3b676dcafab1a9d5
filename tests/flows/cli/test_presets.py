"""Options lie over a preset, whatever depth they are at."""

import pytest

from flows.cli.preset import with_preset
from simgan_core.config import (
    DEFAULT_PRESET,
    PRESETS,
    BilateralConfig,
    RefinerConfig,
    TrainingConfig,
)
from simgan_core.errors import InputError


def test_only_what_was_given_differs_from_the_preset() -> None:
    given = TrainingConfig(steps=7, refiner=RefinerConfig(num_blocks=2))
    found = with_preset("paper", given)
    paper = PRESETS["paper"]
    assert found == paper.model_copy(
        update={"steps": 7, "refiner": paper.refiner.model_copy(update={"num_blocks": 2})}
    )


def test_a_family_has_its_own_preset_where_none_was_given() -> None:
    given = TrainingConfig(bilateral=BilateralConfig(grid_height=2))
    found = with_preset(None, given)
    assert found == PRESETS["bilateral"].model_copy(update={"bilateral": given.bilateral})
    assert with_preset("stable", given).regularization == PRESETS["stable"].regularization
    convolutional = TrainingConfig(family="convolutional")
    assert with_preset(None, convolutional) == PRESETS["stable"]
    network = RefinerConfig(num_blocks=2)
    assert with_preset(None, TrainingConfig(refiner=network)) == PRESETS["stable"].model_copy(
        update={"refiner": network}
    )


@pytest.mark.parametrize("preset", ["bilateral", "demo"])
def test_a_family_that_was_given_is_trained_whatever_the_preset(preset: str) -> None:
    found = with_preset(preset, TrainingConfig(family="convolutional"))
    base = PRESETS[preset]
    assert found == TrainingConfig.model_validate(base.model_dump(exclude={"family", "bilateral"}))
    bilateral = with_preset("paper", TrainingConfig(family="bilateral"))
    assert (bilateral.family, bilateral.refiner) == ("bilateral", RefinerConfig())


@pytest.mark.parametrize("preset", ["bilateral", "demo"])
def test_settings_that_the_family_would_not_heed_are_refused(preset: str) -> None:
    with pytest.raises(InputError, match="add --family convolutional"):
        with_preset(preset, TrainingConfig(refiner=RefinerConfig(num_blocks=2)))
    network = RefinerConfig(num_blocks=2)
    both = TrainingConfig(family="convolutional", refiner=network)
    assert with_preset(preset, both).refiner == network


def test_without_family_and_preset_it_is_the_default_one() -> None:
    assert with_preset(None, TrainingConfig()) == PRESETS[DEFAULT_PRESET]
    assert with_preset(None, TrainingConfig(steps=7)).family == "bilateral"


def test_a_default_that_was_given_counts() -> None:
    default = TrainingConfig().batch_size
    assert PRESETS["paper"].batch_size != default
    assert with_preset("paper", TrainingConfig(batch_size=default)).batch_size == default
    assert with_preset("paper", TrainingConfig()) == PRESETS["paper"]
