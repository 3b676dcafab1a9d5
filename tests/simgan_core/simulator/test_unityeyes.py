"""The UnityEyes simulator: exact labels, and the same bits for a row wherever it is rendered."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter1d, map_coordinates

from simgan_core.simulator.unityeyes.assets import Assets
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.placement import Picture
from simgan_core.simulator.unityeyes.render import Renderer
from tasks.simulation.unityeyes_assets import load_assets
from tests.unityeyes_folder import write_assets

kernels = pytest.importorskip("simgan_core.simulator.unityeyes.kernels")

PICTURE = Picture("crop", 80, 120, 2)
PLAIN = UnityEyesConfig(
    glasses_share=0, makeup_share=0, squint_share=0, eye_pitch_range_deg=12, eye_yaw_range_deg=18,
    camera_pitch_range_deg=8, camera_yaw_range_deg=15, skin_tint=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """Skins of noise on a small mesh."""
    return load_assets(str(write_assets(tmp_path_factory.mktemp("assets"))))


@pytest.fixture(scope="module")
def renderer(assets: Assets) -> Renderer:
    """Eyes that look about, without glasses."""
    return Renderer(assets, PLAIN, seed=1)


def test_a_row_has_the_same_bits_in_any_range_and_by_any_number_of_threads(
    assets: Assets, renderer: Renderer
) -> None:
    whole = Renderer(assets, PLAIN, seed=1, threads=2).render(range(40), PICTURE)
    part = renderer.render(range(19, 35), PICTURE)
    np.testing.assert_array_equal(part.images, whole.images[19:35])
    np.testing.assert_array_equal(part.labels.pupil_px, whole.labels.pupil_px[19:35])
    np.testing.assert_array_equal(part.iris_visible, whole.iris_visible[19:35])


def test_another_seed_gives_other_images(assets: Assets, renderer: Renderer) -> None:
    other = Renderer(assets, PLAIN, seed=2).render(range(2), PICTURE)
    assert not np.array_equal(other.images, renderer.render(range(2), PICTURE).images)


def test_labels_alone_are_those_of_the_images(renderer: Renderer) -> None:
    labels = renderer.labels(range(5, 21), PICTURE)
    np.testing.assert_array_equal(
        labels.iris_px, renderer.render(range(5, 21), PICTURE).labels.iris_px
    )


def test_the_pupil_label_is_the_centre_of_the_dark_disc_in_the_picture(assets: Assets) -> None:
    misses, _ = disc_misses(assets, num_eyes=192)
    assert len(misses) >= 30
    assert np.median(misses) < 0.3


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_the_pupil_labels_of_a_thousand_eyes_in_sight_hold(
    record_property: Callable[[str, object], None],
) -> None:
    real = Path(__file__).parents[4] / "shared" / "data" / "unityeyes2"
    if not real.is_dir():
        pytest.skip("UnityEyes2's assets are not here")
    assets = load_assets(str(real))
    misses, irises = disc_misses(assets, num_eyes=2600)
    record_property("misses_px", np.percentile(misses, [50, 75, 95]).tolist())
    assert len(misses) >= 1000
    assert np.median(misses) <= 0.3
    # Where the brown iris meets its pupil it is as dark as the pupil on one side.
    clear = misses[irises != assets.brown_iris]
    record_property("misses_px of other irises", np.percentile(clear, [50, 95, 99]).tolist())
    assert np.percentile(clear, 95) <= 0.3


def disc_misses(assets: Assets, num_eyes: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances in pixels from the pupil's label to the middle of the dark disc in the picture.

    Of eyes whose pupil is in full sight, under the sky alone: a lamp mirrored in the cornea would
    hide part of the disc. Returned with the number of each eye's iris.
    """
    sky = PLAIN.model_copy(
        update={"light_over_ambient": (0.0, 0.0), "lash_length": (0.1, 0.1),
                "closing_deg": (-8.0, -6.0), "brightness": (0.55, 0.68)}
    )  # fmt: skip
    rendered = Renderer(assets, sky, seed=1).render(range(num_eyes), PICTURE)
    start = rendered.labels.pupil_px + np.random.default_rng(0).uniform(-0.7, 0.7, (num_eyes, 2))
    radius = np.ptp(rendered.labels.iris_px, axis=1).max(axis=1) / 2
    in_sight = np.flatnonzero(rendered.iris_visible > 0.85)
    found = [
        middle_of_disc(rendered.images[row].mean(axis=2), start[row], 0.9 * radius[row])
        for row in in_sight
    ]
    misses = np.linalg.norm(np.array(found) - rendered.labels.pupil_px[in_sight], axis=1)
    there = np.isfinite(misses)
    return misses[there], rendered.scenes.iris[in_sight][there]


