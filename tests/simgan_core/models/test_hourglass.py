import numpy as np
import pytest
import torch

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.estimation.joint_training import predict_joints, train_joint_estimator
from simgan_core.models.hourglass import Hourglass, heat_map_loss, heat_maps, joints_from_heat_maps
from simgan_core.simulator.hands import render_hands
from simgan_core.stats.bootstrap import joint_errors_px

SHORT = EstimatorConfig(architecture="hourglass", num_features=8, steps=3, batch_size=4)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (224, 224), (48, 96)])
def test_a_joint_drawn_as_a_heat_map_is_found_where_it_was(height, width):
    share = torch.rand(6, 14, 2, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    joints = share * torch.tensor([width, height])
    found = joints_from_heat_maps(heat_maps(joints, height, width).log(), height, width)
    assert joints.std() > 5
    torch.testing.assert_close(found, joints, atol=2e-3, rtol=0)


def test_a_joint_at_the_border_keeps_its_cell():
    logs = torch.full((1, 1, 64, 64), -9.0)
    logs[0, 0, 0, 63] = 0
    torch.testing.assert_close(joints_from_heat_maps(logs, 64, 64), torch.tensor([[[63.5, 0.5]]]))


def test_two_stacks_give_64_by_64_maps_of_any_image():
    network = Hourglass(num_joints=14, channels=1, num_features=8)
    assert network(torch.zeros(2, 1, 224, 224)).shape == (2, 2, 14, 64, 64)


def logs_of(u: float) -> torch.Tensor:
    """The logarithms of the heat map of a joint at (u, 30); a cell of nothing would be −∞."""
    return heat_maps(torch.tensor([[[u, 30.0]]]), 64, 64).clamp(min=1e-9).log()


def test_the_loss_is_least_where_the_map_is_the_target():
    target = heat_maps(torch.tensor([[[20.0, 30.0]]]), 64, 64)
    right, beside = (heat_map_loss(logs_of(x)[:, None], target) for x in (20.0, 22.0))
    assert right < beside


def test_it_learns_where_a_dot_is():
    rng = np.random.default_rng(0)
    dots = rng.uniform(12, 52, (48, 1, 2))
    place = np.arange(64) + 0.5
    gaps = (place - dots[..., :1]) ** 2, (place - dots[..., 1:]) ** 2
    bright = np.exp(-(gaps[0] + gaps[1].transpose(0, 2, 1)) / 18)
    images = (255 * bright).astype(np.uint8)[..., None]
    config = EstimatorConfig(
        architecture="hourglass", num_features=8, steps=40, batch_size=4, learning_rate=1e-2,
        validation_share=0,
    )  # fmt: skip
    network = train_joint_estimator(config, torch.from_numpy(images), dots, seed=0)
    errors_px = joint_errors_px(predict_joints(network, images), dots)
    assert np.median(errors_px) < 3


def test_the_same_seed_gives_the_same_joints():
    hands = render_hands("synthetic", 12, seed=1)
    images = torch.from_numpy(hands.images)
    first, again, other = (
        predict_joints(train_joint_estimator(SHORT, images, hands.joints_uvd, seed), hands.images)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_joints_that_do_not_fit_are_refused():
    images = torch.zeros(3, 64, 64, 1, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"found \[3, 64, 64, 1\] and \[2, 14, 3\]"):
        train_joint_estimator(SHORT, images, np.zeros((2, 14, 3)), 0)
    with pytest.raises(InputError, match="not a number"):
        train_joint_estimator(SHORT, images, np.full((3, 14, 3), np.nan), 0)
