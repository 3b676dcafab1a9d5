"""The boundary of a sample: whatever reading one raises, at any layer, is its rejection."""

import errno
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from source_samples import LOOKS, SAMPLES, mpiigaze

from storage.errors import SourceError
from storage.samples import SampleBlock
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.folder import FolderOptions
from storage.sources.formats.mpiigaze import EyeArrays, MPIIGazeOptions, write_mpiigaze_day
from storage.sources.source import Source

# The boundary itself, and the opening of a file that holds all samples.
SHARED_BY_ALL = {"storage.sources.rows", "storage.sources.h5_file"}


class OddError(Exception):
    """What no library is known to raise."""


def layers(source: Source) -> list[tuple[object, str]]:
    """Name every function that a source's module has for itself or from the layers below."""
    module = sys.modules[type(source).__module__]
    here = [
        (module, name)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ not in SHARED_BY_ALL
    ]
    methods = [(type(source), name) for name in ("_read_one", "_find", "_labels", "_read_images")]
    return here + [(owner, name) for owner, name in methods if hasattr(owner, name)]


def require_consistent(block: SampleBlock) -> None:
    rejected = [rejection.row for rejection in block.rejections]
    assert rejected == np.flatnonzero(~block.valid).tolist()
    assert not block.images[~block.valid].any()
    assert all(np.isnan(label[~block.valid]).all() for label in block.labels.values())


@pytest.mark.parametrize("name", SAMPLES)
def test_what_any_layer_raises_for_one_sample_rejects_that_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAMPLES[name].write(tmp_path)
    source = SAMPLES[name].open(tmp_path)
    num_rejecting = 0
    for owner, function in layers(source):
        raising = False

        def failing(*_: object, **__: object) -> Any:
            nonlocal raising
            raising = True
            raise OddError("odd")

        with monkeypatch.context() as patch:
            patch.setattr(owner, function, failing)
            block = source.read(0, len(source))
        require_consistent(block)
        assert (not block.valid.any()) == raising, function
        assert {r.reason for r in block.rejections} <= {"reading it failed with OddError"}
        num_rejecting += raising
    assert num_rejecting >= 2


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_that_raises_leaves_the_others_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAMPLES[name].write(tmp_path)
    source = SAMPLES[name].open(tmp_path)
    whole = source.read(0, len(source))
    module = sys.modules[type(source).__module__]
    layer = "_cut_cube" if name == "nyu-hand" else "crop_and_resize"
    real, spoilt = getattr(module, layer), whole.images[1]

    def failing(*args: Any) -> Any:
        done = real(*args)
        if any(np.array_equal(spoilt.squeeze(), each.squeeze()) for each in (done, *done)):
            raise OddError("odd")
        return done

    monkeypatch.setattr(module, layer, failing)
    block = source.read(0, len(source))
    same = [np.array_equal(spoilt, image) for image in whole.images]
    assert block.valid.tolist() == np.logical_not(same).tolist()
    assert np.array_equal(block.images[block.valid], whole.images[block.valid])
    require_consistent(block)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ECONNRESET])
def test_what_the_machine_does_is_no_rejection(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_images(tmp_path)
    source = FolderOptions(folder=tmp_path).open()

    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("storage.sources.formats.folder.opened_image", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        source.read(0, len(source))


def folder_of_images(folder: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((8, 10), number, np.uint8)).save(folder / f"{number}.png")


def reasons(source: Source) -> dict[str, str]:
    return {r.id: r.reason for r in source.read(0, len(source)).rejections}


def test_a_link_to_itself_is_rejected(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert reasons(FolderOptions(folder=tmp_path).open()).keys() == {"loop.png"}


def test_a_name_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    for name in (b"\xff.png", b"\xfe.png", b"\xe9/a.png"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / "1.png").read_bytes())
    found = reasons(FolderOptions(folder=tmp_path).open())
    assert len(found) == 3
    assert set(found.values()) == {"the file's name is not UTF-8; rename it"}
    assert all(name.encode() for name in found)


def test_a_pipe_with_an_images_name_is_no_sample(tmp_path: Path) -> None:
    """Opening one waits until somebody writes to it."""
    folder_of_images(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert len(FolderOptions(folder=tmp_path).open()) == 3


def test_an_image_of_height_0_is_rejected(tmp_path: Path) -> None:
    folder_of_images(tmp_path)
    Image.fromarray(np.zeros((1, 10), np.uint8)).save(tmp_path / "0.bmp")
    whole = bytearray((tmp_path / "0.bmp").read_bytes())
    whole[22:26] = bytes(4)
    (tmp_path / "0.bmp").write_bytes(whole)
    assert reasons(FolderOptions(folder=tmp_path).open()).keys() == {"0.bmp"}


@pytest.mark.parametrize("subset", ["all", "evaluation"])
def test_a_day_file_that_names_more_frames_than_it_has_loses_these_alone(
    subset: Any, tmp_path: Path
) -> None:
    SAMPLES["mpiigaze-lists"].write(tmp_path)
    eyes = EyeArrays(np.zeros((2, 36, 60), np.uint8), np.stack(LOOKS[:2]), np.zeros((2, 3)))
    names = [f"{n:04d}.jpg" for n in range(5)]
    write_mpiigaze_day(tmp_path, person="p00", day=1, filenames=names, left=eyes, right=eyes)
    source = MPIIGazeOptions(folder=tmp_path, subset=subset).open()
    found = reasons(source)
    assert len(found) == 6
    assert set(found.values()) == {"the day file has a name and no image of it"}


def test_a_day_file_that_is_a_link_to_itself_is_rejected(tmp_path: Path) -> None:
    mpiigaze(tmp_path)
    (tmp_path / "Data/Normalized/p00/day03.mat").symlink_to("day03.mat")
    assert reasons(MPIIGazeOptions(folder=tmp_path, subset="all").open()).keys() == {"p00/day03"}


def test_a_damaged_chunk_of_an_h5_file_rejects_its_rows(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 10)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(4, 8, 10), fletcher32=True)
        offset = file["images"].id.get_chunk_info(2).byte_offset
    source = ArraysOptions(file=str(tmp_path / "a.h5"), images="images").open()
    whole = bytearray((tmp_path / "a.h5").read_bytes())
    whole[offset] ^= 1
    (tmp_path / "a.h5").write_bytes(whole)
    block = source.read(0, 40)
    assert np.flatnonzero(~block.valid).tolist() == [8, 9, 10, 11]
    assert np.array_equal(block.images[block.valid], images[block.valid][..., None])
    require_consistent(block)


def test_an_npy_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """Mapped, it ended the process (SIGBUS)."""
    np.save(tmp_path / "images.npy", np.zeros((200, 64, 64), np.uint8))
    source = ArraysOptions(file=str(tmp_path), images="images").open()
    os.truncate(tmp_path / "images.npy", 100 * 64 * 64)
    with pytest.raises(SourceError, match="ends before"):
        source.read(0, 200)
