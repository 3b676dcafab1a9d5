"""Files that are cut between opening and reading: an error that names them, no end by SIGBUS."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from source_samples import SAMPLES

from storage.errors import SourceError
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.eye_gaze import EyeGazeOptions
from storage.sources.formats.mpiigaze import MPIIGazeOptions
from storage.sources.h5_file import opened_h5
from storage.sources.image_file import opened_image
from storage.sources.rows import BadSampleError

IMAGES = np.random.default_rng(0).integers(1, 256, (400, 35, 55), dtype=np.uint8)


def test_a_mat_file_that_is_cut_is_named_by_its_rows(tmp_path: Path) -> None:
    SAMPLES["mpiigaze"].write(tmp_path)
    source = MPIIGazeOptions(folder=tmp_path, subset="all").open()
    day = tmp_path / "Data/Normalized/p00/day02.mat"
    os.truncate(day, day.stat().st_size // 2)
    block = source.read(0, len(source))
    assert {
        rejection.id.rpartition("/")[0].rpartition("/")[0] for rejection in block.rejections
    } == {"p00/day02"}
    assert {rejection.reason for rejection in block.rejections} == {
        "the day file cannot be read as a .mat file"
    }
    assert block.valid.sum() == len(source) // 2


def test_an_uncompressed_mat_file_is_cut_at_any_place(tmp_path: Path) -> None:
    SAMPLES["mpiigaze"].write(tmp_path)
    source = MPIIGazeOptions(folder=tmp_path, subset="all").open()
    day = tmp_path / "Data/Normalized/p00/day02.mat"
    eyes = {"gaze": np.zeros((9, 3)), "image": IMAGES[:9], "pose": np.zeros((9, 3))}
    savemat(day, {"filenames": np.array([["0.jpg"]]), "data": {"left": eyes, "right": eyes}})
    whole = day.read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        day.write_bytes(whole)
        os.truncate(day, length)
        assert source.read(0, len(source)).valid.sum() == len(source) // 2


def test_an_npy_file_that_is_cut_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", IMAGES)
    source = ArraysOptions(file=str(tmp_path), images="image").open()
    assert source.read(0, 10).valid.all()
    os.truncate(tmp_path / "image.npy", 100_000)
    with pytest.raises(SourceError, match=rf"{tmp_path}.*image\.npy ends before row"):
        source.read(200, 400)


def test_an_h5_file_that_is_cut_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "eyes.h5", "w") as file:
        file["image"] = IMAGES
    source = ArraysOptions(file=str(tmp_path / "eyes.h5"), images="image").open()
    os.truncate(tmp_path / "eyes.h5", 100_000)
    with pytest.raises(SourceError, match=r"eyes\.h5 is damaged.*truncated"):
        source.read(0, 400)


def test_an_h5_file_that_is_cut_while_it_is_open_is_not_read_as_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "eyes.h5", "w") as file:
        file["image"] = IMAGES
    num_bytes = (tmp_path / "eyes.h5").stat().st_size
    said = rf"eyes\.h5 was cut while it was read: 100000 of its {num_bytes} bytes are left"
    opened = opened_h5(tmp_path / "eyes.h5")
    file = opened.__enter__()
    os.truncate(tmp_path / "eyes.h5", 100_000)
    assert not file["image"][300:].any()  # HDF5's zeros
    with pytest.raises(SourceError, match=said):
        opened.__exit__(None, None, None)


def test_a_cut_file_of_eye_gaze_is_named(tmp_path: Path) -> None:
    SAMPLES["eye-gaze"].write(tmp_path)
    source = EyeGazeOptions(file=tmp_path / "gaze.h5").open()
    os.truncate(tmp_path / "gaze.h5", 5_000)
    with pytest.raises(SourceError, match=r"gaze\.h5 is damaged.*truncated"):
        source.read(0, 5)


@pytest.mark.parametrize("suffix", ["bmp", "tiff"])
def test_an_uncompressed_image_is_read_and_not_mapped(tmp_path: Path, suffix: str) -> None:
    """Pillow maps those of 8 bits a pixel; a map of a file that is cut ends the process."""
    path = tmp_path / f"eye.{suffix}"
    Image.fromarray(np.tile(IMAGES[0], (20, 20))).save(path)
    with opened_image(path) as image:
        assert image.read(1).any()
        assert str(path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "jpg"])
def test_an_image_that_is_cut_while_it_is_open_does_not_decode(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"eye.{suffix}"
    Image.fromarray(np.tile(IMAGES[0], (20, 20))).save(path)

    def read() -> None:
        with opened_image(path) as image:
            os.truncate(path, 3000)
            image.read(1)

    with pytest.raises(BadSampleError, match="does not decode"):
        read()