def middle_of_disc(picture: np.ndarray, start: np.ndarray, reach: float) -> np.ndarray:
    """Middle of a dark disc round a place, from its edges along opposite rays; NaN for none.

    Middles of chords through a place lie between it and the disc's: from there it is tried again.
    """
    angle = np.arange(32) * np.pi / 16
    rays = np.stack([np.cos(angle), np.sin(angle)])[..., None] * np.arange(0, reach * 0.75, 0.25)
    found = start
    for _ in range(6):
        place = found[:, None, None] + rays
        profile = map_coordinates(picture, place[::-1] - 0.5, order=1)
        rise = gaussian_filter1d(profile, 3, axis=1, order=1)
        edge = np.take_along_axis(place, rise.argmax(axis=1)[None, :, None], axis=2)[..., 0]
        clear = rise.max(axis=1) > 1.0
        middle = (edge[:, :16] + edge[:, 16:]) / 2
        both = clear[:16] & clear[16:] & (np.hypot(*(middle - start[:, None])) < 2)
        if both.sum() < 10:
            return np.full(2, np.nan)
        found = np.median(middle[:, both], axis=1)
    return np.asarray(found)


def test_masks_agree_with_the_iris_ring(renderer: Renderer) -> None:
    rendered = renderer.render(range(32), PICTURE, masks=True)
    for row in np.flatnonzero(rendered.iris_visible > 0.999):
        iris = rendered.shown[row] >= kernels.IRIS
        y, x = np.nonzero(iris)
        ring = rendered.labels.iris_px[row]
        extent = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / 2
        expected = np.concatenate([ring.min(axis=0), ring.max(axis=0)])
        np.testing.assert_allclose(extent, expected, atol=0.8)


def test_lids_hide_what_the_label_says(renderer: Renderer, assets: Assets) -> None:
    closing = PLAIN.model_copy(update={"squint_share": 1.0})
    shut = Renderer(assets, closing, seed=1).render(range(32), PICTURE).iris_visible
    wide = renderer.render(range(32), PICTURE).iris_visible
    assert shut.mean() < wide.mean() - 0.1
    assert 0 <= shut.min() <= wide.max() <= 1


def test_the_white_of_the_eye_goes_on_to_a_corner_beyond_the_eyeball(assets: Assets) -> None:
    config = PLAIN.model_copy(update={"outer_corner_mm": (9.0, 9.0), "camera_yaw_range_deg": 1.0})
    rendered = Renderer(assets, config, seed=1).render(range(16), PICTURE, masks=True)
    labels = rendered.labels
    # The limbus' height tells how many pixels a millimetre has.
    px_per_mm = np.ptp(labels.iris_px[..., 1], axis=1) / (2 * 5.87 * rendered.scenes.iris_size)
    outer = labels.corners_px[:, 1, 0] - labels.eyeball_px[:, 0]
    assert (outer > 12.053 * px_per_mm).all()
    place = 0.12 * labels.eyeball_px + 0.88 * labels.corners_px[:, 1]
    shown = [rendered.shown[row, int(2 * y), int(2 * x)] for row, (x, y) in enumerate(place)]
    assert shown.count(kernels.SCLERA) >= 14


def test_a_frame_has_the_iris_where_unityeyes_files_have_it(renderer: Renderer) -> None:
    labels = renderer.labels(range(64), Picture("frame", 480, 640))
    expected = np.array([320, 240]) + 0.1343 * 480 * labels.gaze[:, :2]
    misses = np.abs(labels.iris_px.mean(axis=1) - expected)
    assert misses.max() < 0.01 * 480


def test_a_crop_is_cut_as_ingestion_cuts_frames(renderer: Renderer) -> None:
    labels = renderer.labels(range(16), PICTURE)
    middle = (labels.lid_px.min(axis=1) + labels.lid_px.max(axis=1)) / 2
    np.testing.assert_allclose(middle, np.tile([60, 40], (16, 1)), atol=1e-9)
    inner = labels.caruncle_px.mean(axis=1, keepdims=True)
    width = np.linalg.norm(labels.lid_px - inner, axis=2).max(axis=1)
    np.testing.assert_allclose(width, 120 / 1.5)


def test_the_visual_axis_is_turned_towards_the_nose(assets: Assets) -> None:
    config = PLAIN.model_copy(update={"kappa_yaw_deg": 5.0, "kappa_pitch_deg": 0.0})
    labels = Renderer(assets, config, seed=1).labels(range(32), PICTURE)
    cosine = (labels.gaze * labels.visual_axis).sum(axis=1)
    assert np.degrees(np.arccos(cosine)).max() < 5.01
    # The nose of these left eyes is on the image's left.
    assert (labels.visual_axis[:, 0] < labels.gaze[:, 0]).all()


def test_gazes_follow_the_labels_that_are_given(assets: Assets) -> None:
    wanted = np.array([[0.3, -0.2, -np.sqrt(1 - 0.13)]])
    labels = Renderer(assets, PLAIN, 1, gaze_labels=wanted).labels(range(64), PICTURE)
    apart = np.degrees(np.arccos(labels.gaze @ wanted[0]))
    assert 0.5 < apart.mean() < 4


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match="distance_mm should be two numbers in order"):
        UnityEyesConfig(distance_mm=(900, 300))
