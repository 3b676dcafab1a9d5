from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.errors import SourceError
from storage.sources.crop import Size
from storage.sources.named_images import NamedImages


def folder_of(tmp_path: Path, *names: str) -> NamedImages:
    """A folder of 2×3 images, the first black, each next one lighter by one."""
    for grey, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 3), grey, np.uint8)).save(path)
    return NamedImages(tmp_path, Size(2, 3), 1)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("12.png",), ["12"]),
        (("12.png",), ["12.jpg"]),
        (("12.jpg.png",), ["12.jpg"]),
        (("12.png",), ["12.png"]),
        (("a/1.png", "b/1.png"), ["a/1", "b/1"]),
        (("m01_0.26_-0.39.png",), ["m01_0.26_-0.39"]),
        (("x#1.png", "x#2.png"), ["x#1", "x#2"]),
    ],
)
def test_an_image_is_found_by_its_rows_id(
    tmp_path: Path, names: tuple[str, ...], ids: list[str]
) -> None:
    images = folder_of(tmp_path, *names)
    images.assign(ids)
    assert images.read(ids)[:, 0, 0, 0].tolist() == list(range(len(names)))


def test_one_image_of_two_rows_is_refused(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "12.png")
    with pytest.raises(SourceError, match=r"image of the rows '12.jpg' and '12.bmp'; name each"):
        images.assign(["12.jpg", "12.bmp"])


def test_an_image_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    images = folder_of(tmp_path, "1.png")
    images.assign(["1"])
    images.require_fitting()
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(SourceError, match=r"1.png: .*; write it again and run the same command"):
        images.read(["1"])
