"""Adaptation in comparisons: teachers of one or two simulators, students on unlabelled images."""

from pathlib import Path

import numpy as np
import pytest

from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from storage.reader import open_dataset
from storage.schema import GAZE, HEAD_POSE
from tasks.comparison.arms import ArmName, ComparisonConfig
from tasks.comparison.estimate import estimate
from tasks.comparison.kept_files import pseudo_labels_file
from tasks.comparison.label_prior import match_labels
from tasks.comparison.plan import Comparison, PseudoLabelsRef
from tasks.comparison.planning import plan_comparison
from tasks.comparison.predictions import read_predictions
from tasks.comparison.pseudo_labels import teach_students
from tasks.comparison.reporting.analysis import results_from_predictions
from tasks.comparison.reporting.results import Results
from tasks.comparison.reporting.tables import table
from tasks.runtime.dataset_cache import DatasetCache
from tests.tasks.comparison.conftest import write_dataset

QUICK = EstimatorConfig(steps=6, batch_size=8)
ARMS: tuple[ArmName, ...] = ("synthetic_unmatched", "synthetic", "adapted", "adapted_refined")


def plan(
    eyes: dict[str, str],
    arms: tuple[ArmName, ...] = ARMS,
    estimator: EstimatorConfig = QUICK,
    teachers: tuple[str, ...] = (),
) -> Comparison:
    config = ComparisonConfig(arms=arms, methods=(), shares=())
    places = eyes["synthetic"], eyes["refined"], eyes["real"], eyes["test"]
    return plan_comparison.fn(DatasetCache(), *places, 1, estimator, config, None, teachers)


