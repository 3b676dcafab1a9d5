"""Train an estimator on each arm by the same recipe, and test it on real images."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from prefect import task

from simgan_core.config import EstimatorConfig
from simgan_core.data.fourier import swap_amplitudes
from simgan_core.data.histogram_matching import match_histograms
from simgan_core.data.label_matching import load_label_prior, resampled_rows
from simgan_core.errors import InputError
from simgan_core.estimation.adaptation import student_config
from simgan_core.estimation.gaze_training import fine_tune_estimator, predict_gaze
from simgan_core.estimation.joint_training import predict_joints, train_joint_estimator
from simgan_core.models.estimator import Estimator, load_estimator
from storage.errors import StorageError
from storage.samples import SampleBlock
from storage.schema import DatasetInfo
from tasks.comparison.arms import ArmName, ComparisonConfig, Protocol
from tasks.comparison.classical_baselines import predict_by
from tasks.comparison.error_metrics import ERROR_METRICS, error_metric_of, errors_of
from tasks.comparison.estimators import (
    TrainingSamples,
    content_of,
    estimator_id,
    log_progress,
    poses,
    trained_estimator,
    with_number_format,
    write_atomically,
)
from tasks.comparison.kept_files import (
    PREDICTIONS,
    WEIGHTS,
    estimate_file,
    find_estimate,
    prior_file,
    weights_file,
)
from tasks.comparison.label_prior import angles_deg
from tasks.comparison.plan import Arm, Comparison, Estimate, Job, choose_arms, people_in, person_of
from tasks.comparison.pseudo_labels import pseudo_labelled
from tasks.runtime.compatibility import (
    HeldOutImages,
    require_distinct,
    require_domain,
    require_gaze,
    require_same_images,
)
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.devices import default_device, describe_compute, take_device_of_worker
from tasks.runtime.policies import CACHE, IO_RETRIES, IO_RETRY_DELAYS_S, retry_on_io
from tasks.runtime.recipes import recipe_version
from tasks.runtime.refiners import open_refiner
from tasks.runtime.stages import position
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import TrackedRun, begin_run, runs_with, tracked_run

logger = logging.getLogger(__name__)

_CALIBRATION_SEED = 0
"""Seed for choosing each person's fine-tuning samples. It is fixed, so that every arm and seed is
tested on the same remaining images."""


@task(name="plan-comparison", cache_policy=CACHE)
def plan_comparison(
    datasets: DatasetCache,
    synthetic: str,
    refined: str,
    real: str | None,
    test: str,
    seeds: int,
    estimator: EstimatorConfig,
    config: ComparisonConfig,
    unlabelled: str | None = None,
    teachers: tuple[str, ...] = (),
) -> Comparison:
    """Check that the datasets may be compared, and name the comparison by their content.

    A number format that was left open is decided here, for all estimators, whichever machine
    trains them: bf16 and fp32 give other estimators, so that their ids differ.
    """
    inputs = _Inputs.find(datasets, test, synthetic, refined, real, unlabelled, *teachers)
    _require_roles(inputs, synthetic, refined, real)
    _require_teachers(inputs, teachers, synthetic, refined)
    reference = unlabelled or real or _real_images_of_refiner(inputs, refined)
    if reference is not None:
        inputs.held_out.require_none_in(inputs.infos[reference])
    info = inputs.infos[synthetic]
    if "gaze" not in {label.name for label in info.spec.labels}:
        logger.info("no label matching, no other methods than networks: gaze is not labelled")
        config = config.model_copy(
            update={"methods": (), "match_labels": "never", "arms": _without_adapted(config)}
        )
    if estimator.head_pose:
        # Unlabelled images have no head pose for a teacher.
        config = config.model_copy(update={"arms": _without_adapted(config)})
    matched = (
        config.match_labels != "never"
        and reference is not None
        and config.protocol.name != "leave-one-person-out"
    )
    arms = choose_arms(
        config,
        *(synthetic, refined, real, reference),
        info.num_valid,
        matched=matched,
        teachers=teachers,
    )
    if teachers and not any(arm.teachers for arm in arms):
        raise InputError(
            "teachers label unlabelled real images for the arms adapted and adapted_refined, and "
            "neither takes part: give --unlabelled and one of these --arms, no protocol "
            "leave-one-person-out, no --head-pose; or leave --teachers out"
        )
    matching = (synthetic, reference) if matched and reference is not None else None
    return _begin(
        "comparison",
        *(arms, inputs, seeds, estimator, config.protocol, matching),
        match_doubtful=config.match_labels == "always",
    )


class _Inputs(NamedTuple):
    """Datasets that a plan is made of."""

    test: str
    infos: dict[str, DatasetInfo]
    """Every dataset by its place."""
    held_out: HeldOutImages
    """The images of the test set."""
    datasets: DatasetCache

    @classmethod
    def find(cls, datasets: DatasetCache, test: str, *others: str | None) -> Self:
        """Open the test set and the others that are given."""
        infos = {url: datasets.find(url) for url in (*others, test) if url is not None}
        return cls(test, infos, HeldOutImages(infos[test], datasets), datasets)


def _without_adapted(config: ComparisonConfig) -> tuple[ArmName, ...]:
    return tuple(name for name in config.arms if not name.startswith("adapted"))


def _require_roles(inputs: "_Inputs", synthetic: str, refined: str, real: str | None) -> None:
    """Refuse datasets in one another's place; what is tested on may be of another simulator."""
    given = {"synthetic": synthetic, "refined": refined, "real": real, "test": inputs.test}
    infos = {role: inputs.infos[url] for role, url in given.items() if url is not None}
    require_distinct(infos)
    require_domain(infos["synthetic"], "synthetic", "synthetic")
    # Images that another program refined are ingested as synthetic ones.
    require_domain(infos["refined"], "refined", "refined", "synthetic")
    require_domain(infos["test"], "test", "real", "synthetic")
    if "real" in infos:
        require_domain(infos["real"], "real", "real")


