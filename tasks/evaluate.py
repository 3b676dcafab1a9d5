"""Estimators and the comparison: the same recipe on each training set, tested on real images."""

import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from prefect import task
from pydantic import BaseModel, ConfigDict

from simgan_core.baselines import match_histograms
from simgan_core.config import EstimatorConfig
from simgan_core.errors import InputError
from simgan_core.estimator_training import predict_gaze, train_estimator
from simgan_core.gaze import angular_error_deg
from storage.errors import StorageError
from storage.reader import Dataset, open_dataset
from storage.schema import DatasetInfo
from tasks.compatibility import (
    as_uint8,
    require_gaze,
    require_no_shared_images,
    require_same_images,
)
from tasks.home import home
from tasks.identity import code_version, content_id
from tasks.policies import CACHE
from tasks.refiners import open_refiner
from tasks.tracking import begin_run, tracked_run

logger = logging.getLogger(__name__)

EXPERIMENT = "comparisons"
ArmName = Literal["synthetic", "tone_matched", "refined", "real"]


class Arm(BaseModel):
    """One training set of a comparison."""

    model_config = ConfigDict(frozen=True)

    name: ArmName
    dataset: str
    tone_reference: str | None = None
    """Match each image's histogram to one of this dataset's images, chosen at random."""


class Comparison(BaseModel):
    """What is compared: its id follows from the content of all that takes part."""

    model_config = ConfigDict(frozen=True)

    id: str
    arms: tuple[Arm, ...]
    test: str
    seeds: int
    estimator: EstimatorConfig
    mlflow_run_id: str


class Estimate(NamedTuple):
    """One estimator's answers on the test set, kept in a file."""

    arm: ArmName
    seed: int
    path: str


@task(name="plan-comparison", cache_policy=CACHE)
def plan_comparison(
    synthetic: str, refined: str, real: str | None, test: str, seeds: int, config: EstimatorConfig
) -> Comparison:
    """Check that the datasets may be compared, and name the comparison by their content."""
    arms = [Arm(name="synthetic", dataset=synthetic), Arm(name="refined", dataset=refined)]
    if real is not None:
        arms.append(Arm(name="real", dataset=real))
    reference = _tone_reference(refined, real)
    if reference is not None:
        arms.append(Arm(name="tone_matched", dataset=synthetic, tone_reference=reference))
    return _begin("comparison", arms, test, seeds, config)


@task(name="plan-evaluation", cache_policy=CACHE)
def plan_evaluation(train: str, test: str, seeds: int, config: EstimatorConfig) -> Comparison:
    """Check that the two datasets may be used together: a comparison of one arm."""
    domain = open_dataset(train).info.spec.domain
    return _begin("evaluation", [Arm(name=domain, dataset=train)], test, seeds, config)


@task(name="train-estimator", task_run_name="estimator-{arm.name}-{seed}", cache_policy=CACHE)
def estimate(arm: Arm, comparison: Comparison, seed: int) -> Estimate:
    """Train one estimator and keep its answer for every test image; found again if it is there."""
    train_set, test_set = open_dataset(arm.dataset), open_dataset(comparison.test)
    reference = open_dataset(arm.tone_reference) if arm.tone_reference else None
    config = comparison.estimator
    estimate_id = content_id(
        "estimate",
        {
            "train": train_set.info.digest,
            "tone_reference": _digest_or_none(arm.tone_reference),
            "test": test_set.info.digest,
            "config": config.model_dump(mode="json"),
            "seed": seed,
            "code": code_version(),
        },
    )
    path = home() / "estimates" / f"{estimate_id}.npz"
    tags = {"domain": arm.name, "seed": str(seed), "stage": "evaluate"}
    key, name = f"{comparison.id}/{estimate_id}", f"{arm.name}-seed{seed}"
    with tracked_run(EXPERIMENT, name, key, tags, comparison.mlflow_run_id) as run:
        run.params(config.model_dump() | {"seed": seed})
        run.datasets({"train": train_set.info, "test": test_set.info})
        if not path.exists():
            images, gaze = _training_data(train_set, reference, seed)
            _write_atomically(path, _answers(images, gaze, test_set, config, seed))
        errors = read_errors(path)
        run.metrics({"error_deg": errors.mean(), "within_7deg": (errors <= 7).mean()})
    logger.info("%s, seed %d: %.2f° on %d test images", arm.name, seed, errors.mean(), len(errors))
    return Estimate(arm.name, seed, str(path))