@pytest.fixture
def other_simulator(eyes: dict[str, str], tmp_path: Path) -> str:
    """Eyes as of another renderer: those of the synthetic dataset, darker."""
    block = open_dataset(eyes["synthetic"]).load()
    labels = {"gaze": (GAZE, block.labels["gaze"])}
    return write_dataset(tmp_path / "u.zarr", "synthetic", block.images // 2, block.ids, labels)


def results_of(comparison: Comparison) -> Results:
    datasets = DatasetCache()
    estimates = [estimate.fn(job, comparison, datasets) for job in comparison.jobs]
    return results_from_predictions(
        comparison, read_predictions(estimates, comparison.measure), None
    )


def taught(comparison: Comparison) -> Comparison:
    return teach_students.fn(comparison, DatasetCache())


def labels_of(comparison: Comparison, arm: str) -> PseudoLabelsRef:
    (found,) = (each.pseudo_labels for each in comparison.arms if each.name == arm)
    assert found is not None
    return found


def test_students_learn_from_unlabelled_images_by_teachers_with_unmatched_labels(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = taught(match_labels.fn(plan(eyes), DatasetCache()))
    adapted = [arm for arm in comparison.arms if arm.teachers_of is not None]
    assert [arm.name for arm in adapted] == ["adapted", "adapted_refined"]
    assert all(arm.teachers_of == eyes["real"] and not arm.matched for arm in adapted)
    found = results_of(comparison)
    assert "adapting to unlabelled real images:" in found.verdict
    assert "adaptation by synthetic teachers" in found.verdict
    assert found.arms["adapted"].error != found.arms["adapted_refined"].error
    assert found.pseudo_labels["adapted"].agreement is None
    assert "centred among 20 look-alikes over 10 steps; labels pitch" in table(found)


def test_teachers_of_another_simulator_are_averaged_and_choose_the_centring(
    eyes: dict[str, str], home: Path, other_simulator: str
) -> None:
    alone = taught(plan(eyes))
    comparison = taught(plan(eyes, teachers=(other_simulator,)))
    both = labels_of(comparison, "adapted")
    assert comparison.id != alone.id
    assert both.num_sources == 2
    assert both.agreement is not None
    assert both.agreement_uncentred is not None
    assert both.agreement >= both.agreement_uncentred
    assert "2 simulators' estimators agree best" in str(both)
    kept, of_one = (
        np.load(pseudo_labels_file(labels_of(each, "adapted")))["pitchyaw_deg"]
        for each in (comparison, alone)
    )
    assert kept.shape == of_one.shape
    assert np.abs(kept - of_one).max() > 0.1
    # Two plain estimators of each dataset, none of them trained twice.
    assert len(list((home / "estimators").iterdir())) == 2 * 3


def test_teachers_of_both_are_weighted_by_eye_landmarks(eyes: dict[str, str], home: Path) -> None:
    trained = EstimatorConfig(steps=240, batch_size=16, architecture="compact")
    arms: tuple[ArmName, ...] = ("synthetic", "adapted", "adapted_refined", "adapted_both")
    comparison = taught(match_labels.fn(plan(eyes, arms, trained), DatasetCache()))
    both = labels_of(comparison, "adapted_both")
    assert both.refined_weight is not None
    assert 0 <= both.refined_weight <= 1
    assert f"weighted by eye landmarks, {both.refined_weight:.0%} refined" in str(both)
    assert both.metrics("adapted_both")["adapted_both.refined_weight"] == both.refined_weight
    assert labels_of(comparison, "adapted").refined_weight is None
    assert both.num_sources == 1
    # Two plain estimators of each dataset: the arm needs no teachers of its own.
    assert len(list((home / "estimators").iterdir())) == 2 * 2
    # Landmarks, centring and stacking are linear, and so is the whole.
    alone = [
        np.load(pseudo_labels_file(labels_of(comparison, name)))["pitchyaw_deg"]
        for name in ("adapted", "adapted_refined")
    ]
    kept = np.load(pseudo_labels_file(both))["pitchyaw_deg"]
    mixed = np.average(alone, axis=0, weights=[1 - both.refined_weight, both.refined_weight])
    np.testing.assert_allclose(kept, mixed, atol=1e-3)
    assert "daptation by teachers of both" in results_of(comparison).verdict


def test_look_alikes_have_like_head_poses_where_all_are_known(
    eyes: dict[str, str], home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    block = open_dataset(eyes["real"]).load()
    poses = np.random.default_rng(0).normal(0, 0.3, (len(block.ids), 3)).astype(np.float32)
    kept = {}
    for name, missing in (("all", []), ("some", [3])):
        given = poses.copy()
        given[missing] = np.nan
        label = {"head_pose": (HEAD_POSE, given)}
        place = write_dataset(tmp_path / f"{name}.zarr", "real", block.images, block.ids, label)
        comparison = taught(plan(eyes | {"real": place}, ("synthetic", "adapted")))
        labels = labels_of(comparison, "adapted")
        assert labels.by_head_pose == (name == "all")
        assert ("look-alikes of like head pose" in str(labels)) == labels.by_head_pose
        said = f"that of 1 of {len(poses)} unlabelled images is not known"
        assert (said in caplog.text) == (name == "some")
        kept[name] = np.load(pseudo_labels_file(labels))["pitchyaw_deg"]
    assert np.abs(kept["all"] - kept["some"]).max() > 0.01


def test_both_eyes_of_a_photograph_teach_where_ids_name_them(
    eyes: dict[str, str], home: Path, tmp_path: Path
) -> None:
    block = open_dataset(eyes["real"]).load()
    mirror = np.array([-1, 1, 1], np.float32)
    kept = {}
    for name, sides in (("pairs", ("left", "right")), ("others", ("one", "two"))):
        ids = [f"p00/{row:04}/{side}" for side in sides for row in range(len(block.ids))]
        images = np.concatenate([block.images, block.images[:, :, ::-1]])
        gaze = np.concatenate([block.labels["gaze"], block.labels["gaze"] * mirror])
        label = {"gaze": (GAZE, gaze)}
        place = write_dataset(tmp_path / f"{name}.zarr", "real", images, ids, label)
        trained = EstimatorConfig(steps=240, batch_size=16, architecture="compact")
        comparison = taught(plan(eyes | {"real": place}, ("synthetic", "adapted"), trained))
        labels = labels_of(comparison, "adapted")
        assert (labels.eye_pairs is not None) == (name == "pairs")
        assert ("averaged over both eyes (100% of the images" in str(labels)) == (name == "pairs")
        assert ("adapted.eye_pairs.share" in labels.metrics("adapted")) == (name == "pairs")
        kept[name] = np.load(pseudo_labels_file(labels))["pitchyaw_deg"]
    pitch, yaw = kept["pairs"].reshape(2, -1, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(pitch[0], pitch[1], atol=5)
    assert np.corrcoef(yaw[0], yaw[1])[0, 1] < -0.9
    assert np.abs(kept["pairs"] - kept["others"]).max() > 0.1


def test_landmarks_teach_students_and_do_not_judge_refiners(
    eyes: dict[str, str], home: Path
) -> None:
    trained = EstimatorConfig(steps=60, batch_size=16, architecture="compact")
    comparison = taught(plan(eyes, ("synthetic", "refined", "adapted"), trained))
    landmarks = labels_of(comparison, "adapted").landmarks
    assert landmarks is not None
    assert landmarks.teaches
    assert landmarks.share > 0.9
    # Irises of the built-in simulator lie lower between the corners than people's.
    assert not landmarks.sets_mean_pitch
    assert comparison.pseudo_labels is not None
    assert comparison.pseudo_labels.landmarks is None


def test_estimators_that_see_nothing_are_not_averaged_with_landmarks(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = taught(plan(eyes, ("synthetic", "adapted", "adapted_both")))
    assert "teachers weighted equally, 50% refined" in str(labels_of(comparison, "adapted_both"))
    labels = labels_of(comparison, "adapted")
    assert labels.landmarks is not None
    assert not labels.landmarks.teaches
    assert "gaze from eye landmarks not used" in str(labels)
    assert labels.metrics("adapted")["adapted.landmarks.teaches"] == 0


def test_an_adapted_arm_is_found_again_by_the_same_teachers(
    eyes: dict[str, str], home: Path, other_simulator: str
) -> None:
    first = taught(plan(eyes, ("synthetic", "adapted"), teachers=(other_simulator,)))
    again = taught(plan(eyes, ("synthetic", "adapted"), teachers=(other_simulator,)))
    assert again == first


def test_teachers_are_refused_where_they_teach_nobody(
    eyes: dict[str, str], home: Path, other_simulator: str, tmp_path: Path
) -> None:
    with_pose = QUICK.model_copy(update={"head_pose": True})
    with pytest.raises(InputError, match="--teachers cannot be used: it needs --unlabelled"):
        plan(eyes, ("synthetic",), with_pose, teachers=(other_simulator,))
    with pytest.raises(
        InputError, match="the synthetic and the teachers' number 1 dataset are one"
    ):
        plan(eyes, teachers=(eyes["synthetic"],))
    block = open_dataset(eyes["synthetic"]).load()
    bare = write_dataset(tmp_path / "bare.zarr", "synthetic", 255 - block.images, block.ids, {})
    with pytest.raises(InputError, match="has no 'gaze' label"):
        plan(eyes, teachers=(bare,))


def test_every_teacher_is_held_against_the_test_set(
    eyes: dict[str, str], home: Path, other_simulator: str, tmp_path: Path
) -> None:
    block = open_dataset(eyes["test"]).load()
    labels = {"gaze": (GAZE, block.labels["gaze"])}
    leaky = write_dataset(tmp_path / "l.zarr", "synthetic", block.images, block.ids, labels)
    config = ComparisonConfig(
        arms=("synthetic", "adapted"), methods=(), shares=(), match_labels="never"
    )
    places = eyes["synthetic"], eyes["refined"], eyes["real"], eyes["test"]
    with pytest.raises(InputError, match=r"l\.zarr are in the test dataset"):
        plan_comparison.fn(
            DatasetCache(), *places, 1, QUICK, config, None, (leaky, other_simulator)
        )


def test_unlabelled_images_that_only_students_see_are_like_the_test_images(
    eyes: dict[str, str], home: Path, tmp_path: Path
) -> None:
    images = open_dataset(eyes["real"]).load().images[:, 1:]
    ids = [f"p00/{row}" for row in range(len(images))]
    low = write_dataset(tmp_path / "low.zarr", "real", images, ids, {})
    config = ComparisonConfig(arms=("adapted",), methods=(), shares=(), match_labels="never")
    places = eyes["synthetic"], eyes["refined"], eyes["real"], eyes["test"]
    with pytest.raises(InputError, match="height differs: 34 in the unlabelled real dataset"):
        plan_comparison.fn(DatasetCache(), *places, 1, QUICK, config, low)


def test_teachers_need_no_head_pose_of_unlabelled_images(eyes: dict[str, str], home: Path) -> None:
    with_pose = QUICK.model_copy(update={"head_pose": True})
    comparison = plan(eyes, ("synthetic", "adapted"), with_pose)
    assert [arm.name for arm in comparison.arms] == ["synthetic"]