def _require_teachers(
    inputs: "_Inputs", teachers: tuple[str, ...], synthetic: str, refined: str
) -> None:
    """Refuse teachers that are not of other simulators, or have no gaze."""
    infos = {f"teachers' number {n}": inputs.infos[url] for n, url in enumerate(teachers, 1)}
    given = {"synthetic": inputs.infos[synthetic], "refined": inputs.infos[refined]}
    require_distinct(given | infos)
    for role, info in infos.items():
        require_domain(info, role, "synthetic", "refined")
        require_gaze(info)


@task(name="plan-evaluation", cache_policy=CACHE)
def plan_evaluation(
    datasets: DatasetCache,
    train: str,
    test: str,
    seeds: int,
    estimator: EstimatorConfig,
    unlabelled: str | None = None,
) -> Comparison:
    """Check that the datasets may be used together: a comparison of one arm.

    With `unlabelled` real images of two: the first with matched labels, the second without.
    """
    inputs = _Inputs.find(datasets, test, train, unlabelled)
    domain = inputs.infos[train].spec.domain
    arm = Arm(name=domain, title=domain, training_set=domain, datasets=(train,))
    if unlabelled is None:
        return _begin("evaluation", (arm,), inputs, seeds, estimator, Protocol())
    if domain == "real":
        raise InputError(
            f"the labels of real images are never matched: leave --unlabelled out, or train on a "
            f"synthetic or refined dataset ({train} is real)"
        )
    names = {"name": f"{domain}_unmatched", "title": f"{domain}, labels unmatched"}
    arms = (arm.model_copy(update={"matched": True}), arm.model_copy(update=names))
    matching = (train, unlabelled)
    return _begin(
        "evaluation", arms, inputs, seeds, estimator, Protocol(), matching, match_doubtful=True
    )


