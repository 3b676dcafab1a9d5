"""Error on pseudo-labels: what it is, whose it is, and that it orders what should be ordered."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from simgan_core.config import EstimatorConfig
from simgan_core.estimation.gaze_training import predict_gaze
from simgan_core.gaze import pitchyaw_from_gaze
from simgan_core.models.estimator import load_estimator
from simgan_core.simulator.eyes import render, sample_scenes
from storage.reader import open_dataset
from storage.schema import GAZE
from tasks.comparison.arms import ARMS, ComparisonConfig
from tasks.comparison.champion import decide_champion
from tasks.comparison.choice import Candidate, _verdict, find_judged, judge, plan_choice
from tasks.comparison.estimate import estimate, find_estimates
from tasks.comparison.kept_files import pseudo_labels_file, weights_file
from tasks.comparison.label_prior import match_labels
from tasks.comparison.networks import network_id
from tasks.comparison.plan import Comparison, Estimate, EstimatorPlan
from tasks.comparison.planning import plan_comparison
from tasks.comparison.pseudo_labels import teach_students
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.tracking.champion import MAY_LEAD_TAG, SYNTHETIC_TAG
from tasks.runtime.tracking.runs import REFINER_TAG, begin_run
from tests.tasks.comparison.conftest import write_dataset

QUICK = EstimatorConfig(steps=6, batch_size=8)
JUDGED = {
    *("synthetic", "tone_matched", "fourier", "synthetic_augmented", "refined"),
    *("refined_augmented", "synthetic_refined", "synthetic_40", "refined_40"),
}


def planned(eyes: dict[str, str], config: ComparisonConfig) -> Comparison:
    places = eyes["synthetic"], eyes["refined"], eyes["real"], eyes["test"]
    plan = plan_comparison.fn(DatasetCache(), *places, 1, QUICK, config)
    return teach_students.fn(match_labels.fn(plan, DatasetCache()), DatasetCache())


def estimates_of(comparison: Comparison) -> list[Estimate]:
    datasets = DatasetCache()
    return [estimate.fn(job, comparison, datasets) for job in comparison.jobs]


def by_hand(model: str, comparison: EstimatorPlan, unlabelled: str) -> float:
    """The mean distance, image by image, of an estimator's predictions from the pseudo-labels."""
    estimator = load_estimator(Path(model))
    assert comparison.pseudo_labels is not None
    with np.load(pseudo_labels_file(comparison.pseudo_labels)) as kept:
        labels_deg = kept["pitchyaw_deg"]
    images = open_dataset(unlabelled).load().images
    predicted_deg = np.degrees(pitchyaw_from_gaze(predict_gaze(estimator, images)))
    away_deg = [
        np.hypot(pitch - label_pitch, yaw - label_yaw)
        for (pitch, yaw), (label_pitch, label_yaw) in zip(predicted_deg, labels_deg, strict=True)
    ]
    return float(np.mean(away_deg))


def test_networks_of_synthetic_and_refined_images_are_judged_and_nothing_else(
    eyes: dict[str, str], home: Path
) -> None:
    config = ComparisonConfig(arms=ARMS, methods=("ridge",), shares=(0.5,), match_labels="always")
    comparison = planned(eyes, config)
    estimates = estimates_of(comparison)
    judged = {each.arm: each for each in estimates if each.pseudo_label_error_deg is not None}
    assert set(judged) == JUDGED
    refined = judged["refined"]
    expected = by_hand(str(refined.model), comparison, eyes["real"])
    assert refined.pseudo_label_error_deg == pytest.approx(expected, rel=1e-6)
    assert find_estimates.fn(comparison)["refined-seed0"] == refined


def test_the_teachers_own_training_set_is_not_judged(eyes: dict[str, str], home: Path) -> None:
    config = ComparisonConfig(
        arms=("synthetic", "refined"), methods=(), shares=(), match_labels="never"
    )
    errors = {each.arm: each.pseudo_label_error_deg for each in estimates_of(planned(eyes, config))}
    assert errors["synthetic"] is None
    assert errors["refined"] is not None


def test_it_is_left_out_where_it_is_not_wanted_and_ids_are_as_without(
    eyes: dict[str, str], home: Path
) -> None:
    config = ComparisonConfig(arms=("refined",), methods=(), shares=(), match_labels="never")
    without = planned(eyes, config.model_copy(update={"pseudo_label_error": False}))
    judged = planned(eyes, config)
    assert without.judged_on is None
    assert without.pseudo_labels is None
    assert without.id != judged.id
    first, second = (estimates_of(each)[0] for each in (without, judged))
    assert first.path == second.path
    assert first.pseudo_label_error_deg is None