def _begin(
    kind: str, arms: list[Arm], test: str, seeds: int, config: EstimatorConfig
) -> Comparison:
    test_info = open_dataset(test).info
    require_gaze(test_info)
    infos: dict[str, DatasetInfo] = {arm.name: open_dataset(arm.dataset).info for arm in arms}
    for arm in arms:
        require_same_images(infos[arm.name], test_info, arm.name, "test")
        require_gaze(infos[arm.name])
        require_no_shared_images(arm.dataset, test)
    key = content_id(
        kind,
        {
            "arms": {
                arm.name: [infos[arm.name].digest, _digest_or_none(arm.tone_reference)]
                for arm in arms
            },
            "test": test_info.digest,
            "seeds": seeds,
            "estimator": config.model_dump(mode="json"),
            "code": code_version(),
        },
    )
    run = begin_run(EXPERIMENT, key, key, {"stage": kind})
    run.params(config.model_dump() | {"seeds": seeds})
    run.datasets({**infos, "test": test_info})
    return Comparison(
        id=key,
        arms=tuple(arms),
        test=test,
        seeds=seeds,
        estimator=config,
        mlflow_run_id=run.run_id,
    )


def read_errors(path: Path) -> NDArray[np.float64]:
    """The angular error of every test image, in degrees: float64 [N]."""
    with np.load(path) as kept:
        return angular_error_deg(kept["gaze"], kept["predicted"])


def people_of(ids: list[str]) -> NDArray[np.int64] | None:
    """Group test images by person, the first part of `p00/day01/0005/left`; None if unknown."""
    if not all("/" in sample_id for sample_id in ids):
        return None
    people, groups = np.unique([sample_id.split("/")[0] for sample_id in ids], return_inverse=True)
    return groups if len(people) > 1 else None


def _digest_or_none(dataset: str | None) -> str | None:
    return None if dataset is None else open_dataset(dataset).info.digest


def _training_data(
    train_set: Dataset, reference: Dataset | None, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images and gaze of every valid row, tone-matched where there is a reference."""
    block = train_set.load()
    images = as_uint8(block.images, train_set.info)
    if reference is not None:
        real = as_uint8(reference.load().images, reference.info)
        images = match_histograms(images, real, seed)
    return images, block.labels["gaze"]


def _answers(
    images: NDArray[np.uint8],
    gaze: NDArray[np.float32],
    test_set: Dataset,
    config: EstimatorConfig,
    seed: int,
) -> dict[str, NDArray[Any]]:
    estimator = train_estimator(
        config, torch.from_numpy(images), torch.from_numpy(gaze), seed, _say_progress
    )
    test = test_set.load()
    predicted = predict_gaze(estimator, as_uint8(test.images, test_set.info))
    return {"id": np.array(test.ids), "gaze": test.labels["gaze"], "predicted": predicted}


def _say_progress(step: int, total: int, loss: float) -> None:
    if step % max(1, total // 2) == 0:
        logger.info("estimator: step %d of %d, loss %.4f", step, total, loss)


def _write_atomically(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(path)


def _tone_reference(refined: str, real: str | None) -> str | None:
    """Real images whose tones the tone-matched arm takes: never the choice of a test set.

    The real training set where there is one, else the unlabelled images that the refiner saw.
    """
    if real is not None:
        return real
    provenance = open_dataset(refined).info.spec.provenance
    try:
        trained = open_refiner(str(provenance["refiner"])).metadata
        found = open_dataset(trained["real_url"]).info
    except (KeyError, InputError, StorageError) as error:
        logger.warning("no tone-matched arm: the refiner's real dataset is not at hand: %s", error)
        return None
    if found.digest != provenance["real_digest"]:
        logger.warning("no tone-matched arm: %s changed since the refiner's training", found.url)
        return None
    return found.url