@task(name="find-estimates", cache_policy=CACHE)
def find_estimates(comparison: Comparison) -> dict[str, Estimate]:
    """Return what an earlier run of this comparison left whole, by the job's name.

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
        trained = _estimator_id(job, comparison)
        estimate_id = _estimate_id(trained, comparison)
        path, weights = estimate_file(estimate_id), weights_file(trained)
        if estimate_id in finished and path.exists():
            run = finished[estimate_id]
            model = str(weights) if weights.exists() else None
            error = run.metrics.get("validation_error_deg", float("nan"))
            found[job.name] = Estimate(
                job.arm.name, job.seed, job.person, str(path), model, error, run.run_id
            )
    if found:
        logger.info("%d of %d estimators are there already", len(found), len(comparison.jobs))
    return found


@task(
    name="train-estimator",
    task_run_name="{job.arm.name}-{job.seed}",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def estimate(job: Job, comparison: Comparison, datasets: DatasetCache) -> Estimate:
    """Train one estimator and keep its predictions on the test set; found if kept already."""
    take_device_of_worker()
    arm, seed, person = job
    trained = _estimator_id(job, comparison)
    estimate_id = _estimate_id(trained, comparison)
    path = estimate_file(estimate_id)
    weights = weights_file(trained)
    key = f"{comparison.id}/{estimate_id}"
    tags = _tags(job, comparison) | {"simgan.estimate": estimate_id}
    with tracked_run(COMPARISONS, job.name, key, tags, comparison.mlflow_run_id) as run:
        _log_inputs(run, job, comparison)
        if not find_estimate(path, weights, run.run_id):
            compute = describe_compute(comparison.estimator.precision)
            predictions = _predictions(job, comparison, trained, datasets)
            write_atomically(path, predictions | {"compute": np.array(json.dumps(compute))})
        run.artifact(path, PREDICTIONS)
        if weights.exists():
            run.artifact(weights, WEIGHTS)
        run.computed_by(_compute_of(path))
        errors = _log_errors(run, path, comparison)
        error_on_validation = _validation_error(weights)
        if not np.isnan(error_on_validation):
            run.metrics({"validation_error_deg": error_on_validation})
    measure = ERROR_METRICS[comparison.measure]
    done, total = comparison.jobs.index(job) + 1, len(comparison.jobs)
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
    return Estimate(arm.name, seed, person, str(path), model, error_on_validation, run.run_id)


def _begin(
    kind: str,
    arms: tuple[Arm, ...],
    inputs: _Inputs,
    seeds: int,
    estimator: EstimatorConfig,
    protocol: Protocol,
    matching: tuple[str, str] | None = None,
    *,
    match_doubtful: bool = False,
) -> Comparison:
    """Make a comparison's run; `matching`: datasets that labels are matched from and to."""
    estimator = with_number_format(estimator)
    test = inputs.infos[inputs.test]
    infos = {"test": test} | _training_sets(arms, inputs.infos)
    measure = error_metric_of(infos)
    _require_fitting_network(estimator, measure.name)
    for role, info in infos.items():
        require_same_images(info, test, role, "test")
        if role != "test":
            inputs.held_out.require_none_in(info)
    if not arms:
        raise InputError("no arm of the comparison can take part with the datasets that were given")
    unlabelled = None if matching is None else inputs.infos[matching[1]]
    if unlabelled is not None:
        require_same_images(unlabelled, test, "unlabelled real", "test")
        inputs.held_out.require_none_in(unlabelled)
    people = people_in(inputs.datasets.open(test).read_ids())
    _require_people(protocol, people, test)
    key = content_id(
        kind,
        {
            "arms": [
                content_of(arm, inputs.infos) | {"name": arm.name, "training_set": arm.training_set}
                for arm in arms
            ],
            "match_doubtful_labels": match_doubtful,
            "label_prior": matching and [inputs.infos[url].digest for url in matching],
            "test": test.digest,
            "protocol": protocol.title,
            "seeds": seeds,
            "estimator": estimator.model_dump(mode="json"),
            "recipes": [recipe_version("estimate"), recipe_version("compare")],
        },
    )
    tags = {"stage": kind, "protocol": protocol.title, "simgan.test_digest": test.digest}
    run = begin_run(COMPARISONS, key, key, tags)
    run.params(estimator.model_dump() | {"seeds": seeds, "protocol": protocol.title})
    run.datasets(infos | ({} if unlabelled is None else {"unlabelled": unlabelled}))
    comparison = Comparison(
        id=key,
        measure=measure.name,
        protocol=protocol,
        arms=arms,
        test=inputs.test,
        test_digest=test.digest,
        people=people,
        seeds=seeds,
        estimator=estimator,
        mlflow_run_id=run.run_id,
        unlabelled=matching and matching[1],
        prior_source=matching and matching[0],
        match_doubtful_labels=match_doubtful,
        datasets=inputs.infos,
    )
    run.text("comparison.json", comparison.model_dump_json(indent=2))
    return comparison


