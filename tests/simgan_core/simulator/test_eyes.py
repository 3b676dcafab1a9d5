import dataclasses

import numpy as np
import pytest

from simgan_core.data.preprocess import equalize
from simgan_core.errors import InputError
from simgan_core.gaze import pitchyaw_from_gaze
from simgan_core.simulator.appearance import REAL, SYNTHETIC, Camera, Labels, Person, Shot
from simgan_core.simulator.eyes import Rendered, render, sample_scenes

WHOLE_LABEL_RANGE = Labels(pitch_deg=(-26, 11), yaw_deg=(-30, 30))
PLAIN = SYNTHETIC.model_copy(
    update={
        "labels": WHOLE_LABEL_RANGE,
        "person": Person(
            iris_albedo=(0.25, 0.32),
            iris_contrast=(0, 0),
            lash_darkness=(0, 0),
            skin_texture=(0, 0),
        ),
        "shot": Shot(
            ambient=(0.6, 0.8),
            side_shadow=(0, 0),
            light_slope=(0, 0),
            lid_shadow=(0, 0),
            glint=(0, 0),
            screen_veil=(0, 0),
        ),
    }
)
"""Without noise, reflections, lashes and shadows: nothing is as dark as the pupil but the pupil."""


def dark_centroids(images: np.ndarray) -> np.ndarray:
    """Return the centroid [N, 2] as x, y of what is darker than level 60, weighted by darkness."""
    darkness = (60 - images[..., 0].astype(float)).clip(min=0)
    _, height, width = darkness.shape
    total = darkness.sum(axis=(1, 2))
    x = (darkness.sum(axis=1) @ (np.arange(width) + 0.5)) / total
    y = (darkness.sum(axis=2) @ (np.arange(height) + 0.5)) / total
    return np.stack([x, y], axis=-1)


@pytest.mark.parametrize(
    ("framing", "size", "count"), [("crop", (35, 55), 800), ("frame", (120, 160), 400)]
)
def test_the_dark_pupil_lies_where_the_label_says_over_the_whole_label_range(framing, size, count):
    scenes = sample_scenes("real", count, seed=3, appearance=PLAIN)
    rendered = render(scenes, framing, *size)
    in_view = rendered.pupil_visible == 1  # the others' visible part is not centred on the pupil
    assert in_view.mean() > 0.8
    pitchyaw_deg = np.degrees(pitchyaw_from_gaze(scenes.gaze[in_view]))
    assert pitchyaw_deg[:, 0].min() < -24 < 9 < pitchyaw_deg[:, 0].max()
    assert pitchyaw_deg[:, 1].min() < -28 < 28 < pitchyaw_deg[:, 1].max()
    miss_px = np.linalg.norm(dark_centroids(rendered.images) - rendered.pupil_px, axis=1)[in_view]
    assert miss_px.max() < 0.5


