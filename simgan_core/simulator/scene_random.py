"""Counter-based random numbers: a function of seed and position, without state or order.

A number is the hash of a key (which scene), a name (which quantity) and a counter (which pixel), so
that any scene can be made alone, in any batch, on any worker, with the same bits. The mixing is
SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which passes the common batteries of tests.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
FloatArray = NDArray[np.floating[Any]]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def derive_keys(seed: int, name: str, numbers: NDArray[np.integer]) -> Keys:
    """Return a key [N] for each of the numbers [N]; another seed or name gives unrelated keys."""
    family = _mix(_mix(np.array([seed], np.uint64)) ^ _name_code(name))
    return _mix(family + _GOLDEN * (numbers.astype(np.uint64) + np.uint64(1)))


def uniform(keys: Keys, name: str) -> FloatArray:
    """Return one number a key, float32 [N], uniform in [0, 1)."""
    # 24 bits are what float32 can tell apart below 1.
    top_bits = _bits(keys, name, 1)[:, 0] >> np.uint64(40)
    return top_bits.astype(np.float32) * np.float32(2.0**-24)


def normal(keys: Keys, name: str) -> FloatArray:
    """Return one number a key, float32 [N], of the standard normal distribution (Box–Muller)."""
    radius = np.sqrt(-2 * np.log1p(-uniform(keys, name + ".radius").astype(np.float64)))
    angle = 2 * np.pi * uniform(keys, name + ".angle").astype(np.float64)
    return np.asarray(radius * np.cos(angle), np.float32)


def noise_field(keys: Keys, name: str, height: int, width: int) -> FloatArray:
    """Return white noise [N, height, width], mean 0, standard deviation 1, within ±3.5.

    The sum of four 16-bit uniform numbers: near enough to a normal distribution for pictures, and
    one hash a pixel.
    """
    quarters = _bits(keys, name, height * width).view(np.uint16).reshape(-1, 4)
    sums = quarters.sum(axis=1, dtype=np.int32)
    mean, deviation = 4 * (2**16 - 1) / 2, 2**16 * np.sqrt(4 / 12)
    return np.asarray(
        ((sums - mean) / deviation).astype(np.float32).reshape(len(keys), height, width)
    )


def _bits(keys: Keys, name: str, count: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each key and counter, uint64 [N, count]."""
    counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return _mix(_mix(keys ^ _name_code(name))[:, None] + counters)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * _MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))


def _name_code(name: str) -> np.uint64:
    return np.uint64(zlib.crc32(name.encode()))
