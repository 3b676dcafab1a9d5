import pytest

from simgan_core.training.collapse import CollapsedError, CollapseWatch


def test_images_that_are_all_alike_are_a_collapse() -> None:
    with pytest.raises(CollapsedError, match="step 7 all refined images are alike"):
        CollapseWatch().require_alive(7, {"change/spread": 0.02, "change/mean_levels": 60.0})


def test_refined_images_that_stay_the_synthetic_ones_are_a_collapse() -> None:
    watch, unchanged = CollapseWatch(), {"change/spread": 1.0, "change/mean_levels": 0.1}
    for step in range(9):
        watch.require_alive(step, unchanged)
    with pytest.raises(CollapsedError, match=r"up to step 9 .* 10 validations in a row"):
        watch.require_alive(9, unchanged)


def test_a_refiner_that_takes_its_time_has_not_collapsed() -> None:
    watch = CollapseWatch()
    for step in range(30):
        levels = 0.1 if step % 10 else 1.0
        watch.require_alive(step, {"change/spread": 0.9, "change/mean_levels": levels})
