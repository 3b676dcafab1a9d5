"""Grids of images: placed in order, enlarged, and never rescaled."""

import io

import numpy as np
import pytest
from PIL import Image

from tasks.runtime.pictures import (
    GAP_PX,
    MARGIN_PX,
    PAPER,
    as_8_bits,
    before_after,
    columns,
    grid,
    png,
    refinement_progress,
)


def shades(*values: int, channels: int = 1) -> np.ndarray:
    """Images 3×4, each of one shade."""
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((3, 4, channels), np.uint8)


def test_a_grid_holds_the_images_in_order_with_gaps_of_paper() -> None:
    sheet = grid(shades(1, 2, 3), num_columns=2, zoom=2)
    assert sheet.shape == (2 * 6 + GAP_PX, 2 * 8 + GAP_PX)
    assert [int(sheet[y, x]) for y, x in ((0, 0), (5, 17), (13, 7))] == [1, 2, 3]
    assert (sheet[6:8] == PAPER).all()
    assert (sheet[8:, 10:] == PAPER).all()


def test_shades_stay_as_they_are() -> None:
    assert set(np.unique(grid(shades(100, 101), zoom=1))) == {100, 101, PAPER}
    assert columns([shades(7, channels=3)], 1).shape[2] == 3


def test_16_bits_are_shown_by_their_upper_half() -> None:
    assert as_8_bits(np.array([0, 255, 256, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
    assert as_8_bits(np.array([9], np.uint8)).tolist() == [9]


@pytest.mark.parametrize("channels", [1, 3])
def test_refined_rows_lie_below_their_originals_and_real_ones_last(channels: int) -> None:
    synthetic, refined, real = (
        shades(*values, channels=channels) for values in ((1, 2, 3), (11, 12, 13), (90, 91, 92))
    )
    sheet = before_after(synthetic, refined, real, 2)
    first = [sheet[row * (3 * 2 + GAP_PX), MARGIN_PX].max() for row in range(6)]
    assert first == [1, 11, 3, 13, 90, 92]


def test_every_row_of_a_before_and_after_has_a_label_beside_it() -> None:
    images = np.zeros((10, 35, 55, 1), np.uint8)
    margin = before_after(images, images, images)[:, :MARGIN_PX]
    rows = [margin[row * (70 + GAP_PX) :][:70] for row in range(3)]
    assert all((row[10:-10] < PAPER).any() for row in rows)
    assert all((row[:10] == PAPER).all() for row in rows)
    assert not np.array_equal(rows[0], rows[1])


def test_progress_has_the_first_step_on_top() -> None:
    sheet = refinement_progress({20: shades(2), 10: shades(1)})
    assert (sheet[0, 0], sheet[-1, 0]) == (1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_same_pixels(channels: int) -> None:
    pixels = grid(shades(3, 200, channels=channels))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)
