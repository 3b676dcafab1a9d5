"""Refinement in several styles: rows, ids and random numbers."""

from pathlib import Path

import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.inference import refine_images
from simgan_core.models.checkpoint import load_refiner
from storage.reader import open_dataset
from storage.schema import DatasetInfo
from tasks.refinement.refine import finish_refinement, plan_refinement, refine_shards
from tasks.runtime.styles import base_ids, load_first_style, num_styles, style_numbers
from tests.refinement_inputs import make_bilateral_refiner, make_refiner, make_synthetic

NUM_ROWS, ROWS_PER_SHARD, BAD_ROW, STYLES = 20, 16, 5, 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic.zarr and refiner.pt."""
    folder = tmp_path_factory.mktemp("inputs")
    make_synthetic(str(folder / "synthetic.zarr"), NUM_ROWS, ROWS_PER_SHARD, (BAD_ROW,))
    make_bilateral_refiner(folder / "refiner.pt")
    return folder


def refined(
    inputs: Path,
    to: Path,
    styles: int = STYLES,
    seed: int = 0,
    shards: tuple[int, ...] = (),
    source: str = "",
) -> DatasetInfo:
    """Refine as the flow does, `shards` first, each in a call of its own."""
    source, weights = source or str(inputs / "synthetic.zarr"), str(inputs / "refiner.pt")

    def plan() -> list[list[int]]:
        return plan_refinement.fn(
            source, weights, str(to), dtype="fp32", styles=styles, style_seed=seed
        ).groups

    plan()
    for group in [[shard] for shard in shards] + plan():
        refine_shards.fn(group, source, weights, str(to))
    return finish_refinement.fn(str(to))


def test_every_image_has_as_many_rows_as_styles_with_its_labels(
    inputs: Path, tmp_path: Path
) -> None:
    info = refined(inputs, tmp_path / "r")
    before = open_dataset(str(inputs / "synthetic.zarr")).read(0, NUM_ROWS)
    after = open_dataset(str(tmp_path / "r")).read(0, NUM_ROWS * STYLES)
    assert after.ids[:4] == ["eye/0#1", "eye/0#2", "eye/0#3", "eye/1#1"]
    assert base_ids(open_dataset(str(tmp_path / "r"))) == list(np.repeat(before.ids, STYLES))
    for name, label in before.labels.items():
        assert np.array_equal(after.labels[name], np.repeat(label, STYLES, 0), equal_nan=True)
    assert (info.num_valid, info.num_rejected) == ((NUM_ROWS - 1) * STYLES, STYLES)
    assert [(each.row, each.id) for each in after.rejections] == [
        (BAD_ROW * STYLES + style, f"eye/{BAD_ROW}#{style + 1}") for style in range(STYLES)
    ]
    style = style_numbers(after.ids, STYLES, 0, 8)
    images = np.repeat(before.images, STYLES, 0)
    expected = refine_images(load_refiner(inputs / "refiner.pt").refiner, images, style=style)
    assert np.abs(after.images.astype(int) - expected)[after.valid].max() <= 4
    assert (after.images[0] != after.images[1]).any()


def test_an_images_style_depends_on_seed_id_and_index_alone(inputs: Path, tmp_path: Path) -> None:
    three, one, other = tmp_path / "three", tmp_path / "one", tmp_path / "other"
    refined(inputs, three)
    refined(inputs, one, styles=1)
    refined(inputs, other, styles=1, seed=1)
    first = load_first_style(open_dataset(str(three)))
    alone, elsewhere = open_dataset(str(one)).load(), open_dataset(str(other)).load()
    assert first.ids == alone.ids
    assert np.array_equal(first.images, alone.images)
    assert not np.array_equal(alone.images, elsewhere.images)


def test_rows_of_a_dataset_refined_twice_are_of_the_images_of_the_first(
    inputs: Path, tmp_path: Path
) -> None:
    styled, twice, once_more = tmp_path / "styled", tmp_path / "twice", tmp_path / "once-more"
    refined(inputs, styled)
    refined(inputs, twice, styles=2, source=str(styled))
    refined(inputs, once_more, styles=1, source=str(styled))
    image = open_dataset(str(inputs / "synthetic.zarr"))
    for folder, styles in ((twice, 2 * STYLES), (once_more, STYLES)):
        made = open_dataset(str(folder))
        assert num_styles(made.info) == styles
        assert base_ids(made) == list(np.repeat(image.read_ids(), styles))
        first = load_first_style(made, 4)
        assert first.ids == image.load(max_rows=4).ids


def test_in_whatever_order_shards_are_refined_the_dataset_is_the_same(
    inputs: Path, tmp_path: Path
) -> None:
    whole = refined(inputs, tmp_path / "whole")
    assert refined(inputs, tmp_path / "parts", shards=(2, 0)).digest == whole.digest


def test_style_numbers_are_standard_normal_and_independent() -> None:
    numbers = style_numbers([f"eye/{row}#{1 + row % 2}" for row in range(20_000)], 2, 7, 8)
    assert numbers.dtype == np.float32
    assert np.abs(numbers.mean(0)).max() < 0.03
    assert np.abs(np.cov(numbers.T) - np.eye(8)).max() < 0.05


def test_a_refiner_without_styles_refuses_them(inputs: Path, tmp_path: Path) -> None:
    weights = make_refiner(tmp_path / "refiner.pt")
    with pytest.raises(InputError, match=r"--styles 3 .* takes no style"):
        plan_refinement.fn(
            str(inputs / "synthetic.zarr"), str(weights), str(tmp_path / "r"), styles=3
        )
