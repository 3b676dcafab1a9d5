from pathlib import Path

import pytest

from simgan_core.atomic_file import atomic_write


def test_the_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    with atomic_write(path) as file:
        file.write(b"half, ")
        file.flush()
        assert not path.exists()
        file.write(b"whole")
    assert path.read_bytes() == b"half, whole"


def test_an_exception_in_the_block_keeps_the_former_file_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"former")

    def fail_halfway() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    (tmp_path / "record.json.partial").write_bytes(b"left by a killed process")
    with atomic_write(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]
