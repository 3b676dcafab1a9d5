"""Label matching in comparisons: one prior for all arms, the unmatched arm beside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from simgan_core.config import PRESETS, EstimatorConfig
from simgan_core.data.label_matching import load_label_prior
from simgan_core.errors import InputError
from simgan_core.landmarks import gaze as landmark_gaze
from simgan_core.landmarks.model import LandmarkModel
from storage.reader import open_dataset
from storage.schema import GAZE
from tasks.comparison.arms import ComparisonConfig, Protocol
from tasks.comparison.estimate import estimate
from tasks.comparison.label_prior import estimate_prior, match_labels, with_matched_labels
from tasks.comparison.plan import Comparison
from tasks.comparison.planning import plan_comparison, plan_evaluation
from tasks.comparison.predictions import read_predictions
from tasks.comparison.reporting.analysis import results_from_predictions
from tasks.comparison.reporting.results import Results
from tasks.comparison.reporting.tables import table
from tasks.comparison.reporting.tracked_results import results_from_tracking
from tasks.runtime.dataset_cache import DatasetCache
from tests.tasks.comparison.conftest import write_dataset

QUICK = EstimatorConfig(steps=6, batch_size=8)
ARMS = ("synthetic_unmatched", "synthetic", "refined", "real", "real_refined")


def plan(eyes: dict[str, str], unlabelled: str | None = None, **config: Any) -> Comparison:
    chosen = ComparisonConfig(
        **{
            "arms": ARMS,
            "methods": (),
            "shares": (),
            # Estimators of a few steps hardly look at an image.
            "match_labels": "always",
            **config,
        }
    )
    return plan_comparison.fn(
        DatasetCache(),
        eyes["synthetic"],
        eyes["refined"],
        eyes["real"],
        eyes["test"],
        1,
        QUICK,
        chosen,
        unlabelled,
    )


@pytest.fixture
def matched(eyes: dict[str, str], home: Path) -> Comparison:
    return match_labels.fn(plan(eyes), DatasetCache())


@pytest.fixture
def lightless(eyes: dict[str, str], tmp_path: Path) -> str:
    """Real images that show next to nothing, so that all predictions are alike."""
    images = np.random.default_rng(0).integers(100, 103, (40, 35, 55, 1), np.uint8)
    ids = [f"p{row % 5:02d}/{row}" for row in range(40)]
    return write_dataset(tmp_path / "lightless.zarr", "real", images, ids, {})


def results_of(comparison: Comparison) -> Results:
    estimates = [estimate.fn(job, comparison, DatasetCache()) for job in comparison.jobs]
    return results_from_predictions(
        comparison, read_predictions(estimates, comparison.measure), None
    )


def test_all_arms_but_real_and_the_unmatched_one_share_one_prior(
    matched: Comparison, home: Path
) -> None:
    assert {arm.name: arm.matched for arm in matched.arms} == {
        "synthetic_unmatched": False,
        "synthetic": True,
        "refined": True,
        "real": False,
        "real_refined": True,
    }
    assert len(list((home / "label_priors").iterdir())) == 1


def test_the_report_sets_the_estimated_distribution_beside_the_true_one(
    matched: Comparison, eyes: dict[str, str], home: Path
) -> None:
    found = results_of(matched)
    assert found.label_matching is not None
    truth = open_dataset(eyes["test"]).load().labels["gaze"]
    pitch_deg = np.degrees(np.arcsin(-truth[:, 1]))
    assert found.label_matching.test.mean_deg[0] == pytest.approx(pitch_deg.mean(), abs=1e-3)
    assert "true on the test images: pitch" in table(found)
    assert "Matching labels alone:" in found.verdict
    assert "synthetic_minus_synthetic_unmatched" in found.differences
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    client.set_terminated(matched.mlflow_run_id, "FINISHED")
    runs = client.search_runs(["1"], filter_string="tags.stage = 'label-prior'")
    metrics = runs[0].data.metrics
    estimated = found.label_matching.prior.estimated.mean_deg[0]
    assert metrics["labels.estimated.pitch_mean_deg"] == pytest.approx(estimated)
    (again,) = results_from_tracking("comparisons")
    assert again.label_matching == found.label_matching


def test_the_plain_estimators_are_those_of_the_unmatched_arm(
    matched: Comparison, home: Path
) -> None:
    # Two plain seeds, and two that a tenth of the rows was kept from: ids here tell no identity.
    assert matched.label_prior is not None
    assert matched.label_prior.held_out_by == "row"
    trained = set((home / "estimators").iterdir())
    assert len(trained) == 4
    (job,) = (job for job in matched.jobs if job.arm.name == "synthetic_unmatched")
    assert Path(str(estimate.fn(job, matched, DatasetCache()).model)) in trained
    assert set((home / "estimators").iterdir()) == trained


def test_a_doubtful_prior_leaves_all_labels_as_they_are_and_the_report_says_why(
    eyes: dict[str, str], home: Path, lightless: str
) -> None:
    comparison = match_labels.fn(plan(eyes, lightless, match_labels="auto"), DatasetCache())
    assert comparison.label_prior is not None
    assert "hardly more than its error" in comparison.label_prior.doubt
    assert [arm.name for arm in comparison.arms] == ["synthetic", "refined", "real", "real_refined"]
    assert not any(arm.matched for arm in comparison.arms)
    found = results_of(comparison)
    assert "Labels NOT matched" in table(found)
    assert "Matching labels alone" not in found.verdict
    # The estimators are those that predicted: nothing is trained anew for the synthetic arm.
    assert len(list((home / "estimators").iterdir())) == 4 + 3


def test_what_unlabelled_images_are_given_names_the_comparison(
    eyes: dict[str, str], home: Path, tmp_path: Path
) -> None:
    block = open_dataset(eyes["real"]).load()
    labels = {"gaze": (GAZE, block.labels["gaze"][:20])}
    other = write_dataset(tmp_path / "o.zarr", "real", block.images[:20], block.ids[:20], labels)
    ids = {plan(eyes).id, plan(eyes, other).id, plan(eyes, match_labels="never").id}
    assert len(ids) == 3
    with pytest.raises(InputError, match="are in the test dataset"):
        plan(eyes, eyes["test"])


def test_no_real_label_is_read(
    eyes: dict[str, str], home: Path, tmp_path: Path, matched: Comparison
) -> None:
    block = open_dataset(eyes["real"]).load()
    bare = write_dataset(tmp_path / "bare.zarr", "real", block.images, block.ids, {})
    prior = estimate_prior.fn(eyes["synthetic"], bare, QUICK)
    assert matched.label_prior is not None
    assert prior.estimated == matched.label_prior.estimated


def test_rendered_images_are_not_taken_for_unlabelled_real_ones(
    eyes: dict[str, str], home: Path, tmp_path: Path
) -> None:
    block = open_dataset(eyes["synthetic"]).load()
    other = write_dataset(tmp_path / "o.zarr", "synthetic", 255 - block.images, block.ids, {})
    for unlabelled, said in (
        (eyes["synthetic"], "the synthetic and the unlabelled dataset are one"),
        (other, "unlabelled dataset .* expected real images, found synthetic"),
    ):
        with pytest.raises(InputError, match=said):
            plan(eyes, unlabelled)
        with pytest.raises(InputError, match=said):
            estimate_prior.fn(eyes["synthetic"], unlabelled, QUICK)
    with pytest.raises(InputError, match="expected real images"):
        plan_evaluation.fn(DatasetCache(), eyes["synthetic"], eyes["test"], 1, QUICK, other)


def test_identities_are_held_out_where_ids_tell_them(eyes: dict[str, str], home: Path) -> None:
    # Real eyes of ten people in the part of synthetic ones.
    prior = estimate_prior.fn(eyes["real"], eyes["test"], QUICK)
    assert prior.held_out_by == "identity"
    assert len(list((home / "estimators").iterdir())) == 2 + 2 * 5
    kept = load_label_prior(Path(prior.path))
    assert kept.density.sum() == pytest.approx(1)
    again = estimate_prior.fn(eyes["real"], eyes["test"], QUICK)
    assert again == prior


def test_landmarks_that_confirm_the_mean_pitch_spare_what_is_held_out(
    eyes: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The level of the built-in simulator's irises instead of people's.
    monkeypatch.setattr(landmark_gaze, "LEVEL_IRIS_HEIGHT", 0.03)
    trained = EstimatorConfig(steps=60, batch_size=16, architecture="compact")
    prior = estimate_prior.fn(eyes["synthetic"], eyes["real"], trained)
    assert prior.held_out_by == "none"
    assert not prior.doubt
    assert "estimated by estimators and eye landmarks" in str(prior)
    assert len(list((home / "estimators").iterdir())) == 2
    found = LandmarkModel.load().predict(open_dataset(eyes["real"]).load().images)
    pitch_deg = np.nanmean(landmark_gaze.gaze_from_landmarks(found)[:, 0])
    assert prior.estimated.mean_deg[0] == pytest.approx(pitch_deg, abs=1)


def test_labels_stay_as_they_are_where_the_training_sets_have_the_real_ones(
    eyes: dict[str, str], home: Path
) -> None:
    comparison = plan(eyes, protocol=Protocol(name="leave-one-person-out"))
    assert comparison.unlabelled is None
    assert not any(arm.matched for arm in comparison.arms)
    assert match_labels.fn(comparison, DatasetCache()) == comparison


def test_a_refiner_is_trained_under_the_prior_of_its_comparison(
    matched: Comparison, eyes: dict[str, str], home: Path
) -> None:
    assert matched.label_prior is not None
    places = eyes["synthetic"], eyes["real"]
    always = ComparisonConfig(match_labels="always")
    training = with_matched_labels.fn(PRESETS["demo"], *places, QUICK, always)
    assert training.match_labels_by == matched.label_prior.path
    off = ComparisonConfig(match_labels="never")
    assert with_matched_labels.fn(PRESETS["demo"], *places, QUICK, off) == PRESETS["demo"]
    by_person = always.model_copy(update={"protocol": Protocol(name="leave-one-person-out")})
    assert with_matched_labels.fn(PRESETS["demo"], *places, QUICK, by_person) == PRESETS["demo"]


def test_a_refiner_is_trained_on_labels_as_they_are_where_the_prior_is_doubtful(
    eyes: dict[str, str], home: Path, lightless: str
) -> None:
    places = eyes["synthetic"], lightless
    training = with_matched_labels.fn(PRESETS["demo"], *places, QUICK, ComparisonConfig())
    assert training == PRESETS["demo"]


def test_other_methods_and_sizes_are_matched_too(eyes: dict[str, str], home: Path) -> None:
    comparison = match_labels.fn(
        plan(eyes, arms=("refined",), methods=("ridge",), shares=(0.5,)), DatasetCache()
    )
    assert [arm.name for arm in comparison.arms] == ["refined", "refined_40", "ridge_refined"]
    assert all(arm.matched for arm in comparison.arms)
    assert set(results_of(comparison).arms) == {arm.name for arm in comparison.arms}
