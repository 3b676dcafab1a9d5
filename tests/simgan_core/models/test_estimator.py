import os
import pickle
from pathlib import Path

import pytest
import torch

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.models.estimator import build_estimator, load_estimator, save_estimator

POOLED, COMPACT, PAPER, RESNET = (
    EstimatorConfig(architecture=name) for name in ("pooled", "compact", "paper", "resnet")
)


def test_the_papers_network_flattens_to_9600_values_at_35_by_55():
    estimator = build_estimator(PAPER, 35, 55, 1)
    assert [estimator.hidden[0].in_features, estimator.head.in_features] == [9600, 1000]


@pytest.mark.parametrize(
    "config", [POOLED, COMPACT, PAPER, RESNET], ids=lambda config: config.architecture
)
@pytest.mark.parametrize(("height", "width", "channels"), [(35, 55, 1), (36, 60, 1), (64, 64, 3)])
def test_the_answer_is_a_unit_vector_at_any_size(config, height, width, channels):
    images = torch.rand(3, channels, height, width) * 2 - 1
    gaze = build_estimator(config, height, width, channels)(images)
    assert gaze.dtype == torch.float32
    torch.testing.assert_close(gaze.norm(dim=1), torch.ones(3))


def test_the_papers_network_is_the_papers():
    estimator = build_estimator(PAPER, 35, 55, 1)
    shapes = [tuple(weight.shape) for weight in estimator.parameters() if weight.ndim > 1]
    assert shapes == [
        *((32, 1, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (80, 64, 3, 3), (192, 80, 3, 3)),
        *((1000, 9600), (3, 1000)),
    ]


@pytest.mark.parametrize("config", [POOLED, RESNET], ids=lambda config: config.architecture)
def test_an_eye_alone_and_among_others_gets_the_same_answer(config):
    estimator = build_estimator(config, 35, 55, 1)
    images = torch.rand(8, 1, 35, 55)
    estimator(images)  # normalisation learns what is usual
    together = estimator.eval()(images)
    torch.testing.assert_close(estimator(images[:1]), together[:1])


def test_a_head_pose_is_looked_at_where_it_is_asked_for():
    config = EstimatorConfig(architecture="compact", head_pose=True)
    estimator = build_estimator(config, 35, 55, 1)
    images, straight = torch.rand(2, 1, 35, 55), torch.zeros(2, 3)
    turned = torch.tensor([0.0, 0.5, 0.0]).expand(2, 3)
    rolled = torch.tensor([0.0, 0.0, 0.5]).expand(2, 3)
    assert not torch.equal(estimator(images, turned), estimator(images, straight))
    assert torch.equal(estimator(images, rolled), estimator(images, straight))


def test_a_network_of_joints_is_no_estimator_of_gaze():
    with pytest.raises(InputError, match="hourglass estimates joints, not gaze"):
        build_estimator(EstimatorConfig(architecture="hourglass"), 35, 55, 1)


def test_images_too_small_for_the_layers_are_refused():
    with pytest.raises(InputError, match="12×12 pixels are too small"):
        build_estimator(PAPER, 12, 12, 1)


def test_a_saved_estimator_answers_as_before(tmp_path):
    estimator = build_estimator(COMPACT, 35, 55, 1).eval()
    estimator.validation_error_deg = 4.5
    save_estimator(tmp_path / "estimator.pt", estimator)
    loaded = load_estimator(tmp_path / "estimator.pt")
    images = torch.rand(2, 1, 35, 55)
    assert torch.equal(loaded(images), estimator(images))
    assert (loaded.config, loaded.image_shape) == (COMPACT, (35, 55, 1))
    assert loaded.validation_error_deg == 4.5


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    path = tmp_path / "estimator.pt"
    for write in (torch.save, _pickle):
        write({"kind": "simgan estimator 2", "config": Hostile()}, path)
        with pytest.raises(InputError, match="not a whole estimator"):
            load_estimator(path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("damage", ["cut", "other weights", "another kind"])
def test_a_file_that_is_no_whole_estimator_is_refused(tmp_path, damage):
    path = tmp_path / "estimator.pt"
    save_estimator(path, build_estimator(COMPACT, 35, 55, 1))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        content = torch.load(path, weights_only=True)
        content |= {"kind": "a refiner"} if damage == "another kind" else {"weights": {}}
        torch.save(content, path)
    with pytest.raises(InputError, match=r"estimator\.pt is not a whole estimator"):
        load_estimator(path)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="there is no file nowhere"):
        load_estimator(Path("nowhere"))


def _pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))