def _training_sets(
    arms: tuple[Arm, ...], by_url: Mapping[str, DatasetInfo]
) -> dict[str, DatasetInfo]:
    """Return every dataset that trains, once, by the part that it plays."""
    found: dict[str, DatasetInfo] = {}
    for arm in arms:
        for info in (by_url[url] for url in (*arm.datasets, *arm.teachers)):
            if info.url not in {known.url for known in found.values()}:
                found[arm.training_set if len(arm.datasets) == 1 else info.spec.domain] = info
    return found


def _require_fitting_network(estimator: EstimatorConfig, measure: str) -> None:
    if (estimator.architecture == "hourglass") != (measure == "joints"):
        wanted = "hourglass" if measure == "joints" else "pooled, compact, paper or resnet"
        raise InputError(
            f"the datasets' labels are of {measure}, architecture {estimator.architecture} does "
            f"not estimate that: use --architecture {wanted}"
        )


def _require_people(protocol: Protocol, people: tuple[str, ...], info: DatasetInfo) -> None:
    least = 2 if protocol.name == "leave-one-person-out" else 1
    if protocol.by_person and len(people) < least:
        raise InputError(
            f"{protocol.title} needs a test set of at least {least} people, with whose image it is "
            "as the first part of every id (p00/day01/0005/left or person-anna/3; simgan ingest "
            f"arrays --person KEY writes such ids); {info.url} has {len(people)}"
        )
    if protocol.name == "fine-tuning" and "gaze" not in {one.name for one in info.spec.labels}:
        raise InputError("fine-tuning is for gaze: joints have no recipe for it")


def _estimator_id(job: Job, comparison: Comparison) -> str:
    """Return the content id of the estimator that a job trains; protocols share estimators."""
    prior = comparison.label_prior
    return estimator_id(
        job.arm,
        comparison.datasets,
        comparison.estimator,
        job.seed,
        prior.id if job.arm.matched and prior is not None else None,
        [comparison.test_digest, job.person] if job.person else None,
    )


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
    tested = _tested_rows(block.ids, job, comparison.protocol)
    if job.arm.method is not None:
        samples = _training_samples(job, comparison, block, datasets)
        if samples.weights is not None:
            samples = samples.of_rows(resampled_rows(samples.weights, job.seed))
        predicted = predict_by(
            job.arm.method, samples.images, samples.labels["gaze"], images[tested], job.seed
        )
    elif comparison.measure == "joints":
        samples = _training_samples(job, comparison, block, datasets)
        predicted = _joints(samples, images[tested], job, comparison)
    else:
        test = TrainingSamples(images, block.labels)
        estimator = _trained(job, comparison, block, trained, datasets)
        if comparison.protocol.name == "fine-tuning":
            predicted = _fine_tuned_predictions(
                estimator, test, block.ids, tested, comparison, job.seed
            )
        else:
            predicted = _predict(estimator, test.of_rows(tested))
    return {"id": ids[tested], label: block.labels[label][tested], "predicted": predicted}


def _tested_rows(ids: list[str], job: Job, protocol: Protocol) -> NDArray[np.intp]:
    """Return the rows of the test set that this training is tested on."""
    if job.person:
        return np.array([row for row, each in enumerate(ids) if person_of(each) == job.person])
    if protocol.name == "fine-tuning":
        calibration = _calibration_rows(ids, protocol.samples_per_person)
        return np.setdiff1d(np.arange(len(ids)), np.concatenate(list(calibration.values())))
    return np.arange(len(ids))


def _calibration_rows(ids: list[str], num_samples: int) -> dict[str, NDArray[np.intp]]:
    """Draw each person's samples for fine-tuning; they are never tested on.

    Raises InputError where a person would have none left to be tested on.
    """
    chosen: dict[str, NDArray[np.intp]] = {}
    people = np.array([person_of(each) for each in ids])
    for number, person in enumerate(np.unique(people)):
        rows = np.flatnonzero(people == person)
        if len(rows) <= num_samples:
            raise InputError(
                f"person {person} has {len(rows)} test images: fine-tuning on {num_samples} leaves "
                "none to test on; set a smaller --protocol.samples-per-person"
            )
        # In the order of ids, so that the rows' order in the dataset does not matter.
        rows = rows[np.argsort(np.array(ids)[rows], kind="stable")]
        rng = np.random.default_rng([_CALIBRATION_SEED, number])
        chosen[str(person)] = rng.choice(rows, num_samples, replace=False)
    return chosen


