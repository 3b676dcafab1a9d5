from simgan_core.config import DiscriminatorConfig, TrainingConfig
from simgan_core.training.update_ratio import UpdateRatio


def turns(schedule: UpdateRatio, num_steps: int) -> list[bool]:
    return [schedule.count_refiner_step() for _ in range(num_steps)]


def test_a_fixed_schedule_gives_the_discriminator_every_kth_turn() -> None:
    schedule = UpdateRatio(TrainingConfig(refiner_steps_per_round=3))
    assert turns(schedule, 7) == [False, False, True, False, False, True, False]
    assert not schedule.wants_loss


def test_an_adaptive_schedule_starts_small_and_rises_while_the_discriminator_wins() -> None:
    schedule = UpdateRatio(TrainingConfig(schedule="adaptive", refiner_steps_per_round=3))
    assert turns(schedule, 2) == [True, True]
    schedule.adapt(discriminator_loss=0.65)  # hardly better than chance, ln 2
    assert schedule.refiner_steps_per_round == 1
    schedule.adapt(discriminator_loss=0.2)
    assert turns(schedule, 4) == [False, True, False, True]
    schedule.adapt(discriminator_loss=0.2)
    assert schedule.refiner_steps_per_round == 3
    assert not schedule.wants_loss


def test_winning_is_measured_by_what_the_loss_can_be() -> None:
    hinge = TrainingConfig(
        schedule="adaptive",
        refiner_steps_per_round=3,
        discriminator=DiscriminatorConfig(loss="hinge"),
    )
    schedule = UpdateRatio(hinge)
    schedule.adapt(discriminator_loss=0.9)
    assert schedule.refiner_steps_per_round == 1
    schedule.adapt(discriminator_loss=0.6)
    assert schedule.refiner_steps_per_round == 2