@pytest.fixture
def refiners(tmp_path: Path) -> dict[str, str]:
    """Eyes, the same by a refiner that keeps their labels, and by one that mirrors them."""
    scenes = sample_scenes("synthetic", 240, seed=1)
    images = render(scenes, "crop", 35, 55).images
    real = render(sample_scenes("synthetic", 160, seed=2), "crop", 35, 55).images
    labels = {"gaze": (GAZE, scenes.gaze)}
    ids = [f"s/{row}" for row in range(len(images))]
    made = {
        "synthetic": ("synthetic", images),
        "harmless": ("refined", (images * 0.8 + 20).astype(np.uint8)),
        "harmful": ("refined", (images[:, :, ::-1] * 0.8 + 20).astype(np.uint8)),
    }
    found = {
        name: write_dataset(tmp_path / f"{name}.zarr", domain, pixels, ids, labels)  # type: ignore[arg-type]
        for name, (domain, pixels) in made.items()
    }
    names = [f"p{row % 4:02d}/{row}" for row in range(len(real))]
    dark = (real * 0.7).astype(np.uint8)
    return found | {"real": write_dataset(tmp_path / "real.zarr", "real", dark, names, {})}


def test_a_refiner_that_moves_labels_comes_after_one_that_does_not(
    refiners: dict[str, str], home: Path
) -> None:
    config = EstimatorConfig(architecture="compact", steps=120, batch_size=16)
    refined = (refiners["harmful"], refiners["harmless"])
    places = refiners["synthetic"], refined, refiners["real"]
    datasets = DatasetCache()
    plan = plan_choice.fn(datasets, *places, 2, config, "never", ())
    plan = teach_students.fn(match_labels.fn(plan, datasets), datasets)
    errors = {job.name: judge.fn(job, plan, datasets) for job in plan.jobs}
    harmful, harmless = (
        [errors[f"refined_{number}-seed{seed}"] for seed in (0, 1)] for number in (1, 2)
    )
    assert min(harmful) > max(harmless) + 3
    # Found again; and the same bits where all is trained anew.
    assert find_judged.fn(plan) == errors
    job = plan.jobs[0]
    model = weights_file(network_id(job, plan))
    assert errors[job.name] == pytest.approx(by_hand(str(model), plan, refiners["real"]), rel=1e-6)
    model.unlink()
    assert judge.fn(job, plan, datasets) == errors[job.name]


@pytest.mark.parametrize(
    ("spread_deg", "words"),
    [
        (0.3, "0.50° less than the next: more than the spread between estimator seeds (±0.30°)"),
        (0.6, "so that b.zarr may be as good"),
        (None, "One estimator seed cannot tell that from chance"),
    ],
)
def test_a_lead_is_set_against_what_seeds_differ_by(spread_deg: float | None, words: str) -> None:
    best, second = (
        Candidate(refined=name, refiner=None, pseudo_label_error_deg=error_deg, by_seed_deg=())
        for name, error_deg in (("a.zarr", 8.0), ("b.zarr", 8.5))
    )
    assert words in _verdict(best, second, spread_deg, "")


@pytest.mark.parametrize(
    ("doubt", "num_simulators"),
    [("", 2), ("", 1), ("predicted yaw spreads by 3°, hardly more than its error", 2)],
)
def test_the_least_error_makes_the_champion_where_the_teachers_are_trusted(
    refiners: dict[str, str], home: Path, tmp_path: Path, doubt: str, num_simulators: int
) -> None:
    parent = open_dataset(refiners["synthetic"])
    refined = []
    for number, name in enumerate(("harmful", "harmless")):
        block = open_dataset(refiners[name]).load()
        made = {"parent_digest": parent.info.digest, "refiner": f"refiner-{name}"}
        labels = {"gaze": (GAZE, block.labels["gaze"])}
        place = tmp_path / f"{name}-made.zarr"
        refined.append(write_dataset(place, "refined", block.images, block.ids, labels, made))
        tags = {REFINER_TAG: made["refiner"], MAY_LEAD_TAG: "true", SYNTHETIC_TAG: "s"}
        run = begin_run("refiners", name, name)
        run.register_model("refiner", "model", tags, ("champion", "candidate")[number])
    datasets = DatasetCache()
    places = refiners["synthetic"], tuple(refined), refiners["real"]
    plan = plan_choice.fn(datasets, *places, 2, QUICK, "always", ())
    plan = teach_students.fn(match_labels.fn(plan, datasets), datasets)
    assert plan.label_prior is not None
    prior = plan.label_prior.model_copy(update={"doubt": doubt})
    assert plan.pseudo_labels is not None
    taught = plan.pseudo_labels.model_copy(update={"num_sources": num_simulators})
    plan = plan.model_copy(update={"label_prior": prior, "pseudo_labels": taught})
    said = decide_champion(plan, {"refined_1": (9.0, 0.1), "refined_2": (8.0, 0.2)})
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    champion = client.get_model_version_by_alias("refiner", "champion").tags[REFINER_TAG]
    trusted = not doubt and num_simulators > 1
    assert champion == ("refiner-harmless" if trusted else "refiner-harmful")
    assert (said is not None) == trusted
