"""Gallery as one self-contained HTML page; sprites are drawn as they scroll into view."""

import base64
import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simgan_core.atomic_file import atomic_write
from tasks.viewing.gallery import Column, Gallery

# Small sprite sheets: sorted by a figure, neighbours come from everywhere, and a browser decodes
# a sheet as a whole.
SHEET_SIDE = 5
IMAGES_PER_SHEET = SHEET_SIDE**2

NOTE = (
    "Most alike: by the root mean square difference of the means and deviations of grey levels in "
    "blocks, 11 across. A large distance to the most alike real image may come from a look that "
    "is not real, and from a gaze or a light that no real image has."
)


def write_gallery(gallery: Gallery, out: Path) -> int:
    """Write the page, whole or not at all, and return its size in bytes."""
    pages = files("tasks") / "pages"
    page = Template((pages / "gallery.html").read_text("utf-8"))
    head, tail = page.substitute(
        style=(pages / "gallery.css").read_text("utf-8"),
        script=(pages / "gallery.js").read_text("utf-8"),
        data=_in_script(_described(gallery)),
        sheets="\0",
    ).split("\0")
    with atomic_write(out) as file:
        file.write(head.encode())
        for number, column in enumerate(gallery.columns):
            for sheet, png in enumerate(_sheets(column.images)):
                text = base64.b64encode(png).decode()
                line = f'<script type="text/plain" id="sheet-{number}-{sheet}">{text}</script>\n'
                file.write(line.encode())
        file.write(tail.encode())
    return out.stat().st_size


def _described(gallery: Gallery) -> dict[str, Any]:
    """Return all but the pixels, as the page's script reads it."""
    height, width = gallery.columns[0].images.shape[1:3]
    return {
        "height": height,
        "width": width,
        "sheetSide": SHEET_SIDE,
        "numRows": gallery.num_rows,
        "columns": [_described_column(column) for column in gallery.columns],
        "figures": [
            {"title": one.title, "unit": one.unit, "values": _numbers(one.values, 2)}
            for one in gallery.figures
        ],
        "pitchYaw": _numbers(gallery.pitchyaw_deg, 1),
        "note": NOTE if any(column.is_nearest for column in gallery.columns) else "",
    }


def _described_column(column: Column) -> dict[str, Any]:
    return {
        "title": column.title,
        "ofRow": column.of_row.tolist(),
        "ids": column.ids,
        "gaze": _numbers(column.labels.get("gaze"), 3),
        "pupil": _numbers(column.labels.get("pupil_px"), 1),
    }


def _numbers(values: NDArray[np.floating[Any]] | None, decimals: int) -> Any:
    """Return an array as nested lists for JSON, null for NaN; None where there is no array."""
    if values is None:
        return None
    rounded = np.round(values.astype(np.float64), decimals)
    with_null = rounded.astype(object)
    with_null[np.isnan(rounded)] = None
    return with_null.tolist()


def _in_script(data: Any) -> str:
    """Return JSON that cannot end the script element that it is in, whatever names it holds."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _sheets(images: NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield PNGs of SHEET_SIDE × SHEET_SIDE images each, row by row; the last is filled up."""
    _, height, width, channels = images.shape
    for begin in range(0, len(images), IMAGES_PER_SHEET):
        block = np.zeros((IMAGES_PER_SHEET, height, width, channels), dtype=np.uint8)
        chosen = images[begin : begin + IMAGES_PER_SHEET]
        block[: len(chosen)] = chosen
        sheet = (
            block.reshape(SHEET_SIDE, SHEET_SIDE, height, width, channels)
            .transpose(0, 2, 1, 3, 4)
            .reshape(SHEET_SIDE * height, SHEET_SIDE * width, channels)
        )
        yield _png(sheet[..., 0] if channels == 1 else sheet)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
