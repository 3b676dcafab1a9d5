"""Pseudo-labels of unlabelled real images: by simulators' estimators, and by eye landmarks."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task

from simgan_core.config import EstimatorConfig
from simgan_core.estimation.adaptation import (
    DEFAULT_CENTRING,
    average_with_landmarks,
    centre_by_look,
    choose_centring,
    stacking_weight,
)
from simgan_core.estimation.eye_pairs import average_over_pairs, partner_rows
from simgan_core.gaze import gaze_from_pitchyaw
from storage.schema import DatasetInfo
from tasks.comparison.estimators import (
    TrainingSamples,
    plain_estimator_id,
    trained_estimator,
    write_atomically,
)
from tasks.comparison.kept_files import pseudo_labels_file
from tasks.comparison.label_prior import TEACHER_SEEDS, known_head_pose, predictions_deg, spread_of
from tasks.comparison.landmark_gaze import landmark_gaze_deg, landmark_teacher
from tasks.comparison.plan import Arm, EstimatorPlan, EyePairs, Plan, PseudoLabelsRef
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.paths import home
from tasks.runtime.policies import CACHE
from tasks.runtime.recipes import recipe_version
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import begin_run, tracked_run

logger = logging.getLogger(__name__)

_SEED = 0
"""Which images stand for all where they are many."""


@task(name="teach-students", cache_policy=CACHE)
def teach_students(comparison: Plan, datasets: DatasetCache) -> Plan:
    """Label the unlabelled images that arms learn from or are judged on; found if that is done."""
    if comparison.judged_on is None and not any(arm.teachers_of for arm in comparison.arms):
        return comparison
    arms = tuple(_taught(arm, comparison, datasets) for arm in comparison.arms)
    taught = comparison.model_copy(update={"arms": arms})
    if comparison.judged_on is not None:
        # Without landmarks, as was measured how it orders refiners.
        labels = _pseudo_labels(
            "pseudo-labels",
            *(comparison.judged_by[:1], comparison.judged_by[1:], comparison.judged_on),
            *(comparison, datasets),
            by_landmarks=False,
        )
        taught = taught.model_copy(update={"pseudo_labels": labels})
    run = begin_run(COMPARISONS, comparison.id, comparison.id)
    # `compare --from-mlflow` rebuilds its tables from this file.
    run.text("comparison.json", taught.model_dump_json(indent=2))
    for arm in arms:
        if arm.pseudo_labels is not None:
            run.metrics(arm.pseudo_labels.metrics(arm.name))
    run.flush()
    return taught


def pseudo_labelled(arm: Arm, comparison: EstimatorPlan, datasets: DatasetCache) -> TrainingSamples:
    """Return the unlabelled images of an arm with its pseudo-labels."""
    assert arm.teachers_of is not None, "an adapted arm"
    assert arm.pseudo_labels is not None, "teach_students comes before estimate"
    with np.load(pseudo_labels_file(arm.pseudo_labels)) as kept:
        gaze = kept["gaze"]
    images = datasets.load(comparison.datasets[arm.teachers_of]).images
    return TrainingSamples(images, {"gaze": gaze})


def _taught(arm: Arm, plan: EstimatorPlan, datasets: DatasetCache) -> Arm:
    if arm.teachers_of is None:
        return arm
    labels = _pseudo_labels(
        arm.title,
        *(arm.datasets, arm.teachers, arm.teachers_of, plan, datasets),
        by_landmarks=True,
    )
    return arm.model_copy(update={"pseudo_labels": labels})


def _pseudo_labels(
    title: str,
    own: Sequence[str],
    others: Sequence[str],
    place: str,
    plan: EstimatorPlan,
    datasets: DatasetCache,
    *,
    by_landmarks: bool,
) -> PseudoLabelsRef:
    """Average the predictions of two estimators a simulator, and landmarks', centred alike.

    `own` are one simulator's datasets, its synthetic images, refined ones, or both, in this order;
    `others` other simulators', one each, and `place` is that of the unlabelled images.
    """
    config = plan.estimator
    own_infos, other_infos = ([plan.datasets[url] for url in urls] for urls in (own, others))
    unlabelled = plan.datasets[place]
    name = content_id(
        "pseudo-labels",
        {
            "sources": [info.digest for info in (*own_infos, *other_infos)],
            "unlabelled": unlabelled.digest,
            "estimator": config.model_dump(mode="json"),
            "by_landmarks": by_landmarks,
            "recipe": recipe_version("estimate"),
        }
        | ({} if len(own) == 1 else {"stacked": True}),
    )
    path = home() / "pseudo_labels" / f"{name}.npz"
    with tracked_run(COMPARISONS, name, name, {"stage": "pseudo-labels"}) as run:
        is_new = not path.exists()
        if is_new:
            kept_arrays = _predicted(
                own_infos, other_infos, unlabelled, config, datasets, by_landmarks
            )
            write_atomically(path, kept_arrays)
        # Known or not: workers on other machines get them from this MLflow.
        run.artifact_once(path)
        with np.load(path) as kept:
            neighbours, steps = kept["centring"].tolist()
            agreement, uncentred = kept["agreement"].tolist()
            landmarks = landmark_teacher(kept["landmarks"]) if by_landmarks else None
            eye_pairs = _eye_pairs(kept["eye_pairs"]) if by_landmarks else None
            refined_weight = kept["refined_weight"].item() if len(own) > 1 else None
            by_head_pose = kept["by_head_pose"].item()
            spread = spread_of(kept["pitchyaw_deg"])
        alone = not others
        found = PseudoLabelsRef(
            id=name,
            num_sources=1 + len(others),
            num_neighbours=neighbours,
            num_steps=steps,
            agreement=None if alone else agreement,
            agreement_uncentred=None if alone else uncentred,
            landmarks=landmarks,
            eye_pairs=eye_pairs,
            by_head_pose=by_head_pose,
            refined_weight=refined_weight,
            spread=spread,
        )
        run.metrics(found.metrics("pseudo_labels"))
    logger.log(logging.INFO if is_new else logging.DEBUG, "%s: %s", title, found)
    return found


def _predicted(
    own: list[DatasetInfo],
    others: list[DatasetInfo],
    unlabelled: DatasetInfo,
    config: EstimatorConfig,
    datasets: DatasetCache,
    by_landmarks: bool,
) -> dict[str, NDArray[Any]]:
    block = datasets.load(unlabelled)
    images = block.images
    # What judges refiners stays as it was measured: without landmarks, pairs and head poses.
    head_pose = known_head_pose(block) if by_landmarks else None
    landmark_gaze = landmark_gaze_deg(unlabelled, images) if by_landmarks else None
    of_own = [_predictions_of(info, images, config, datasets) for info in own]
    kept: dict[str, NDArray[Any]] = {}
    if len(of_own) == 1:
        (of_simulator,) = of_own
    else:
        of_synthetic, of_refined = of_own
        assert landmark_gaze is not None, "what judges refiners has one dataset a simulator"
        weight = stacking_weight(of_synthetic, of_refined, landmark_gaze)
        of_simulator = (1 - weight) * of_synthetic + weight * of_refined
        kept["refined_weight"] = np.array(weight)
    by_simulator = [
        of_simulator,
        *(_predictions_of(info, images, config, datasets) for info in others),
    ]
    predicted, partner = np.mean(by_simulator, axis=0), None
    if landmark_gaze is not None:
        averaged = average_with_landmarks(predicted, landmark_gaze)
        partner = partner_rows(block.ids)
        of_pairs = average_over_pairs(averaged.predictions_deg, partner)
        predicted, partner = of_pairs.predictions_deg, partner if of_pairs.is_used else None
        kept["landmarks"] = np.array(averaged[1:], np.float64)
        kept["eye_pairs"] = np.array(of_pairs[1:], np.float64)
    centring, agreement = DEFAULT_CENTRING, (np.nan, np.nan)
    if others:
        chosen = choose_centring(by_simulator, images, _SEED, head_pose, partner)
        centring, agreement = chosen.centring, (chosen.agreement, chosen.agreement_uncentred)
    # Centring is linear: the mean of centred predictions is the centred mean.
    centred = centre_by_look(predicted, images, _SEED, centring, head_pose, partner)
    return kept | {
        "gaze": gaze_from_pitchyaw(np.radians(centred)).astype(np.float32),
        "pitchyaw_deg": centred,
        "centring": np.array(centring),
        "agreement": np.array(agreement),
        "by_head_pose": np.array(head_pose is not None),
    }


def _eye_pairs(figures: NDArray[np.float64]) -> EyePairs | None:
    """Return what a `PairAverage` says beside its predictions [3]; None where ids name no pairs."""
    share, agreement, is_used = figures.tolist()
    if share == 0:
        return None
    return EyePairs(share=share, agreement=agreement, is_used=bool(is_used))


def _predictions_of(
    source: DatasetInfo,
    images: NDArray[np.uint8] | NDArray[np.uint16],
    config: EstimatorConfig,
    datasets: DatasetCache,
) -> NDArray[np.float64]:
    """Return the mean prediction [N, 2] in degrees of a dataset's estimators, unmatched."""
    block = datasets.load(source)
    samples = TrainingSamples.of_block(block, source)
    predicted = [
        predictions_deg(
            trained_estimator(plain_estimator_id(source, config, seed), config, samples, seed),
            images,
        )
        for seed in TEACHER_SEEDS
    ]
    return np.asarray(np.mean(predicted, axis=0))
