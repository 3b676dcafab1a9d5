"""Parts of image files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.sources.crop import Box, Size, crop_and_resize, cut, scaled
from storage.sources.image_file import Channels, opened_image

RANDOM = np.random.default_rng(0)
BOXES = (Box(20.4, 10.2, 60.0, 40.0), Box(-9.5, 70.1, 30.0, 60.0), Box(500.0, 500.0, 5.0, 5.0))


def write(path: Path, kind: str) -> None:
    colour = RANDOM.integers(0, 256, (96, 128, 3), np.uint8)
    if kind == "deep":
        Image.fromarray(RANDOM.integers(0, 65536, (96, 128), np.uint16)).save(path, format="PNG")
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(colour).save(path, format="JPEG", exif=exif)
    else:
        Image.fromarray(colour).save(path, format="JPEG")


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "turned", "deep"])
@pytest.mark.parametrize("at_least", [Size(96, 128), Size(20, 30)])
def test_a_box_is_read_as_it_is_cut_from_the_whole(
    tmp_path: Path, kind: str, channels: Channels, at_least: Size, box: Box
) -> None:
    write(tmp_path / "a", kind)
    with opened_image(tmp_path / "a") as image:
        whole, size = image.read(channels, at_least), image.size
    with opened_image(tmp_path / "a") as image:
        pixels, here = image.read_box(channels, box, at_least)
    expected, there = cut(whole[None], scaled(box, size, Size(*whole.shape[:2])))
    assert here == there
    assert np.array_equal(pixels, expected)
    assert pixels.dtype == expected.dtype
    crop_and_resize(pixels, here, Size(7, 11))
