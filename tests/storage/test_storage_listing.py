"""Listings of many files: arrays, no object a file."""

import tracemalloc
from pathlib import Path

import pytest

from storage.errors import SourceError
from storage.sources import listing
from storage.sources.listing import Listing

NUM_FILES = 2000


def split(name: str) -> tuple[str, int] | None:
    stem, _, suffix = name.rpartition(".")
    return {"jpg": (stem, 0), "json": (stem, 1)}.get(suffix)


def test_few_names_are_objects_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(NUM_FILES):
        (tmp_path / f"a-name-as-long-as-forty-eight-letters-{number:010d}.jpg").touch()

    def peak(at_once: int) -> int:
        monkeypatch.setattr(listing, "ENTRIES_AT_ONCE", at_once)
        tracemalloc.start()
        found = Listing(tmp_path, split, num_files=2)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found) == NUM_FILES
        return most

    one_object = 90  # bytes of such a name, and of its place in a list
    # The least of three: other threads of the tests allocate now and then, too.
    many, few = (min(peak(at_once) for _ in range(3)) for at_once in (NUM_FILES, 100))
    assert many - few > 0.5 * one_object * NUM_FILES


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
