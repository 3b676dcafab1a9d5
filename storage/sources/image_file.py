"""Safe decoding of image files: grey or colour, 8 or 16 bits, whole or reduced."""

import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from storage.sources.crop import Box, Size, cut, scaled, touched
from storage.sources.rows import BadSampleError

FORMATS = ("BMP", "JPEG", "PNG", "TIFF")
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
MAX_SIDE_PX = 8192

Channels = Literal[1, 3]
Bits = Literal[8, 16]

_UNDECODABLE = (
    Image.DecompressionBombError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
)
"""Errors of Pillow on damaged files, beside OSError."""

_TWO_BYTES = re.compile(r"(I|LA|RGB|RGBA|RGBX);16([BLN])")
"""Pillow's names for pixels of 16 bits in a file, with the order of the two bytes."""

_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_ORIENTATION = 0x0112
_UPRIGHT, _FIRST_ON_ITS_SIDE = 1, 5
_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}

_GREY_WEIGHTS = np.array([299, 587, 114]) / 1000
"""ITU-R 601, as Pillow has it for 8 bits."""


class OpenImage:
    """Image file whose header is read; get one from `opened_image`."""

    def __init__(self, image: Image.Image, path: Path) -> None:
        self._image, self._path = image, path
        # First, since for the exif of a png Pillow decodes it, after which the bits are forgotten.
        self.bits = _bits(image)
        """Bits of a grey level."""
        width, height = image.size
        self._orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
        on_its_side = self._orientation >= _FIRST_ON_ITS_SIDE
        self.size = Size(width, height) if on_its_side else Size(height, width)
        """As a person views it."""

    def read(self, channels: Channels, at_least: Size | None = None) -> NDArray[Any]:
        """Return the image, uint8 or uint16 [H, W, channels], full scale.

        One channel is brightness, three are red, green and blue; transparency is left away. Where
        the size `at_least` suffices, a jpg is decoded at a half, a quarter or an eighth of its own
        if it stays as large as that, which takes a fraction of the time.
        """
        if self.bits == 16:
            return _read_deep(self._image, self._path, channels)
        return _pixels(self._reduced(channels, at_least), channels)

    def read_box(self, channels: Channels, box: Box, at_least: Size) -> tuple[NDArray[Any], Box]:
        """Return the pixels [1, h, w, channels] that a box touches, and the box in them.

        They are what `read` and `cut` give, without a copy of the whole image on the way.
        """
        if self.bits == 16:
            whole = _read_deep(self._image, self._path, channels)
            return cut(whole[None], scaled(box, self.size, Size(*whole.shape[:2])))
        image = self._reduced(channels, at_least)
        here = scaled(box, self.size, Size(image.height, image.width))
        part = touched(Size(image.height, image.width), here)
        pixels = _pixels(image.crop(part), channels)[None]
        return pixels, here._replace(left=here.left - part.left, top=here.top - part.top)

    def _reduced(self, channels: Channels, at_least: Size | None) -> Image.Image:
        """Return the upright image, to be decoded at a reduced size where that suffices."""
        # A jpg holds brightness by itself: for grey, colours are not decoded at all.
        size = None if at_least is None else (at_least.width, at_least.height)
        self._image.draft(_MODES[channels], size)
        # Pillow copies an image where there is nothing to turn, too.
        upright = self._orientation == _UPRIGHT
        return self._image if upright else ImageOps.exif_transpose(self._image)


def split_image_name(name: str) -> tuple[str, int] | None:
    """Return the sample of an image file for a listing of one file a sample; None of others."""
    return (name, 0) if Path(name).suffix.lower() in SUFFIXES and name[0] != "." else None


@contextmanager
def opened_image(path: Path) -> Iterator[OpenImage]:
    """Open an image file; whatever is wrong with it, also later on, is a BadSampleError."""
    if not path.is_file():  # opening a pipe waits until somebody writes to it
        raise BadSampleError("the image file is missing")
    try:
        # Of a file object, not a path: Pillow maps uncompressed files that it opens itself, and
        # where a mapped file is cut, the operating system ends the process.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if max(image.size) > MAX_SIDE_PX:
                raise BadSampleError(f"the image claims to be over {MAX_SIDE_PX} pixels a side")
            if min(image.size) < 1:
                raise BadSampleError("the image has no pixels")
            yield OpenImage(image, path)
    except (FileNotFoundError, IsADirectoryError):
        raise BadSampleError("the image file is missing") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadSampleError("the image file does not decode") from error
    except _UNDECODABLE as error:
        raise BadSampleError("the image file does not decode") from error


def _pixels(image: Image.Image, channels: Channels) -> NDArray[np.uint8]:
    """Return an image's pixels, [H, W, channels]."""
    mode = _MODES[channels]
    # Pillow copies an image where there is nothing to convert, too.
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def _bits(image: Image.Image) -> Bits:
    if image.mode in ("I", "F"):
        raise BadSampleError("the image's grey levels have neither 8 nor 16 bits")
    return 16 if _TWO_BYTES.fullmatch(_raw_mode(image)) or image.mode[:4] == "I;16" else 8


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for how pixels are laid out in the file."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _read_deep(image: Image.Image, path: Path, channels: Channels) -> NDArray[np.uint16]:
    """Return an image of 16 bits, of which Pillow itself keeps 8 where there are colours."""
    if image.mode[:4] == "I;16":
        return np.repeat(np.asarray(image).astype(np.uint16)[..., None], channels, axis=2)
    if "LA" in _raw_mode(image):
        raise BadSampleError("grey images of 16 bits with transparency are not read")
    high = np.asarray(image)[..., :3].astype(np.uint16)
    again: Any  # `tile` is no attribute that Pillow declares for all images
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as again:
        # Read in the other order of bytes, the low one of the two is taken for the high one.
        again.tile = [tile._replace(args=_swapped(tile.args)) for tile in again.tile]
        colour: NDArray[np.uint16] = high << 8 | np.asarray(again)[..., :3]
    if channels == 3:
        return colour
    return np.asarray(np.rint(colour @ _GREY_WEIGHTS)[..., None], np.uint16)


def _swapped(args: Any) -> Any:
    """Return a tile's arguments with the bytes of a pixel in the other order."""
    if isinstance(args, tuple):
        return (_swapped(args[0]), *args[1:])
    return f"{args[:-1]}{_OTHER_BYTE[args[-1]]}"
