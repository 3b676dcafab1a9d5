import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.simulator.hands import (
    CUBE_MM,
    JOINTS,
    depth_of_capsules,
    render_hands,
    shoot_hands,
)


def test_joints_lie_on_the_hand_and_behind_its_surface():
    hands = render_hands("synthetic", 40, seed=1)
    column, row = np.moveaxis(hands.joints_uvd[..., :2].astype(int).clip(0, 63), 2, 0)
    depth = hands.images[np.arange(40)[:, None], row, column, 0]
    assert (depth < 255).mean() > 0.99
    surface_mm = depth * (CUBE_MM / 254)
    on_hand = depth < 255
    assert (surface_mm[on_hand] < hands.joints_uvd[..., 2][on_hand] + 2).all()


def test_a_hand_depends_on_domain_seed_and_number_alone():
    many, few = render_hands("real", 20, seed=4), render_hands("real", 5, seed=4)
    np.testing.assert_array_equal(many.images[:5], few.images)
    np.testing.assert_array_equal(many.joints_uvd[:5], few.joints_uvd)
    assert not np.array_equal(render_hands("real", 5, seed=5).images, few.images)


def test_a_larger_picture_shows_the_same_hand():
    small, large = render_hands("synthetic", 3, 2, 64, 64), render_hands("synthetic", 3, 2, 128, 96)
    scale = np.array([96 / 64, 128 / 64, 1])
    np.testing.assert_allclose(large.joints_uvd, small.joints_uvd * scale, rtol=1e-5)
    shares = [(hands.images < 255).mean() for hands in (small, large)]
    assert shares[0] == pytest.approx(shares[1], rel=0.03)


def test_a_capsule_is_round_and_as_deep_as_its_radius():
    start, end = np.array([[-40.0, 0, 0]]), np.array([[40.0, 0, 0]])
    depth = depth_of_capsules(start, end, np.array([20.0]), 300, 300)
    assert depth[149:151, 150].min() == pytest.approx(-20, abs=0.02)
    assert depth[150, 205] == pytest.approx(-np.sqrt(400 - 15.5**2 - 0.5**2), abs=1e-6)
    assert np.isinf(depth[150, 211])
    assert np.isinf(depth[171, 150])


def test_the_real_domain_has_holes_and_people():
    hands = render_hands("real", 30, seed=0)
    assert hands.person.max() == 14
    clean = render_hands("synthetic", 30, seed=0)
    holes = [
        (hand[:, :, :-2] & ~hand[:, :, 1:-1] & hand[:, :, 2:]).sum()
        for hand in (each.images[..., 0] < 255 for each in (hands, clean))
    ]
    assert holes[0] > 2 * holes[1]
    assert hands.joints_uvd.shape == (30, len(JOINTS), 3)


def test_real_hands_are_at_distances_of_their_own():
    shots = list(shoot_hands("real", 8, seed=0))
    sizes = [len(shot.depth_mm) for shot in shots]
    assert len(set(sizes)) == 8
    for shot, size in zip(shots, sizes, strict=True):
        assert size == pytest.approx(588 * CUBE_MM / shot.distance_mm, abs=1)
        known = shot.depth_mm[np.isfinite(shot.depth_mm)]
        assert (np.abs(known - shot.distance_mm) < CUBE_MM / 2).all()


def test_no_hands_are_refused():
    with pytest.raises(InputError, match="count ≥ 1"):
        render_hands("real", 0, seed=0)