@pytest.mark.parametrize("domain", ["synthetic", "real"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(domain):
    first, again, other = (
        render(sample_scenes(domain, 5, seed=seed), "crop").images for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(("domain", "framing"), [("synthetic", "frame"), ("real", "crop")])
def test_a_range_of_scenes_is_rendered_as_in_the_whole(domain, framing):
    whole = render(sample_scenes(domain, 40, seed=9), framing)
    part = render(sample_scenes(domain, 7, seed=9, start=21), framing)
    for field in dataclasses.fields(Rendered):
        np.testing.assert_array_equal(
            getattr(part, field.name), getattr(whole, field.name)[21:28], err_msg=field.name
        )


def test_a_right_eye_is_a_left_eye_in_the_mirror():
    scenes = sample_scenes("real", 30, seed=4)
    as_left = dataclasses.replace(scenes, is_right=np.zeros(30, bool))
    right, left = render(scenes[scenes.is_right], "crop"), render(as_left[scenes.is_right], "crop")
    np.testing.assert_array_equal(right.images, left.images[:, :, ::-1])
    for name in ("pupil_px", "iris_px", "lid_px", "caruncle_px"):
        x, y = np.moveaxis(getattr(left, name), -1, 0)
        np.testing.assert_allclose(getattr(right, name), np.stack([60 - x, y], axis=-1), rtol=1e-5)
    mirror = np.where(scenes.is_right, -1, 1)
    np.testing.assert_array_equal(scenes.gaze[:, 0], mirror * scenes.traits["gaze_x"])
    np.testing.assert_array_equal(scenes.head_pose[:, 1], mirror * scenes.traits["head_y"])


def test_frames_keep_the_relation_of_unityeyes_between_iris_and_gaze():
    scenes = sample_scenes("synthetic", 200, seed=6)
    rendered = render(scenes, "frame")
    expected = [80, 60] + 0.1343 * 120 * scenes.gaze[:, :2]
    np.testing.assert_allclose(rendered.iris_px.mean(axis=1), expected, atol=0.1)


@pytest.mark.parametrize(("height", "width"), [(36, 60), (35, 55)])
def test_crops_are_centred_on_the_lids_and_an_eye_width_fills_two_thirds_of_55_to_35(height, width):
    unjittered = REAL.model_copy(
        update={"shot": REAL.shot.model_copy(update={"crop_jitter_px": 0, "crop_jitter_scale": 0})}
    )
    rendered = render(sample_scenes("real", 50, 8, appearance=unjittered), "crop", height, width)
    centre = (rendered.lid_px.max(axis=1) + rendered.lid_px.min(axis=1)) / 2
    np.testing.assert_allclose(centre, np.tile([width / 2, height / 2], (50, 1)), atol=1e-3)
    eye_width = np.linalg.norm(rendered.lid_px[:, 7] - rendered.caruncle_px.mean(axis=1), axis=1)
    np.testing.assert_allclose(eye_width, height * (55 / 35) / 1.5, rtol=1e-4)


def test_crops_of_badly_found_landmarks_are_off_by_the_jitter():
    rendered = render(sample_scenes("real", 400, seed=8), "crop")
    centre = (rendered.lid_px.max(axis=1) + rendered.lid_px.min(axis=1)) / 2
    np.testing.assert_allclose(centre.std(axis=0), REAL.shot.crop_jitter_px, rtol=0.12)


def test_a_closing_lid_hides_the_pupil():
    visible = []
    for openness in (1.0, 0.2, -0.5):
        shot = SYNTHETIC.shot.model_copy(update={"openness": (openness, openness)})
        look = SYNTHETIC.model_copy(update={"shot": shot})
        scenes = sample_scenes("synthetic", 50, 1, appearance=look)
        visible.append(render(scenes, "crop").pupil_visible.mean())
    assert visible[0] > 0.9 > visible[1] > visible[2]


def test_real_people_come_in_turn_with_a_left_and_a_right_eye_and_keep_their_traits():
    scenes = sample_scenes("real", 60, seed=0)
    np.testing.assert_array_equal(scenes.person, np.arange(60) // 2 % 15)
    np.testing.assert_array_equal(scenes.is_right, np.arange(60) % 2 == 1)
    for name in Person.model_fields.keys() & scenes.traits.keys():
        np.testing.assert_array_equal(scenes.traits[name][:30], scenes.traits[name][30:])
    assert len(np.unique(scenes.traits["iris_albedo"])) == 15


def test_with_more_people_the_first_ones_stay_who_they_were():
    few, many = (sample_scenes("real", 80, seed=5, num_people=n) for n in (15, 40))
    np.testing.assert_array_equal(many.person, np.arange(80) // 2)
    np.testing.assert_array_equal(few.traits["iris_albedo"][:30], many.traits["iris_albedo"][:30])
    assert len(np.unique(many.traits["iris_albedo"])) == 40


@pytest.mark.parametrize("wrong", [{"count": 0}, {"num_people": 0}, {"seed": -1}, {"start": -2}])
def test_numbers_of_no_scenes_are_refused(wrong):
    with pytest.raises(InputError, match="count ≥ 1, num_people ≥ 1, seed ≥ 0 and start ≥ 0"):
        sample_scenes("real", **{"count": 1, "seed": 0, **wrong})


def test_an_upside_down_range_is_refused():
    with pytest.raises(ValueError, match="low ≤ high"):
        Shot(openness=(1.0, 0.5))


def test_labels_fill_their_range():
    for domain, labels in (("synthetic", SYNTHETIC.labels), ("real", REAL.labels)):
        scenes = sample_scenes(domain, 3000, seed=0)
        np.testing.assert_allclose(np.linalg.norm(scenes.gaze, axis=1), 1, atol=1e-6)
        pitchyaw_deg = np.degrees(pitchyaw_from_gaze(scenes.gaze))
        for values, bounds in zip(pitchyaw_deg.T, (labels.pitch_deg, labels.yaw_deg), strict=True):
            assert bounds[0] - 0.01 < values.min() < bounds[0] + 2
            assert bounds[1] - 2 < values.max() < bounds[1] + 0.01


@pytest.fixture(scope="module")
def equalized() -> dict[str, Rendered]:
    """Return 200 crops of each domain with equalised histograms: equal in tone."""
    crops = {d: render(sample_scenes(d, 200, seed=1), "crop") for d in ("synthetic", "real")}
    return {d: dataclasses.replace(crop, images=equalize(crop.images)) for d, crop in crops.items()}


def skin_levels(rendered: Rendered) -> np.ndarray:
    """Return the median level [N] of the skin under each eye."""
    return np.median(rendered.images[:, -5:, :, 0].astype(float), axis=(1, 2))


def test_with_equal_tones_whites_outshine_the_skin_in_the_synthetic_domain_alone(equalized):
    lead = {}
    for domain, rendered in equalized.items():
        images, each = rendered.images[..., 0].astype(float), np.arange(len(rendered.images))
        pupil = rendered.pupil_px[:, None]
        beside = (pupil + 1.25 * (rendered.iris_px - pupil)).astype(int)[:, [0, 16]]
        whites = images[each[:, None], beside[..., 1], beside[..., 0]]
        lead[domain] = np.percentile(whites.mean(axis=1) - skin_levels(rendered), [10, 50, 90])
    assert lead["synthetic"].min() > 0
    assert lead["synthetic"][1] > 60
    assert lead["real"][0] < -60
    assert abs(lead["real"][1]) < 30
    assert lead["real"][2] > 60


def test_real_people_differ_in_the_shade_of_their_eyes_and_in_the_sharpness_of_their_cameras():
    scenes = sample_scenes("real", 450, seed=1)
    rendered = render(scenes, "crop")
    images = rendered.images[..., 0].astype(float)
    shade = images[:, 12:24, 15:45].mean(axis=(1, 2)) - skin_levels(rendered)
    finest = (np.abs(np.fft.fft2(images)) ** 2)[:, 15:20, 25:35].mean(axis=(1, 2))
    people = [scenes.person == person for person in range(15)]
    assert np.std([shade[person].mean() for person in people]) > 20
    sharpness = [np.median(finest[person]) for person in people]
    assert max(sharpness) > 6 * min(sharpness)


def test_people_keep_their_cameras():
    scenes = sample_scenes("real", 60, seed=0)
    for name in Camera.model_fields:
        np.testing.assert_array_equal(scenes.traits[name][:30], scenes.traits[name][30:])
    assert len(np.unique(scenes.traits["blur_px"])) == 15


def test_with_equal_tones_the_real_domain_is_still_blurred(equalized):
    def finest_power(images):
        spectra = np.abs(np.fft.fft2(images[..., 0].astype(float))) ** 2
        return np.median(spectra[:, 15:20, 25:35])

    synthetic, real = (finest_power(equalized[d].images) for d in ("synthetic", "real"))
    assert synthetic > 3 * real


def test_images_of_the_real_domain_are_equalized():
    images = render(sample_scenes("real", 20, seed=1), "crop").images
    np.testing.assert_allclose(equalize(images).astype(int), images, atol=1)


@pytest.mark.parametrize("framing", ["frame", "crop"])
def test_images_use_the_range_of_levels_and_landmarks_lie_inside(framing):
    rendered = render(sample_scenes("synthetic", 100, seed=2), framing)
    _, height, width, channels = rendered.images.shape
    assert rendered.images.dtype == np.uint8
    assert channels == 1
    assert np.median(np.ptp(rendered.images, axis=(1, 2))) > 120
    for name in ("pupil_px", "iris_px", "lid_px", "caruncle_px"):
        points = getattr(rendered, name).reshape(-1, 2)
        assert points.min() > 0
        assert (points < [width, height]).all()
