"""Refraction by the lens of glasses: exact labels of what is seen through it."""

import numpy as np
import pytest

from simgan_core.simulator.unityeyes import eyeball
from simgan_core.simulator.unityeyes.assets import Assets
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.placement import Picture, Placed, place
from simgan_core.simulator.unityeyes.render import Rendered, Renderer, pupil_radius
from simgan_core.simulator.unityeyes.scenes import sample_scenes
from tasks.simulation.unityeyes_assets import load_assets
from tests.unityeyes_folder import write_assets

OPEN = UnityEyesConfig(
    glasses_share=1, makeup_share=0, squint_share=0, closing_deg=(-8, -6), eye_pitch_range_deg=12,
    eye_yaw_range_deg=18, camera_pitch_range_deg=8, camera_yaw_range_deg=15,
)  # fmt: skip
FRAME, CROP = Picture("frame", 120, 160, 2), Picture("crop", 80, 120, 2)
PUPIL = 3


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """Skins of noise on a small mesh."""
    return load_assets(str(write_assets(tmp_path_factory.mktemp("assets"))))


def test_rays_towards_an_image_are_bent_to_the_point(assets: Assets) -> None:
    spectacles = _placed(assets, OPEN, CROP).geometry.spectacles
    rng = np.random.default_rng(0)
    points = spectacles.centre[:, None] + rng.uniform([-8, -8, 8], [8, 8, 40], (32, 20, 3))
    origin, direction, passes = spectacles.bent(spectacles.images(points))
    assert passes.mean() > 0.9
    away = points - origin
    misses = np.linalg.norm(np.cross(away, direction), axis=2)
    assert misses[passes].max() < 1e-9


def test_a_lens_shows_what_is_on_its_axis_where_lenses_are_taught_to(assets: Assets) -> None:
    config = OPEN.model_copy(update={"lens_power_dpt": (-4.0, -4.0)})
    spectacles = _placed(assets, config, CROP).geometry.spectacles
    axis = spectacles.axes[:, 2]
    image = spectacles.images((spectacles.optical_centre + 14 * axis)[:, None])[:, 0]
    behind = ((image - spectacles.optical_centre) * axis).sum(axis=1)
    np.testing.assert_allclose(1 / behind, 1 / 14 + 0.004)


def test_minus_lenses_make_eyes_smaller_and_plus_lenses_larger(assets: Assets) -> None:
    width = {}
    for power in (-6.0, 0.0, 3.0):
        config = OPEN.model_copy(update={"lens_power_dpt": (power, power)})
        width[power] = np.ptp(_placed(assets, config, FRAME).labels.iris_px[..., 0], axis=1)
    smaller, larger = width[-6.0] / width[0.0], width[3.0] / width[0.0]
    assert 0.86 < smaller.min() < smaller.max() < 0.95
    assert 1.02 < larger.min() < larger.max() < 1.1


@pytest.mark.parametrize("power", [-6.0, 3.0])
def test_samples_show_the_pupil_where_bent_rays_meet_it(assets: Assets, power: float) -> None:
    pytest.importorskip("numba")
    config = OPEN.model_copy(update={"lens_power_dpt": (power, power)})
    rendered = Renderer(assets, config, seed=1).render(range(32), CROP, masks=True)
    expected = _pupil_by_rays(_placed(assets, config, CROP))
    clear = rendered.iris_visible > 0.99
    assert clear.sum() >= 5
    shown = (rendered.shown == PUPIL)[clear]
    assert shown.mean() > 0.002
    assert (shown != expected[clear]).mean() < 2e-4


def test_the_pupil_label_is_the_middle_of_the_pupil_behind_the_lens(assets: Assets) -> None:
    pytest.importorskip("numba")
    rendered = Renderer(assets, OPEN, seed=1).render(range(48), CROP, masks=True)
    assert _middle_misses(rendered).max() < 0.15


def _placed(assets: Assets, config: UnityEyesConfig, picture: Picture) -> Placed:
    """Return the first 32 rows of seed 1."""
    scenes = sample_scenes(
        config, 1, np.arange(32), num_skins=len(assets.skins), num_irises=len(assets.irises),
        brown_iris=assets.brown_iris, deviation=assets.deviation,
    )  # fmt: skip
    return place(assets, scenes, picture)


def _pupil_by_rays(placed: Placed) -> np.ndarray:
    """Samples whose rays meet the pupil, in double precision, bool [N, H, W]; lids hide none."""
    height, width = CROP.height * CROP.samples, CROP.width * CROP.samples
    y, x = (np.indices((height, width)) + 0.5) / CROP.samples
    geometry, scenes = placed.geometry, placed.scenes
    found = np.zeros((len(scenes), height, width), bool)
    aside = np.stack([x.ravel(), y.ravel()], axis=1) - placed.centre_px[:, None]
    aside = aside / placed.focal_px[:, None, None]
    towards = np.concatenate([aside, np.ones_like(aside[..., :1])], axis=2)
    origin, direction, _ = geometry.spectacles.bent(towards)
    for row in range(len(scenes)):
        axis = np.broadcast_to(geometry.axes[row, 2], direction[row].shape)
        eye, index = geometry.eye[row], scenes.refractive_index[row]
        met, enters = eyeball.refracted_to_iris(
            origin[row] - eye, direction[row], axis, np.full(len(axis), index)
        )
        off = np.linalg.norm(met - eyeball.IRIS_DEPTH_MM * axis, axis=1)
        inside = enters & (off < pupil_radius(scenes.pupil_size[row]))
        found[row] = inside.reshape(height, width)
    return found


def _middle_misses(rendered: Rendered) -> np.ndarray:
    """Distances in pixels from pupils' labels to the middle of their samples."""
    misses = []
    for row in np.flatnonzero(rendered.iris_visible > 0.99):
        y, x = np.nonzero(rendered.shown[row] == PUPIL)
        middle = (np.array([x.mean(), y.mean()]) + 0.5) / CROP.samples
        misses.append(np.linalg.norm(middle - rendered.labels.pupil_px[row]))
    assert len(misses) >= 10
    return np.array(misses)
