import numpy as np
import pytest
import torch

from simgan_core.compute.non_finite import NonFiniteLossError
from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.estimation.fitting import split_rows
from simgan_core.estimation.gaze_training import (
    fine_tune_estimator,
    gaze_loss,
    predict_gaze,
    train_estimator,
)
from simgan_core.gaze import angular_error_deg, gaze_from_pitchyaw, pitchyaw_from_gaze
from simgan_core.simulator.eyes import render, sample_scenes

SHORT = EstimatorConfig(steps=12, batch_size=16)


@pytest.fixture(scope="module")
def eyes() -> tuple[torch.Tensor, np.ndarray]:
    """A thousand rendered eyes and their gaze, which are far too few for a good estimator."""
    scenes = sample_scenes("synthetic", 1000, seed=5)
    images = render(scenes, "crop", 35, 55).images
    return torch.from_numpy(images), scenes.gaze.astype(np.float32)


def mean_error_deg(estimator, images, gaze) -> float:
    return float(angular_error_deg(predict_gaze(estimator, images.numpy()), gaze).mean())


def test_it_learns_to_tell_gaze_in_eyes_it_has_not_seen(eyes):
    images, gaze = eyes
    config = EstimatorConfig(steps=300, batch_size=32)
    estimator = train_estimator(config, images[:800], gaze[:800], seed=0)
    constant_deg = angular_error_deg(gaze[:800].mean(axis=0), gaze[800:]).mean()
    assert mean_error_deg(estimator, images[800:], gaze[800:]) < constant_deg / 2


def test_the_papers_network_learns_too(eyes):
    images, gaze = eyes
    told: list[float] = []
    config = EstimatorConfig(architecture="paper", steps=20, batch_size=8)
    train_estimator(config, images[:8], gaze[:8], 0, lambda _, __, loss: told.append(loss))
    assert told[-1] < told[0] / 2


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(eyes):
    images, gaze = eyes
    first, again, other = (
        predict_gaze(train_estimator(SHORT, images, gaze, seed), images[:50].numpy())
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_callers_randomness_and_data_stay_as_they_are(eyes):
    images, gaze = eyes
    before, state = images.clone(), torch.get_rng_state()
    train_estimator(SHORT, images, gaze, seed=0)
    assert torch.equal(images, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.gpu("estimators train in bf16 and predict on the GPU by default there")
@pytest.mark.parametrize("architecture", ["pooled", "compact", "paper", "resnet"])
def test_an_estimator_trained_on_a_gpu_learns_what_one_learns_on_a_cpu(eyes, architecture):
    images, gaze = eyes
    config = EstimatorConfig(architecture=architecture, steps=60, batch_size=32)
    errors_deg = [
        mean_error_deg(train_estimator(config, images.to(device), gaze, seed=0), images, gaze)
        for device in ("cpu", "cuda")
    ]
    assert errors_deg[1] == pytest.approx(errors_deg[0], rel=0.25)


def test_bf16_layers_learn_what_fp32_layers_learn(eyes):
    images, gaze = eyes
    errors_deg = [
        mean_error_deg(
            train_estimator(
                EstimatorConfig(steps=150, batch_size=32, precision=precision), images, gaze, seed=0
            ),
            images,
            gaze,
        )
        for precision in ("fp32", "bf16")
    ]
    assert errors_deg[1] == pytest.approx(errors_deg[0], rel=0.25)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "angle"},
        {"architecture": "resnet"},
        {"architecture": "compact"},
        {"degrade": True},
        {"head_pose": True},
    ],
)
def test_every_choice_of_the_recipe_learns(eyes, change):
    images, gaze = eyes
    pose = np.zeros((1000, 3)) if "head_pose" in change else None
    config = EstimatorConfig(steps=50, batch_size=16, **change)
    told: list[float] = []
    train_estimator(config, images, gaze, 0, lambda _, __, loss: told.append(loss), head_pose=pose)
    assert np.mean(told[-5:]) < 0.75 * np.mean(told[:5])


