"""Folders of images: every kind of file, grey and colour, 8 and 16 bits."""

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import SourceError
from storage.sources.formats.folder import FolderOptions

GREY = np.arange(80, dtype=np.uint8).reshape(8, 10) * 3
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def deep_png(path: Path, image: np.ndarray) -> None:
    """Write uint16 [H, W, 3] as a png, which Pillow cannot."""
    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def read_all(folder: Path, channels: int = 1) -> np.ndarray:
    source = FolderOptions(folder=folder, channels=channels).open()
    block = source.read(0, len(source))
    assert block.valid.all()
    return block.images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_grey_and_colour_are_kept_to_the_level(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY).save(tmp_path / f"grey.{suffix}")
    assert np.array_equal(read_all(tmp_path)[0, :, :, 0], GREY)
    Image.fromarray(COLOUR).save(tmp_path / f"grey.{suffix}")
    assert np.array_equal(read_all(tmp_path, 3)[0], COLOUR)


def test_a_jpg_keeps_its_colours_within_a_few_levels(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).resize((80, 64)).save(tmp_path / "a.JPG", quality=95)
    wanted = np.asarray(Image.fromarray(COLOUR).resize((80, 64))).astype(int)
    assert np.abs(read_all(tmp_path, 3)[0] - wanted).mean() < 4


def test_grey_files_have_three_equal_channels_where_colour_is_asked_for(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(read_all(tmp_path, 3)[0], np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_16_bits_stays_so(tmp_path: Path, suffix: str) -> None:
    deep = GREY.astype(np.uint16) * 257 + 1
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    images = read_all(tmp_path)
    assert images.dtype == np.uint16
    assert np.array_equal(images[0, :, :, 0], deep)


def test_colour_of_16_bits_stays_so_to_the_last_bit(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65_536, (8, 10, 3)).astype(np.uint16)
    deep_png(tmp_path / "a.png", deep)
    assert np.array_equal(read_all(tmp_path, 3)[0], deep)
    brightness = np.rint(deep @ [0.299, 0.587, 0.114])
    assert np.array_equal(read_all(tmp_path)[0, :, :, 0], brightness)


def test_of_two_depths_the_rarer_is_rejected(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "0.png")
    for number in (1, 2):
        Image.fromarray(GREY).save(tmp_path / f"{number}.png")
    block = FolderOptions(folder=tmp_path).open().read(0, 3)
    assert block.valid.tolist() == [False, True, True]
    assert block.rejections[0].reason == "the image has 16 bits a grey level, most have 8"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,gaze_x\na.png,1\n", "no column 'file'"),
        ("file,weather\na.png,fine\n", "no column of a label; it has: file, weather"),
        ("file,gaze_x,gaze_y\na.png,1,2\n", "no gaze_z"),
        ("file,pupil_x,pupil_y\na.png,1,2\na.png,1,2\n", "has 'a.png' twice"),
        ("file,gaze_x,gaze_y,gaze_z,gaze_pitch,gaze_yaw\na.png,0,0,-1,0,0\n", "once"),
        ("", "is damaged"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(tmp_path: Path, table: str, message: str) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(SourceError, match=message):
        FolderOptions(folder=tmp_path).open()


def test_head_poses_in_degrees_are_rejected(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,head_pitch,head_yaw,head_roll\na.png,2,-20,1\n")
    block = FolderOptions(folder=tmp_path).open().read(0, 1)
    assert [rejection.reason for rejection in block.rejections] == [
        "head_pitch, head_yaw, head_roll are not in radians"
    ]


def test_another_process_moves_pupils_into_the_crop_and_norms_gazes(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    names = "file,pupil_x,pupil_y,gaze_x,gaze_y,gaze_z"
    (tmp_path / "labels.csv").write_text(f"{names}\na.png,5,4,0,0,-2\n")
    source = FolderOptions(folder=tmp_path, size=(16, 20)).open()
    for each in (source, pickle.loads(pickle.dumps(source))):  # noqa: S301
        labels = each.read(0, 1).labels
        np.testing.assert_allclose(labels["pupil_px"], [[10, 8]])
        np.testing.assert_allclose(labels["gaze"], [[0, 0, -1]])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("b.png,0,0,-1", "labels.csv has no row of the file"),
        ("a.png,0,x,-1", "gaze_x, gaze_y, gaze_z are not all numbers"),
        ("a.png,0,0,0", "the gaze is no direction"),
        ("a.png,1e308,1e308,1e308", None),
    ],
)
def test_a_row_is_read_or_rejected(tmp_path: Path, row: str, reason: str | None) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(f"file,gaze_x,gaze_y,gaze_z\n{row}\n")
    block = FolderOptions(folder=tmp_path).open().read(0, 1)
    assert [r.reason for r in block.rejections] == ([] if reason is None else [reason])
    if reason is None:
        assert block.labels["gaze"][0] == pytest.approx(np.full(3, 3**-0.5))
