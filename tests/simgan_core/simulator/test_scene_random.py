import numpy as np

from simgan_core.simulator.scene_random import derive_keys, noise_field, normal, uniform

KEYS = derive_keys(7, "test", np.arange(20_000))


def test_numbers_depend_on_their_key_alone():
    part = derive_keys(7, "test", np.arange(100, 110))
    np.testing.assert_array_equal(uniform(part, "a"), uniform(KEYS, "a")[100:110])
    np.testing.assert_array_equal(
        noise_field(part, "a", 3, 5), noise_field(KEYS[100:110], "a", 3, 5)
    )


def test_other_seeds_families_and_names_give_unrelated_numbers():
    others = [
        uniform(derive_keys(8, "test", np.arange(20_000)), "a"),
        uniform(derive_keys(7, "other", np.arange(20_000)), "a"),
        uniform(KEYS, "b"),
        np.roll(uniform(KEYS, "a"), 1),
    ]
    correlations = [np.corrcoef(uniform(KEYS, "a"), other)[0, 1] for other in others]
    assert np.abs(correlations).max() < 0.03


def test_uniform_numbers_fill_the_unit_interval_evenly():
    numbers = uniform(KEYS, "a")
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert np.sum((counts - 1000) ** 2 / 1000) < 44  # 99.9% of χ² with 19 degrees of freedom


def test_normal_numbers_and_noise_have_mean_0_and_deviation_1():
    for numbers in (normal(KEYS, "a"), noise_field(KEYS[:20], "a", 40, 50)):
        assert abs(numbers.mean()) < 0.02
        assert abs(numbers.std() - 1) < 0.02
        assert abs(np.mean(numbers**3)) < 0.06
