"""Label overlays: one sample enlarged, with its labels drawn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from storage.samples import SampleBlock
from tasks.runtime.pictures import as_8_bits

GAZE, PUPIL, IRIS, LID, HEAD, JOINT = (
    (230, 30, 30), (0, 200, 0), (0, 160, 255), (255, 160, 0), (200, 0, 220), (255, 220, 0),
)  # fmt: skip
"""Colours; no image of grey levels has them."""

CAPTION_HEIGHT = 14


def draw_sample(block: SampleBlock, width: int) -> Image.Image:
    """Return the first sample of a block, enlarged to a width, with its labels and its name.

    gaze: a red arrow from the pupil (or from the middle), as the line of sight goes in the image;
    its length is that of the direction's part in the image. head_pose: the same in violet from a
    corner, for where the face points. pupil_px: a green cross. iris_px and lid_px: contours in
    blue and orange. joints_uvd: yellow dots.
    """
    pixels = as_8_bits(block.images[0])
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    scale = width / pixels.shape[1]
    size = (width, round(pixels.shape[0] * scale))
    shown = Image.fromarray(pixels).convert("RGB").resize(size, Image.Resampling.NEAREST)
    cell = Image.new("RGB", (width, size[1] + CAPTION_HEIGHT), (255, 255, 255))
    cell.paste(shown, (0, 0))
    draw = ImageDraw.Draw(cell)
    labels = {name: label[0] for name, label in block.labels.items() if _is_known(label[0])}
    _draw_points(draw, labels, scale)
    _draw_arrows(draw, labels, size, scale)
    draw.text((1, size[1] + 1), block.ids[0][-36:], fill=(0, 0, 0))
    return cell


def _draw_points(draw: ImageDraw.ImageDraw, labels: dict[str, Any], scale: float) -> None:
    for name, colour in (("lid_px", LID), ("iris_px", IRIS)):
        if name in labels:
            points = [(float(x), float(y)) for x, y in labels[name] * scale]
            draw.line([*points, points[0]], fill=colour, width=2)
    for u, v in labels["joints_uvd"][:, :2] * scale if "joints_uvd" in labels else ():
        draw.ellipse((u - 3, v - 3, u + 3, v + 3), fill=JOINT)
    if "pupil_px" in labels:
        x, y = (float(place) for place in labels["pupil_px"] * scale)
        draw.line((x - 6, y, x + 6, y), fill=PUPIL, width=1)
        draw.line((x, y - 6, x, y + 6), fill=PUPIL, width=1)


def _draw_arrows(
    draw: ImageDraw.ImageDraw, labels: dict[str, Any], size: tuple[int, int], scale: float
) -> None:
    length = 0.45 * min(size)
    if "gaze" in labels:
        start = np.array(size) / 2
        if "pupil_px" in labels:
            start = labels["pupil_px"] * scale
        _draw_arrow(draw, start, labels["gaze"][:2] * length, GAZE)
    if "head_pose" in labels:
        pitch, yaw = labels["head_pose"][:2]
        faces = np.array([-np.cos(pitch) * np.sin(yaw), -np.sin(pitch)])
        _draw_arrow(draw, np.array([0.12, 0.15]) * size, faces * length, HEAD)


def _draw_arrow(
    draw: ImageDraw.ImageDraw,
    start: NDArray[Any],
    way: NDArray[Any],
    colour: tuple[int, int, int],
) -> None:
    end = start + way
    draw.line([*map(float, start), *map(float, end)], fill=colour, width=2)
    back, aside = -0.25 * way, 0.12 * np.array([-way[1], way[0]])
    draw.polygon([tuple(map(float, p)) for p in (end, end + back + aside, end + back - aside)],
                 fill=colour)  # fmt: skip


def _is_known(label: NDArray[Any]) -> bool:
    return bool(np.isfinite(label).all())
