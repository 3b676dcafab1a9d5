"""Exact intervals and p-values against SciPy's, and how often the intervals hold."""

import numpy as np
import pytest
from scipy import stats

from simgan_core.stats.binomial import binomial_interval, binomial_p_value, mean_interval

COUNTS = [(0, 20), (20, 20), (1, 1), (3, 7), (50, 100), (162, 200), (517, 1000), (40_100, 80_000)]


@pytest.mark.parametrize(("hits", "total"), COUNTS)
def test_interval_is_clopper_and_pearsons(hits: int, total: int) -> None:
    expected = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    assert binomial_interval(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-10)


@pytest.mark.parametrize(("hits", "total"), COUNTS)
def test_p_value_is_the_two_sided_one_against_guessing(hits: int, total: int) -> None:
    expected = stats.binomtest(hits, total, 0.5).pvalue
    assert binomial_p_value(hits, total) == pytest.approx(expected, rel=1e-8)


def test_articles_figures_come_out() -> None:
    assert 2 * stats.binom.sf(516, 1000, 0.5) == pytest.approx(binomial_p_value(517, 1000))
    assert binomial_p_value(162, 200) < 1e-8


def test_no_answers_say_nothing() -> None:
    assert binomial_interval(0, 0) == (0.0, 1.0)


def test_more_hits_than_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and the total of 3, found 4"):
        binomial_interval(4, 3)


@pytest.mark.parametrize(("total", "most"), [(20, 0.995), (100, 0.985), (1000, 0.96)])
def test_interval_holds_in_at_least_95_percent_whatever_the_truth(total: int, most: float) -> None:
    hits = np.arange(total + 1)
    low, high = np.array([binomial_interval(int(h), total) for h in hits]).T
    for truth in np.arange(0.5, 0.96, 0.01):
        covered = stats.binom.pmf(hits, total, truth)[(low <= truth) & (truth <= high)].sum()
        assert 0.95 <= covered <= most


def test_interval_of_a_mean_is_students() -> None:
    values = [0.48, 0.55, 0.51, 0.62, 0.5]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
