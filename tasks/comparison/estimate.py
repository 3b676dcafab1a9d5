"""Train an estimator on each arm by the same recipe, and test it on real images."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prefect import task

from simgan_core.data.label_matching import resampled_rows
from simgan_core.estimation.gaze_training import fine_tune_estimator, predict_gaze
from simgan_core.estimation.joint_training import predict_joints, train_joint_estimator
from simgan_core.models.estimator import Estimator, load_estimator
from tasks.comparison.classical_baselines import predict_by
from tasks.comparison.criterion import (
    PSEUDO_LABEL_ERROR,
    error_on_pseudo_labels_deg,
    is_judged,
)
from tasks.comparison.error_metrics import ERROR_METRICS, errors_of
from tasks.comparison.estimators import (
    TrainingSamples,
    log_progress,
    poses,
    write_atomically,
)
from tasks.comparison.kept_files import (
    PREDICTIONS,
    WEIGHTS,
    estimate_file,
    find_estimate,
    weights_file,
)
from tasks.comparison.networks import network_id, trained_network
from tasks.comparison.people import person_of
from tasks.comparison.plan import Comparison, Estimate, Job
from tasks.comparison.tested_rows import calibration_rows, tested_rows
from tasks.comparison.training_samples import training_samples
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.devices import default_device, describe_compute, take_device_of_worker
from tasks.runtime.policies import CACHE, IO_RETRIES, IO_RETRY_DELAYS_S, retry_on_io
from tasks.runtime.stages import position
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import TrackedRun, runs_with, tracked_run

logger = logging.getLogger(__name__)


@task(name="find-estimates", cache_policy=CACHE)
def find_estimates(comparison: Comparison) -> dict[str, Estimate]:
    """Return the complete estimates of an earlier run of this comparison, by the job's name.

    Its files are on this machine, and its MLflow run is finished: nothing is to be done for it.
    """
    tags = {"stage": "evaluate", "simgan.comparison": comparison.id}
    finished = {
        run.tags["simgan.estimate"]: run
        for run in runs_with(COMPARISONS, tags)
        if run.status == "FINISHED"
    }
    found = {}
    for job in comparison.jobs:
        trained = network_id(job, comparison, comparison.test_digest)
        estimate_id = _estimate_id(trained, comparison)
        path, weights = estimate_file(estimate_id), weights_file(trained)
        if estimate_id in finished and path.exists():
            run = finished[estimate_id]
            model = str(weights) if weights.exists() else None
            error = run.metrics.get("validation_error_deg", float("nan"))
            judged = run.metrics.get(PSEUDO_LABEL_ERROR)
            found[job.name] = Estimate(
                job.arm.name, job.seed, job.person, str(path), model, error, run.run_id, judged
            )
    if found:
        logger.info(
            "%d of %d estimators are found from an earlier run", len(found), len(comparison.jobs)
        )
    return found


@task(
    name="train-estimator",
    task_run_name="{job.arm.name}-{job.seed}",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def estimate(job: Job, plan: Comparison, datasets: DatasetCache) -> Estimate:
    """Train one estimator and store its predictions on the test set, or load stored ones."""
    take_device_of_worker()
    arm, seed, person = job
    trained = network_id(job, plan, plan.test_digest)
    estimate_id = _estimate_id(trained, plan)
    path = estimate_file(estimate_id)
    weights = weights_file(trained)
    key = f"{plan.id}/{estimate_id}"
    tags = _tags(job, plan) | {"simgan.estimate": estimate_id}
    with tracked_run(COMPARISONS, job.name, key, tags, plan.mlflow_run_id) as run:
        _log_inputs(run, job, plan)
        if not find_estimate(path, weights, run.run_id):
            compute = describe_compute(plan.estimator.precision)
            predictions = _predictions(job, plan, trained, datasets)
            write_atomically(path, predictions | {"compute": np.array(json.dumps(compute))})
        run.artifact(path, PREDICTIONS)
        if weights.exists():
            run.artifact(weights, WEIGHTS)
        run.computed_by(_compute_of(path))
        errors = _log_errors(run, path, plan)
        error_on_validation = _validation_error(weights)
        if not np.isnan(error_on_validation):
            run.metrics({"validation_error_deg": error_on_validation})
        judged = _judged_deg(job, plan, trained, datasets)
        if judged is not None:
            run.metrics({PSEUDO_LABEL_ERROR: judged})
    measure = ERROR_METRICS[plan.measure]
    done, total = plan.jobs.index(job) + 1, len(plan.jobs)
    logger.info(
        "estimator %d of %d, %s: %.2f%s on %d test images",
        done,
        total,
        job.name,
        errors.mean(),
        measure.unit,
        len(errors),
        extra=position("training and testing estimators", done, total),
    )
    model = str(weights) if weights.exists() else None
    return Estimate(
        arm.name, seed, person, str(path), model, error_on_validation, run.run_id, judged
    )


def _judged_deg(job: Job, plan: Comparison, trained: str, datasets: DatasetCache) -> float | None:
    """Return the network's error on pseudo-labels, None where it is not judged."""
    if plan.pseudo_labels is None or not is_judged(job.arm):
        return None
    network = trained_network(job, plan, None, trained, datasets)
    return error_on_pseudo_labels_deg(network, plan, datasets)


