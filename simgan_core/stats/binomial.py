"""Exact binomial intervals and tests, and t intervals over few people.

A share is hits of total, each answer right or wrong by itself with one common chance. The exact
interval (Clopper and Pearson, Biometrika 1934) covers that chance in at least 95% of studies
whatever it is. As counts are whole numbers it covers more than that, the more so the fewer there
are; for chances of 0.5 to 0.95: 95.1 to 95.8% at 1,000 answers, 95.4 to 98.3% at 100, 95.9 to 99.4%
at 20.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

LEVEL = 0.95
_SMALLEST = 1e-300
_MAX_TERMS = 100_000


@lru_cache(maxsize=65_536)
def binomial_interval(hits: int, total: int) -> tuple[float, float]:
    """Return the exact 95% interval of a share; (0, 1) of no answers at all."""
    _require_counts(hits, total)
    tail = (1 - LEVEL) / 2
    low, high = 0.0, 1.0
    if hits > 0:
        low = _root(lambda p: at_least(hits, total, p) - tail)
    if hits < total:
        high = _root(lambda p: at_least(hits + 1, total, p) - (1 - tail))
    return low, high


def binomial_p_value(hits: int, total: int) -> float:
    """Return how likely mere guessing (1/2) is to end at least this far from half; two-sided."""
    _require_counts(hits, total)
    farther = max(hits, total - hits)
    return min(1.0, 2 * at_least(farther, total, 0.5))


def at_least(hits: int, total: int, chance: float) -> float:
    """Return the probability of `hits` or more in `total` answers that are right by `chance`."""
    if hits <= 0:
        return 1.0
    if hits > total:
        return 0.0
    return incomplete_beta(hits, total - hits + 1, chance)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95% interval of the mean that the values were drawn around, at least two."""
    count = len(values)
    if count < 2:
        raise ValueError(f"an interval over people needs at least 2 of them, found {count}")
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = _student_quantile(count - 1) * math.sqrt(variance / count)
    return mean - reach, mean + reach


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), x in [0, 1].

    Its continued fraction (Abramowitz and Stegun 26.5.8), evaluated forwards by Lentz's method
    (Applied Optics 15, 1976), on the side of the mean on which it converges fast.
    """
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return math.exp(log_front) / (a * _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float) -> float:
    value, numerator, denominator = 1.0, 1.0, 0.0
    for term in range(1, _MAX_TERMS):
        m = term // 2
        if term % 2:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / _not_zero(1 + coefficient * denominator)
        numerator = _not_zero(1 + coefficient / numerator)
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            return value
    raise ArithmeticError(f"the incomplete beta function did not converge at {a}, {b}, {x}")


def _not_zero(value: float) -> float:
    return value if abs(value) > _SMALLEST else _SMALLEST


def _student_quantile(freedom: int) -> float:
    """Return t that Student's variable stays within, either way, at LEVEL."""
    # P(|T| > t) = I_x(f/2, 1/2) with x = f / (f + t²), which falls as t grows.
    x = _root(lambda x: incomplete_beta(freedom / 2, 0.5, x) - (1 - LEVEL))
    return math.sqrt(freedom * (1 / x - 1))


def _root(rising: Callable[[float], float]) -> float:
    """Return where in (0, 1) a rising function crosses zero, to 1e-14."""
    low, high = 0.0, 1.0
    while high - low > 1e-14:
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _require_counts(hits: int, total: int) -> None:
    if not 0 <= hits <= total:
        raise ValueError(f"hits must be between 0 and the total of {total}, found {hits}")