def _trained(
    job: Job, comparison: Comparison, test: SampleBlock, name: str, datasets: DatasetCache
) -> Estimator:
    """Train the network, or find it where another protocol, or a killed run, left it."""
    if weights_file(name).exists():
        return load_estimator(weights_file(name)).to(default_device())
    config = comparison.estimator
    config = config.model_copy(update={"degrade": config.degrade or job.arm.augmented})
    if job.arm.teachers_of is not None:
        config = student_config(config)
    samples = _training_samples(job, comparison, test, datasets)
    return trained_estimator(name, config, samples, job.seed)


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
    for person, rows in _calibration_rows(ids, comparison.protocol.samples_per_person).items():
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


def _training_samples(
    job: Job, comparison: Comparison, test: SampleBlock, datasets: DatasetCache
) -> TrainingSamples:
    """Join the images and labels that one training learns from."""
    if job.arm.teachers_of is not None:
        return pseudo_labelled(job.arm, comparison, datasets)
    parts = [_part(comparison.datasets[url], job, comparison, datasets) for url in job.arm.datasets]
    if job.person:
        others = [row for row, each in enumerate(test.ids) if person_of(each) != job.person]
        parts.append(TrainingSamples(test.images, test.labels).of_rows(np.array(others)))
    shared = set.intersection(*(set(part.labels) for part in parts))
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate(
            [np.ones(len(part.images)) if part.weights is None else part.weights for part in parts]
        )
    return TrainingSamples(
        np.concatenate([part.images for part in parts]),
        {name: np.concatenate([part.labels[name] for part in parts]) for name in sorted(shared)},
        weights,
    )


def _part(
    info: DatasetInfo, job: Job, comparison: Comparison, datasets: DatasetCache
) -> TrainingSamples:
    """Load the arm's number of valid rows; matches histograms or Fourier amplitudes if it does.

    Synthetic and refined rows of a matched arm have the weights of their own labels under the
    comparison's label prior.
    """
    block = datasets.load(info)
    samples = TrainingSamples(block.images, block.labels)
    if job.arm.num_rows is not None:
        # Sizes are nested: a smaller set is part of a larger one of the same seed.
        order = np.random.default_rng([job.seed, len(block.ids)]).permutation(len(block.ids))
        samples = samples.of_rows(np.sort(order[: job.arm.num_rows]))
    if job.arm.look_reference is not None:
        real = datasets.load(comparison.datasets[job.arm.look_reference]).images
        give_look = match_histograms if job.arm.look == "histogram" else swap_amplitudes
        samples = replace(samples, images=give_look(samples.images, real, job.seed))
    if job.arm.matched and info.spec.domain != "real":
        prior = comparison.label_prior
        assert prior is not None, "match_labels comes before estimate"
        gaze_deg = angles_deg(samples.labels["gaze"])
        weights = load_label_prior(prior_file(prior)).weights(gaze_deg)
        samples = replace(samples, weights=weights)
    return samples


def _real_images_of_refiner(inputs: _Inputs, refined: str) -> str | None:
    """Return the real images that the refiner of a dataset saw, for looks and label distribution.

    They join the inputs. None where they are not at hand or share images with the test set.
    """
    provenance = inputs.infos[refined].spec.provenance
    try:
        trained = open_refiner(str(provenance["refiner"])).metadata
        found = inputs.datasets.find(trained["real_url"])
    except (KeyError, InputError, StorageError) as error:
        logger.warning(
            "no label matching, no tone-matched and Fourier arms, since the refiner's real dataset "
            "is not at hand (give --unlabelled): %s",
            error,
        )
        return None
    if found.digest != provenance["real_digest"]:
        logger.warning(
            "no label matching, no tone-matched and Fourier arms, since %s changed after the "
            "refiner's training (give --unlabelled)",
            found.url,
        )
        return None
    try:
        inputs.held_out.require_none_in(found)
    except InputError as error:
        logger.warning("no label matching, no tone-matched and Fourier arms: %s", error)
        return None
    inputs.infos[found.url] = found
    return found.url