def _estimate_id(trained: str, comparison: Comparison) -> str:
    """Return the content id of the predictions of the estimator `trained` on the test set."""
    content = {
        "estimator": trained,
        "test": comparison.test_digest,
        "protocol": comparison.protocol.title,
    }
    return content_id("estimate", content)


def _tags(job: Job, comparison: Comparison) -> dict[str, str]:
    arm = job.arm
    return {
        "stage": "evaluate",
        "domain": arm.name,
        "arm": arm.name,
        "training_set": arm.training_set,
        "method": arm.method or comparison.estimator.architecture,
        "augmented": str(arm.augmented).lower(),
        "seed": str(job.seed),
        "person": job.person or "all",
        "protocol": comparison.protocol.title,
        "simgan.test_digest": comparison.test_digest,
        "simgan.comparison": comparison.id,
    }


def _log_inputs(run: TrackedRun, job: Job, comparison: Comparison) -> None:
    run.params(
        comparison.estimator.model_dump()
        | {"seed": job.seed, "protocol": comparison.protocol.title}
        | {"num_rows": job.arm.num_rows or "all", "method": job.arm.method or "network"}
    )
    trained_on = [comparison.datasets[url] for url in job.arm.datasets]
    trains = {
        info.spec.domain if number else "train": info for number, info in enumerate(trained_on)
    }
    run.datasets(trains | {"test": comparison.datasets[comparison.test]})


def _log_errors(run: TrackedRun, path: Path, comparison: Comparison) -> NDArray[np.float64]:
    measure = ERROR_METRICS[comparison.measure]
    with np.load(path) as kept:
        errors, within = errors_of(measure, kept[measure.label], kept["predicted"])
    run.metrics({measure.error_key: errors.mean(), measure.within_key: within.mean()})
    return errors


def _compute_of(path: Path) -> dict[str, str]:
    with np.load(path) as kept:
        return dict(json.loads(str(kept["compute"])))


def _validation_error(weights: Path) -> float:
    return load_estimator(weights).validation_error_deg if weights.exists() else float("nan")


def _predictions(
    job: Job, comparison: Comparison, trained: str, datasets: DatasetCache
) -> dict[str, NDArray[Any]]:
    """Train, and predict on the test images that the protocol leaves for testing."""
    block = datasets.load(comparison.datasets[comparison.test])
    images, ids = block.images, np.array(block.ids)
    label = ERROR_METRICS[comparison.measure].label
    tested = tested_rows(block.ids, job, comparison.protocol)
    if job.arm.method is not None:
        samples = training_samples(job, comparison, block, datasets)
        if samples.weights is not None:
            samples = samples.of_rows(resampled_rows(samples.weights, job.seed))
        predicted = predict_by(
            job.arm.method, samples.images, samples.labels["gaze"], images[tested], job.seed
        )
    elif comparison.measure == "joints":
        samples = training_samples(job, comparison, block, datasets)
        predicted = _joints(samples, images[tested], job, comparison)
    else:
        test = TrainingSamples(images, block.labels)
        estimator = trained_network(job, comparison, block, trained, datasets)
        if comparison.protocol.name == "fine-tuning":
            predicted = _fine_tuned_predictions(
                estimator, test, block.ids, tested, comparison, job.seed
            )
        else:
            predicted = _predict(estimator, test.of_rows(tested))
    return {"id": ids[tested], label: block.labels[label][tested], "predicted": predicted}


def _joints(
    samples: TrainingSamples, test_images: NDArray[Any], job: Job, comparison: Comparison
) -> NDArray[np.float32]:
    config = comparison.estimator
    network = train_joint_estimator(
        config.model_copy(update={"degrade": config.degrade or job.arm.augmented}),
        torch.from_numpy(samples.images).to(default_device()),
        samples.labels["joints_uvd"],
        job.seed,
        log_progress,
        samples.image_of_row,
    )
    return predict_joints(network, test_images)


def _fine_tuned_predictions(
    estimator: Estimator,
    test: TrainingSamples,
    ids: list[str],
    tested: NDArray[np.intp],
    comparison: Comparison,
    seed: int,
) -> NDArray[np.float32]:
    """Fine-tune the estimator to each person in turn, and predict on that person's other images."""
    config = comparison.estimator
    predicted = np.empty((len(ids), 3), np.float32)
    people = np.array([person_of(each) for each in ids])
    for person, rows in calibration_rows(ids, comparison.protocol.samples_per_person).items():
        own = test.of_rows(rows)
        tuned = fine_tune_estimator(
            estimator,
            torch.from_numpy(own.images).to(default_device()),
            own.labels["gaze"],
            seed,
            head_pose=poses(own, config),
        )
        others = tested[people[tested] == person]
        predicted[others] = _predict(tuned, test.of_rows(others))
    return predicted[tested]


def _predict(estimator: Estimator, test: TrainingSamples) -> NDArray[np.float32]:
    return predict_gaze(estimator, test.images, head_pose=poses(test, estimator.config))
