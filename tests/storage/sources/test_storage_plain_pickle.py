"""Pickles of plain data: read as `pickle` reads them; of anything else, nothing runs."""

import os
import pickle
import random
from pathlib import Path

import pytest

from storage.sources.plain_pickle import MAX_DEPTH, NotPlainError, load_plain

PLAIN = {"a": [(1.5, -2), ("x", 1 << 40)], "b": {"c": [], "d": (), "e": None}, "f": [True, -1.0]}


class Hostile:
    """What pickle would run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_are_read_in_every_protocol(protocol: int) -> None:
    assert load_plain(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"look_vec": Hostile(tmp_path / "ran")}, protocol)
    with pytest.raises(NotPlainError, match="GLOBAL"):
        load_plain(data)
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)  # noqa: S301  it was hostile indeed
    assert (tmp_path / "ran").exists()


def test_what_would_take_memory_or_time_is_refused() -> None:
    nested = b"(" * (MAX_DEPTH + 1) + b"t" * (MAX_DEPTH + 1) + b"."
    absurd_length = b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f."
    twice_itself = b")" + b"q\x00h\x00\x86" * 60 + b"}h\x00K\x01s."
    for data in (nested, absurd_length, twice_itself):
        with pytest.raises(NotPlainError):
            load_plain(data)
    assert load_plain(b"]r\xff\xff\xff\x7f.") == []  # a memo of two thousand million places


def test_damaged_pickles_are_read_or_refused() -> None:
    whole, draw = pickle.dumps(PLAIN, 2), random.Random(0)
    num_refused = 0
    for _ in range(500):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        try:
            load_plain(bytes(data[: draw.randrange(1, len(data) + 1)]))
        except NotPlainError:
            num_refused += 1
    assert num_refused > 100
