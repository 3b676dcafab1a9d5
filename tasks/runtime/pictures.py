"""Image grids for people; never rescaled per image, so that contrast drift shows."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]

GAP_PX = 2
PAPER = 255
MARGIN_PX = 64
"""Width of the column of row labels."""


def as_8_bits(images: NDArray[np.uint8] | NDArray[np.uint16]) -> Pixels:
    """Return images of 8 or 16 bits as 8 bits for display, by one fixed map."""
    return (images >> 8).astype(np.uint8) if images.dtype == np.uint16 else images.astype(np.uint8)


def grid(images: Pixels, num_columns: int = 8, zoom: int = 2) -> Pixels:
    """Lay out uint8 [N,H,W,C] row by row in one picture, uint8 [H',W'] or [H',W',3]."""
    rows = [images[start : start + num_columns] for start in range(0, len(images), num_columns)]
    return columns(rows, num_columns, zoom)


def columns(rows: Sequence[Pixels], num_columns: int, zoom: int = 2) -> Pixels:
    """Lay out rows of images, each uint8 [n ≤ num_columns,H,W,C], one above the other."""
    _, height, width, channels = rows[0].shape
    step_y, step_x = height * zoom + GAP_PX, width * zoom + GAP_PX
    sheet = np.full(
        (len(rows) * step_y - GAP_PX, num_columns * step_x - GAP_PX, channels), PAPER, np.uint8
    )
    for row_index, row in enumerate(rows):
        for column_index, image in enumerate(row):
            y, x = row_index * step_y, column_index * step_x
            enlarged = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
            sheet[y : y + height * zoom, x : x + width * zoom] = enlarged
    return sheet[..., 0] if channels == 1 else sheet


def before_after(synthetic: Pixels, refined: Pixels, real: Pixels, num_columns: int = 10) -> Pixels:
    """Lay out pairs of rows, synthetic above the same images refined, and real ones below.

    Every row has its name on the left.
    """
    rows: list[tuple[str, Pixels]] = []
    for start in range(0, min(len(synthetic), 3 * num_columns), num_columns):
        part = slice(start, start + num_columns)
        rows += [("synthetic", synthetic[part]), ("refined", refined[part])]
    rows += [("real", real[start : start + num_columns]) for start in (0, num_columns)]
    sheet = columns([images for _, images in rows], num_columns)
    return _with_row_labels(sheet, [name for name, _ in rows])


def _with_row_labels(sheet: Pixels, labels: Sequence[str]) -> Pixels:
    """Add a margin on the left, in which each of the equally high rows has its label."""
    margin = np.full((len(sheet), MARGIN_PX, *sheet.shape[2:]), PAPER, np.uint8)
    picture = Image.fromarray(np.concatenate([margin, sheet], axis=1))
    draw = ImageDraw.Draw(picture)
    row_px = (len(sheet) + GAP_PX) / len(labels)
    ink = 0 if picture.mode == "L" else (0, 0, 0)
    for row, label in enumerate(labels):
        draw.text((MARGIN_PX - 6, (row + 0.5) * row_px), label, fill=ink, anchor="rm")
    return np.asarray(picture)


def refinement_progress(samples: Mapping[int, Pixels], num_columns: int = 10) -> Pixels:
    """Lay out the same images as refined at each step, one row a step, first step on top."""
    return columns([samples[step][:num_columns] for step in sorted(samples)], num_columns)


def png(pixels: Pixels) -> bytes:
    """Encode uint8 [H,W] or [H,W,3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png_bytes: bytes) -> str:
    """Return a PNG as a data URI, for self-contained pages."""
    return "data:image/png;base64," + base64.b64encode(png_bytes).decode()
