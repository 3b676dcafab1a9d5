from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.errors import InputError
from simgan_core.landmarks.examples import simulated_examples
from simgan_core.landmarks.model import DEFAULT_MODEL, LandmarkModel
from simgan_core.landmarks.network import LandmarkNetwork

DEFAULT_DIGEST = "6551fcec948e83f4a19c857b65b0bbfec05578f24ba4a71e464b6c28e7038d6c"


def new_model(seed: int = 0) -> LandmarkModel:
    torch.manual_seed(seed)
    return LandmarkModel(LandmarkNetwork())


def test_a_model_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    model = new_model()
    model.save(tmp_path / "model.pt")
    assert LandmarkModel.load(tmp_path / "model.pt").digest == model.digest


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        LandmarkModel.load(tmp_path / "none.pt")
    (tmp_path / "other.pt").write_bytes(b"not weights")
    with pytest.raises(InputError, match="damaged"):
        LandmarkModel.load(tmp_path / "other.pt")


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    new_model().save(path)
    content = torch.load(path, weights_only=True)
    content["weights"]["maps.bias"] += 1
    torch.save(content, path)
    with pytest.raises(InputError, match="not the ones that were saved"):
        LandmarkModel.load(path)


def test_landmarks_of_an_image_do_not_depend_on_the_others() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 36, 60, 1), np.uint8)
    model = LandmarkModel.load()
    together = model.predict(images)
    for row in (0, 31, 32, 69):
        alone = model.predict(images[row : row + 1])
        assert np.array_equal(alone.points[0], together.points[row])
        assert alone.spread[0, 0] == together.spread[row, 0]


def test_number_of_threads_changes_no_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 36, 60, 1), np.uint8)
    model, num_threads = LandmarkModel.load(), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(model.predict(images).points)
    finally:
        torch.set_num_threads(num_threads)
    assert np.array_equal(*found)


def test_no_images_have_no_landmarks() -> None:
    assert new_model().predict(np.zeros((0, 8, 8, 1), np.uint8)).points.shape == (0, 5, 2)


def test_sixteen_bits_and_colour_are_eyes_too() -> None:
    eyes, model = simulated_examples("synthetic", 4, seed=1).images[..., None], LandmarkModel.load()
    grey = model.predict(eyes).points
    deep = model.predict(eyes.astype(np.uint16) * 257).points
    colour = model.predict(np.repeat(eyes, 3, axis=3)).points
    assert grey == pytest.approx(deep, abs=0.05)
    assert grey == pytest.approx(colour, abs=0.05)


def test_the_products_model_is_the_recorded_one() -> None:
    assert LandmarkModel.load().digest == DEFAULT_DIGEST
    assert DEFAULT_MODEL.stat().st_size < 1_000_000


@pytest.mark.parametrize("domain", ["synthetic", "real"])
def test_the_products_model_finds_the_corners_of_eyes_it_was_not_trained_on(domain: str) -> None:
    eyes = simulated_examples(domain, 100, seed=99)  # type: ignore[arg-type]
    found = LandmarkModel.load().predict(eyes.images[..., None])
    off = np.linalg.norm((found.points - eyes.points)[:, :2].mean(axis=1), axis=1)
    assert np.median(off) * 55 / eyes.images.shape[2] < 1.0
    assert found.confident.mean() > 0.95


def test_noise_is_no_eye() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 35, 55, 1), np.uint8)
    assert LandmarkModel.load().predict(noise).confident.mean() < 0.3
