import io

import numpy as np
import pytest
from PIL import Image

from simgan_core.simulator import camera, scene_random
from simgan_core.simulator.eyes import render, sample_scenes


@pytest.fixture(scope="module")
def eyes() -> np.ndarray:
    images = render(sample_scenes("synthetic", 3, seed=5), "crop", 40, 64).images
    return images[..., 0].astype(np.float32)


@pytest.mark.parametrize("quality", [20, 60, 90])
def test_jpeg_loses_what_a_jpeg_library_loses(eyes, quality):
    decoded = camera.jpeg(eyes, np.full(3, quality, np.float32), np.zeros((3, 2), int))
    for ours, eye in zip(decoded, eyes, strict=True):
        file = io.BytesIO()
        Image.fromarray(eye.astype(np.uint8)).save(file, "JPEG", quality=quality)
        # The library's integer DCT rounds ties its own way, and a few blocks differ by a step.
        difference = np.abs(ours - np.array(Image.open(file), float))
        assert np.mean(difference < 1) > 0.9
        assert np.abs(ours - eye).max() > 2


def test_jpeg_blocks_lie_where_the_offset_says(eyes):
    inner = camera.jpeg(eyes[:, 3:, 5:], np.full(3, 30, np.float32), np.tile([3, 5], (3, 1)))
    whole = camera.jpeg(eyes, np.full(3, 30, np.float32), np.zeros((3, 2), int))
    np.testing.assert_allclose(inner[:, 5:-8, 3:-8], whole[:, 8:-8, 8:-8], atol=1e-3)


def test_blur_spreads_a_point_by_its_deviation_and_keeps_flat_fields():
    point = np.zeros((2, 41, 51), np.float32)
    point[:, 20, 25] = 1
    place = np.arange(51) - 25
    profiles = camera.blur(point, np.array([0.0, 1.5], np.float32)).sum(axis=1)
    np.testing.assert_allclose(np.sqrt(profiles @ place**2), [0, 1.5], atol=1e-3)
    flat = camera.blur(np.ones((1, 9, 9), np.float32), np.array([3.0], np.float32))
    np.testing.assert_allclose(flat, 1, rtol=1e-6)


def test_noise_grows_with_the_root_of_radiance():
    keys = scene_random.derive_keys(0, "test", np.arange(2))
    radiance = np.stack([np.zeros((90, 90)), np.full((90, 90), 4.0)]).astype(np.float32)
    shot, read = np.full(2, 0.02, np.float32), np.full(2, 0.01, np.float32)
    noise = camera.add_noise(radiance, keys, shot, read) - radiance
    np.testing.assert_allclose(
        noise.std(axis=(1, 2)), [0.01, np.sqrt(0.01**2 + 4 * 0.02**2)], rtol=0.05
    )


def test_exposure_brings_every_image_to_its_mean(eyes):
    exposed = camera.expose(eyes, np.array([0.1, 0.2, 0.3], np.float32))
    np.testing.assert_allclose(exposed.mean(axis=(1, 2)), [0.1, 0.2, 0.3], rtol=1e-5)
