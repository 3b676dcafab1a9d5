import pytest

from simgan_core.config import TrainingConfig
from simgan_core.training.learning_rate_schedule import learning_rate_factor


def test_the_rate_warms_up_linearly_stays_and_cools_down_linearly() -> None:
    config = TrainingConfig(steps=8, warmup_steps=3, cooling=0.25)
    factors = [learning_rate_factor(step, config) for step in range(8)]
    assert factors == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1 / 2])


def test_pretraining_is_at_the_full_rate() -> None:
    config = TrainingConfig(steps=8, warmup_steps=3, cooling=1.0)
    assert learning_rate_factor(-1, config) == 1


def test_without_warm_up_and_cooling_the_rate_is_constant() -> None:
    config = TrainingConfig(steps=8, warmup_steps=0, cooling=0.0)
    assert {learning_rate_factor(step, config) for step in range(8)} == {1}