def test_the_angle_is_right_at_its_ends_and_its_slope_is_a_number():
    directions = torch.tensor([[0.0, 0.0, -1.0]] * 4)
    estimated = torch.tensor(
        [[0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [1e-4, 0.0, -1.0], [1.0, 0.0, 0.0]], requires_grad=True
    )
    angles = [gaze_loss(estimated[i : i + 1], directions[i : i + 1], "angle") for i in range(4)]
    torch.testing.assert_close(
        torch.stack(angles), torch.tensor([0.0, torch.pi, 1e-4, torch.pi / 2])
    )
    torch.stack(angles).sum().backward()
    assert estimated.grad is not None
    assert estimated.grad.isfinite().all()


def test_the_part_that_is_kept_out_says_when_to_stop(eyes):
    images, gaze = eyes
    told: list[int] = []
    # Labels at random: nothing can be learnt, so errors on the part kept out soon only grow.
    shuffled = np.random.default_rng(0).permutation(gaze)
    config = EstimatorConfig(steps=400, batch_size=16, patience=1, validation_share=0.2)
    estimator = train_estimator(
        config, images[:200], shuffled[:200], 0, lambda n, _, __: told.append(n)
    )
    assert told[-1] < 400
    assert estimator.validation_error_deg > 5


def test_the_weights_kept_are_those_that_did_best_on_the_part_kept_out(eyes):
    images, gaze = eyes
    estimator = train_estimator(SHORT, images, gaze, seed=3)
    kept_out = split_rows(1000, SHORT.validation_share, 3, torch.device("cpu")).validation
    assert len(kept_out) == 50
    assert mean_error_deg(estimator, images[kept_out], gaze[kept_out]) == pytest.approx(
        estimator.validation_error_deg, rel=1e-4
    )


def test_no_row_both_trains_and_says_when_to_stop():
    split = split_rows(100, 0.3, 5, torch.device("cpu"))
    assert len(split.validation) == 30
    assert sorted(torch.cat([split.train, split.validation]).tolist()) == list(range(100))
    assert len(split_rows(1, 0.5, 5, torch.device("cpu")).train) == 1


def test_no_image_is_in_both_sets_by_two_of_its_rows():
    of_images = split_rows(100, 0.3, 5, torch.device("cpu"))
    image_of_row = np.delete(np.repeat(np.arange(100), 3), [4, 5])
    split = split_rows(298, 0.3, 5, torch.device("cpu"), image_of_row)
    assert sorted(torch.cat([split.train, split.validation]).tolist()) == list(range(298))
    for rows, images in zip(vars(split).values(), vars(of_images).values(), strict=True):
        assert set(image_of_row[rows].tolist()) == set(images.tolist())


def test_micro_batches_add_up_to_the_batch(eyes):
    images, gaze = eyes
    config = EstimatorConfig(
        architecture="paper", steps=2, batch_size=96, precision="fp32", validation_share=0
    )
    losses: list[float] = []
    train_estimator(config, images, gaze, 0, lambda _, __, loss: losses.append(loss))
    assert 0 < losses[0] < 2  # of the whole batch, not of its parts summed


def test_fine_tuning_leaves_normalisation_as_it_was(eyes):
    images, gaze = eyes
    estimator = train_estimator(SHORT, images, gaze, seed=0)
    tuned = fine_tune_estimator(estimator, images[:3], gaze[:3], seed=0)
    for before, after in zip(estimator.buffers(), tuned.buffers(), strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(estimator.head.weight, tuned.head.weight)


def test_fine_tuning_learns_a_person_and_leaves_the_estimator_as_it_was(eyes):
    images, gaze = eyes
    estimator = train_estimator(EstimatorConfig(steps=150, batch_size=32), images, gaze, seed=0)
    before = predict_gaze(estimator, images[:100].numpy())
    # A person whose line of sight is 6° beside where the eye points.
    turned = gaze_from_pitchyaw(pitchyaw_from_gaze(gaze[:100]) + np.radians([0, 6]))
    tuned = fine_tune_estimator(estimator, images[:30], turned[:30], seed=0)
    unseen = images[30:100].numpy()
    error_deg = angular_error_deg(predict_gaze(tuned, unseen), turned[30:]).mean()
    assert error_deg < 0.8 * angular_error_deg(before[30:], turned[30:]).mean()
    np.testing.assert_array_equal(predict_gaze(estimator, images[:100].numpy()), before)


def test_missing_head_poses_are_refused(eyes):
    config = EstimatorConfig(head_pose=True)
    with pytest.raises(InputError, match="give head_pose"):
        train_estimator(config, *eyes, seed=0)
    with pytest.raises(InputError, match="a head pose is not a number"):
        train_estimator(config, *eyes, seed=0, head_pose=np.full((1000, 3), np.nan))


def test_progress_is_told_to_the_last_step(eyes):
    told: list[tuple[int, int]] = []
    config = EstimatorConfig(steps=205, batch_size=2, validation_share=0)
    train_estimator(
        config, *eyes, seed=0, on_progress=lambda step, total, _: told.append((step, total))
    )
    assert told[:2] == [(2, 205), (4, 205)]
    assert told[-1] == (205, 205)


def test_a_training_that_runs_away_is_stopped(eyes):
    runaway = EstimatorConfig(steps=100, batch_size=16, learning_rate=1e30)
    with pytest.raises(NonFiniteLossError, match="lower learning_rate"):
        train_estimator(runaway, *eyes, seed=0)


@pytest.mark.parametrize(
    ("gaze", "message"),
    [
        (np.zeros((999, 3)), r"found \[1000, 35, 55, 1\] and \[999, 3\]"),
        (np.zeros((1000, 3)), "zero or not a number"),
        (np.full((1000, 3), np.nan), "zero or not a number"),
    ],
)
def test_labels_that_do_not_fit_are_refused(eyes, gaze, message):
    with pytest.raises(InputError, match=message):
        train_estimator(SHORT, eyes[0], gaze, seed=0)


def test_predictions_follow_the_rows_whatever_the_batch_and_memory(eyes):
    images, gaze = eyes
    estimator = train_estimator(SHORT, images, gaze, seed=0)
    read_only = images[:50].numpy()
    read_only.flags.writeable = False
    np.testing.assert_allclose(
        predict_gaze(estimator, read_only, batch_size=7),
        predict_gaze(estimator, read_only),
        atol=1e-6,
    )
    assert predict_gaze(estimator, read_only[:0]).shape == (0, 3)


def test_images_of_another_size_are_refused(eyes):
    images, gaze = eyes
    estimator = train_estimator(SHORT, images, gaze, seed=0)
    with pytest.raises(InputError, match=r"for images \[35, 55, 1\]"):
        predict_gaze(estimator, images[:3, 1:].numpy())


def test_labels_are_read_in_the_one_convention(eyes):
    images, _ = eyes
    up_and_left = gaze_from_pitchyaw(np.radians([10.0, 20.0]))
    gaze = np.tile(up_and_left, (len(images), 1))
    config = EstimatorConfig(steps=150, batch_size=16)
    answers = predict_gaze(train_estimator(config, images, gaze, seed=0), images.numpy())
    assert angular_error_deg(answers, up_and_left).mean() < 1.5


def test_weighted_rows_are_resampled_within_either_part():
    weights = np.where(np.arange(100) < 50, 1.9, 0.1)
    split = split_rows(100, 0.3, 5, torch.device("cpu"))
    resampled = split.resampled(weights, seed=0)
    for drawn, rows in ((resampled.train, split.train), (resampled.validation, split.validation)):
        assert len(drawn) == len(rows)
        assert set(drawn.tolist()) <= set(rows.tolist())
        assert (drawn < 50).float().mean() > 0.85
    assert len(split_rows(10, 0.0, 5, torch.device("cpu")).resampled(weights, 0).validation) == 0


def test_weights_change_what_is_learnt_and_equal_ones_do_not(eyes):
    images, gaze = eyes
    plain, alike, weighted = (
        predict_gaze(train_estimator(SHORT, images, gaze, 1, weights=each), images[:50].numpy())
        for each in (None, np.ones(1000), np.linspace(0.1, 1.9, 1000))
    )
    np.testing.assert_array_equal(plain, alike)
    assert not np.array_equal(plain, weighted)
