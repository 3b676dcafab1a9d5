"""Listings of many files: arrays, no object a file."""

import pickle
import tracemalloc
from pathlib import Path

import pytest

from storage.errors import SourceError
from storage.sources import listing
from storage.sources.listing import Listing


def split(name: str) -> tuple[str, int] | None:
    stem, _, suffix = name.rpartition(".")
    return {"jpg": (stem, 0), "json": (stem, 1)}.get(suffix)


class Name(str):
    """A name that counts how many like it there are at a time."""

    alive = most = 0

    def __init__(self, _: str) -> None:
        Name.alive += 1
        Name.most = max(Name.most, Name.alive)

    def __del__(self) -> None:
        Name.alive -= 1


def test_few_names_are_objects_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        (tmp_path / f"{number}.jpg").touch()
    monkeypatch.setattr(listing, "ENTRIES_AT_ONCE", 100)
    found = Listing(tmp_path, lambda name: (Name(name[:-4]), 0))
    assert len(found) == 1000
    assert Name.alive == 0
    assert 100 <= Name.most <= 200


def test_samples_are_in_order_of_numbers_or_names_each_once(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.json", "9.jpg", "010.jpg", "b/2.jpg", "b/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    by_number = Listing(tmp_path, split, num_files=2, by_number=True)
    assert by_number.ids(0, 9) == ["9", "10", "010", "b/2"]
    assert by_number.num_bytes.tolist() == [[5, 6], [6, 0], [7, 0], [7, 0]]
    assert Listing(tmp_path, split, num_files=2).ids(0, 9) == ["010", "10", "9", "b/2"]


def test_links_to_folders_are_not_followed_and_links_to_nowhere_are_no_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "1.jpg").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    found = Listing(tmp_path, split, num_files=2)
    assert (found.ids(0, 9), found.num_bytes.tolist()) == (["1"], [[0, 0]])
    with pytest.raises(SourceError, match="no folder"):
        Listing(tmp_path / "1.jpg", split)


def test_for_another_process_names_are_no_objects_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/é.jpg", "a/b\n.jpg", *(f"{number}.jpg" for number in range(2000))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(listing, "ENTRIES_AT_ONCE", 100)
    found = Listing(tmp_path, split)
    tracemalloc.start()
    again = pickle.loads(pickle.dumps(found))  # noqa: S301  our own
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert again.ids(0, 2002) == found.ids(0, 2002)
    assert peak < 2002 * 75  # as objects 134 bytes a name
