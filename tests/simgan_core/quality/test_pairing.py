"""Images and labels that were shuffled are noticed, and those that belong together are not."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from simgan_core.quality.pairing import check_pairing
from simgan_core.simulator.eyes import render, sample_scenes

Pairs = tuple[np.ndarray, np.ndarray]
NUM_ROWS = 1000


@pytest.fixture(scope="module", params=["synthetic", "real", "syntheseyes"])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    """Images [N, H, W, 1] and their pupils [N, 2]."""
    if request.param == "syntheseyes":
        folder: Path = request.getfixturevalue("shared_data")
        with h5py.File(folder / "syntheseyes" / "syntheseyes_35x55.h5") as file:
            rows = np.random.default_rng(0).permutation(len(file["image"]))[:NUM_ROWS]
            return file["image"][:][rows][..., None], file["pupil_2d"][:][rows]
    rendered = render(sample_scenes(request.param, NUM_ROWS, seed=3), "crop", 35, 55)
    return rendered.images, rendered.pupil_px


def shuffled(pupil_px: np.ndarray, share: float) -> np.ndarray:
    """The labels, those of a share of the rows being other rows' labels."""
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(pupil_px))[: round(share * len(pupil_px))]
    mixed = pupil_px.copy()
    mixed[rows] = pupil_px[np.roll(rows, 1)]
    return mixed


def test_pairs_that_are_right_raise_no_warning(pairs: Pairs) -> None:
    found = check_pairing(*pairs)
    assert found.num_judged > NUM_ROWS / 2
    assert found.share_missed < 0.02
    assert found.warning() == ""


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_shuffled_pairs_are_warned_of(pairs: Pairs, share: float) -> None:
    images, pupil_px = pairs
    found = check_pairing(images, shuffled(pupil_px, share))
    assert found.share_missed > 0.3 * share
    assert "images and labels look shuffled" in found.warning()


def test_the_share_does_not_hang_on_the_size_or_depth_of_images(pairs: Pairs) -> None:
    images, pupil_px = pairs
    larger = images.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint16) * 257
    assert check_pairing(larger, 2 * pupil_px).share_missed == pytest.approx(
        check_pairing(images, pupil_px).share_missed, abs=0.01
    )


def test_labels_that_are_all_alike_are_not_judged(pairs: Pairs) -> None:
    images, pupil_px = pairs
    found = check_pairing(images, np.full_like(pupil_px, 20.0))
    assert found.num_judged == 0
    assert found.warning() == ""


def test_unknown_labels_are_left_out(pairs: Pairs) -> None:
    images, pupil_px = pairs
    unknown = pupil_px.copy()
    unknown[::2] = np.nan
    assert check_pairing(images, unknown).num_judged <= NUM_ROWS / 2


def test_a_few_rows_prove_nothing(pairs: Pairs) -> None:
    images, pupil_px = pairs
    assert check_pairing(images[:50], shuffled(pupil_px[:50], 1.0)).warning() == ""
    assert check_pairing(images[:3], pupil_px[:3]).num_judged == 0
