from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.config import LandmarkTraining
from simgan_core.errors import InputError
from simgan_core.landmarks import training
from simgan_core.landmarks.examples import Examples, simulated_examples
from simgan_core.landmarks.model import LandmarkModel
from simgan_core.landmarks.training import train_landmarks


def toy_eyes(count: int, seed: int) -> Examples:
    """A bright lens with a dark disc: corners, pupil and iris are where the drawing has them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :72] + 0.5
    images, points = [], []
    for _ in range(count):
        middle = np.array([36, 24]) + rng.uniform(-3, 3, 2)
        wide, disc = rng.uniform(18, 22), rng.uniform(5, 7)
        lens = ((x - middle[0]) / wide) ** 2 + np.abs(y - middle[1]) / 10 < 1
        iris = np.hypot(x - middle[0], y - middle[1]) < disc
        images.append(np.where(iris, 30, np.where(lens, 220, 120)) + rng.normal(0, 4, x.shape))
        aside = np.array([[-wide, 0], [wide, 0], [0, 0], [-disc, 0], [disc, 0]])
        points.append(middle + aside)
    return Examples(np.clip(images, 0, 255).astype(np.uint8), np.array(points, np.float32))


def train(steps: int, examples: Examples, checkpoint: Path | None = None) -> LandmarkModel:
    config = LandmarkTraining(steps=steps, batch_size=16, learning_rate=5e-3)
    return LandmarkModel(train_landmarks(config, [examples], lambda *_: None, checkpoint))


def test_it_learns_a_toy() -> None:
    model, unseen = train(200, toy_eyes(200, 0)), toy_eyes(40, 1)
    found = model.predict(unseen.images[..., None])
    off = np.linalg.norm(found.points - unseen.points, axis=2)
    assert np.median(off[:, :2]) < 3.0
    assert np.median(off[:, 2:]) < 2.0
    assert found.confident.mean() > 0.9


def test_a_resumed_training_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 2)
    examples, checkpoint = toy_eyes(30, 0), tmp_path / "state"

    class KilledError(Exception):
        pass

    def killed(step: int, total: int, loss: float) -> None:
        if step == 5:
            raise KilledError

    config = LandmarkTraining(steps=6, batch_size=16, learning_rate=5e-3)
    with pytest.raises(KilledError):
        train_landmarks(config, [examples], killed, checkpoint)
    assert train(6, examples, checkpoint).digest == train(6, examples).digest


def test_another_trainings_checkpoint_is_refused(tmp_path: Path) -> None:
    train(2, toy_eyes(20, 0), tmp_path / "state")
    with pytest.raises(InputError, match="other settings or examples"):
        train(2, toy_eyes(20, 1), tmp_path / "state")


def test_simulated_eyes_have_their_corners_on_either_side_of_the_pupil() -> None:
    for domain in ("synthetic", "real"):
        eyes = simulated_examples(domain, 8, seed=3)
        x = eyes.points[..., 0]
        assert (x[:, 0] < x[:, 3]).all()
        assert (x[:, 4] < x[:, 1]).all()
        assert ((eyes.points > 0) & (eyes.points < [eyes.images.shape[2], 48])).all()


def test_examples_without_points_are_refused() -> None:
    with pytest.raises(InputError, match=r"finite points \[N, 5, 2\]"):
        Examples(np.zeros((2, 8, 8), np.uint8), np.full((2, 5, 2), np.nan, np.float32))


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train(1, toy_eyes(20, 0))
    assert torch.equal(torch.rand(1), expected)
