"""Damaged files of every format: refused, rejected or read, never a crash (`tests/damage.py`).

`python -m benchmarks.ingest_fuzz` does the same with a thousand files a format.
"""

import random
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import damage, read_damaged
from PIL import Image
from source_samples import SAMPLES

from storage.sources.formats.folder import FolderOptions
from storage.sources.formats.mpiigaze import MPIIGazeOptions

NUM_DAMAGED = 15


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_files_are_refused_rejected_or_read(name: str, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    whole.mkdir()
    SAMPLES[name].write(whole)
    outcomes = set()
    for number in range(NUM_DAMAGED):
        shutil.copytree(whole, damaged)
        damage(damaged, random.Random(f"{name} {number}"))
        outcomes.add(read_damaged(SAMPLES[name], damaged))
        shutil.rmtree(damaged)
    assert outcomes >= {"read"}
    assert outcomes & {"refused", "rejected"}


def test_an_absurd_head_is_rejected_and_does_not_decide_the_size(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((8, 10), 100, np.uint8)).save(tmp_path / f"{number}.png")
    for side in (60_000, 8_000):
        first = (tmp_path / "0.png").read_bytes()
        head = struct.pack(">II", side, side) + first[24:29]
        crc = struct.pack(">I", zlib.crc32(b"IHDR" + head))
        (tmp_path / "0.png").write_bytes(first[:16] + head + crc + first[33:])
        source = FolderOptions(folder=tmp_path).open()
        assert source.image_shape == (8, 10, 1)
        assert source.read(0, 3).valid.tolist() == [False, True, True]


def test_lists_name_no_files_elsewhere(tmp_path: Path) -> None:
    """What a line points at is looked for among the frames of the day's file, and nowhere else."""
    SAMPLES["mpiigaze-lists"].write(tmp_path)
    path = tmp_path / "Evaluation Subset/sample list for eye image/p00.txt"
    tricks = [
        "../../x left",
        "day01/../../x.jpg left",
        "/etc/passwd left",
        "day02/../0001.jpg left",
    ]
    path.write_text("\n".join(["day01/0001.jpg left", *tricks]))
    block = MPIIGazeOptions(folder=tmp_path).open().read(0, 10)
    assert block.ids == ["p00/day01/0001/left", *(f"p00/line-{n}" for n in range(2, 6))]
    assert block.valid.tolist() == [True, *[False] * 4]
