"""Atomic writes: the old file or the new one, and nothing beside them."""

from pathlib import Path

import pytest

from storage.atomic_file import atomic_write, partial_file


@pytest.mark.parametrize("durable", [True, False])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path, durable=durable) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as partial:
            partial.write_text("ha")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_wrote_nothing_replaces_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_two_writers_at_once_have_partial_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with partial_file(path) as first, partial_file(path) as second:
        first.touch(exist_ok=False)
        second.touch(exist_ok=False)
    assert not list(tmp_path.iterdir())
