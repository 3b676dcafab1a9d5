"""Label matching: estimate the gaze distribution of unlabelled real images from synthetic ones."""

import logging
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prefect import task

from simgan_core.config import EstimatorConfig, TrainingConfig
from simgan_core.data.label_matching import (
    PSEUDO_LABEL_ERROR_SD_DEG,
    LabelPrior,
    error_spread_deg,
    estimate_label_prior,
    load_label_prior,
    save_label_prior,
)
from simgan_core.estimation.adaptation import average_with_landmarks, centre_by_look
from simgan_core.estimation.eye_pairs import average_over_pairs, partner_rows
from simgan_core.estimation.gaze_training import predict_gaze
from simgan_core.gaze import pitchyaw_from_gaze
from simgan_core.models.estimator import Estimator
from storage.samples import SampleBlock
from storage.schema import HEAD_POSE, DatasetInfo
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.estimators import (
    TrainingSamples,
    plain_estimator_id,
    trained_estimator,
    with_number_format,
)
from tasks.comparison.landmark_gaze import landmark_gaze_deg
from tasks.comparison.plan import Arm, LabelPriorRef, LabelSpread, Plan
from tasks.runtime.compatibility import (
    require_distinct,
    require_domain,
    require_gaze,
    require_same_images,
    require_valid_rows,
)
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.paths import home
from tasks.runtime.policies import CACHE
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position
from tasks.runtime.tracking.experiments import COMPARISONS
from tasks.runtime.tracking.runs import begin_run, tracked_run

logger = logging.getLogger(__name__)

TEACHER_SEEDS = (0, 1)
"""Seeds of the two estimators whose predictions are pooled: the first two of an unmatched arm."""
_NUM_FOLDS = 5
"""Parts into which identities are divided; estimators are trained without each in turn."""
_HELD_OUT_SHARE = 0.1
"""Share of the images that is held out where ids tell no identities."""
_SPLIT_SEED = 0


@task(name="estimate-label-prior", cache_policy=CACHE)
def estimate_prior(synthetic: str, unlabelled: str, estimator: EstimatorConfig) -> LabelPriorRef:
    """Estimate the gaze distribution of unlabelled real images, or load a stored estimate.

    Estimators are trained on the synthetic dataset with its labels as they are, and, where eye
    landmarks do not confirm what they predict, without some of its identities in turn, to know
    their error. Labels of `unlabelled` are not read.
    """
    datasets = DatasetCache()
    infos = {"synthetic": datasets.find(synthetic), "unlabelled": datasets.find(unlabelled)}
    require_distinct(infos)
    require_domain(infos["unlabelled"], "unlabelled", "real")
    for info in infos.values():
        require_valid_rows(info)
    return _estimated(infos["synthetic"], infos["unlabelled"], estimator, datasets)


@task(name="match-labels", cache_policy=CACHE)
def match_labels(comparison: Plan, datasets: DatasetCache) -> Plan:
    """Estimate the label prior that a plan's arms share, where it matches labels."""
    if comparison.unlabelled is None or comparison.prior_source is None:
        return comparison
    prior = _estimated(
        comparison.datasets[comparison.prior_source],
        comparison.datasets[comparison.unlabelled],
        comparison.estimator,
        datasets,
    )
    arms = comparison.arms
    if prior.doubt and not comparison.match_doubtful_labels:
        logger.warning("labels are not matched: %s", prior.doubt)
        arms = _unmatched(arms)
    matched = comparison.model_copy(update={"label_prior": prior, "arms": arms})
    run = begin_run(COMPARISONS, comparison.id, comparison.id)
    # `compare --from-mlflow` rebuilds its tables from this file.
    run.text("comparison.json", matched.model_dump_json(indent=2))
    return matched


@task(name="match-training-labels", cache_policy=CACHE)
def with_matched_labels(
    training: TrainingConfig,
    synthetic: str,
    real: str,
    estimator: EstimatorConfig,
    comparison: ComparisonConfig,
) -> TrainingConfig:
    """Match the labels of a refiner's training by the prior of its comparison.

    The training stays as it is where it names a prior itself, the comparison matches no labels, the
    estimate is doubtful, or no gaze is labelled.
    """
    datasets = DatasetCache()
    info = datasets.find(synthetic)
    labelled = {label.name for label in info.spec.labels}
    by_real_labels = comparison.protocol.name == "leave-one-person-out"
    never = comparison.match_labels == "never" or by_real_labels
    if training.match_labels_by or never or "gaze" not in labelled:
        return training
    prior = _estimated(info, datasets.find(real), estimator, datasets)
    if prior.doubt and comparison.match_labels == "auto":
        logger.warning("the refiner is trained without label matching: %s", prior.doubt)
        return training
    return training.model_copy(update={"match_labels_by": prior.path})


def _unmatched(arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
    """Return the arms without label matching; `synthetic` then equals `synthetic_unmatched`."""
    names = {arm.training_set for arm in arms}
    return tuple(
        arm.model_copy(update={"matched": False})
        for arm in arms
        if arm.training_set != "synthetic_unmatched" or "synthetic" not in names
    )


def _estimated(
    synthetic: DatasetInfo, unlabelled: DatasetInfo, config: EstimatorConfig, datasets: DatasetCache
) -> LabelPriorRef:
    require_gaze(synthetic)
    require_same_images(synthetic, unlabelled, "synthetic", "unlabelled real")
    # The real images' head poses may be unknown.
    config = with_number_format(config.model_copy(update={"head_pose": False}))
    content = {
        "synthetic": synthetic.digest,
        "unlabelled": unlabelled.digest,
        "estimator": config.model_dump(mode="json"),
        "recipe": recipe_version("estimate"),
    }
    name = content_id("label-prior", content)
    path = home() / "label_priors" / f"{name}.npz"
    block = datasets.load(synthetic)
    samples = TrainingSamples.of_block(block, synthetic)
    labels_deg = angles_deg(block.labels["gaze"])
    folds, by_identity = _folds(block.ids, samples.image_of_row)
    with tracked_run(COMPARISONS, name, name, {"stage": "label-prior"}) as run:
        is_new = not path.exists()
        run.params(config.model_dump())
        run.datasets({"synthetic": synthetic, "unlabelled": unlabelled})
        if is_new:
            real = datasets.load(unlabelled)
            images = real.images
            plain = [
                trained_estimator(
                    plain_estimator_id(synthetic, config, seed), config, samples, seed
                )
                for seed in TEACHER_SEEDS
            ]
            real_deg = np.stack([predictions_deg(each, images) for each in plain])
            averaged = average_with_landmarks(
                real_deg.mean(axis=0), landmark_gaze_deg(unlabelled, images)
            )
            if averaged.sets_mean_pitch:
                partner = partner_rows(real.ids)
                of_pairs = average_over_pairs(averaged.predictions_deg, partner)
                pseudo_labels_deg = centre_by_look(
                    of_pairs.predictions_deg,
                    images,
                    _SPLIT_SEED,
                    head_pose=known_head_pose(real),
                    partner=partner if of_pairs.is_used else None,
                )
                made = _by_pseudo_labels(pseudo_labels_deg, labels_deg)
            else:
                held_out = _held_out(synthetic, config, samples, folds)
                made = _by_estimators(real_deg, held_out, labels_deg, by_identity=by_identity)
            save_label_prior(path, made)
        # Known or not: workers on other machines get it from this MLflow.
        run.artifact_once(path)
        prior = load_label_prior(path)
        found = LabelPriorRef(
            id=name,
            path=str(path),
            unlabelled_digest=unlabelled.digest,
            estimated=_spread_of(prior),
            training=spread_of(labels_deg),
            error_sd_deg=_pair(prior.error_sd_deg),
            held_out_by=_held_out_by(prior, by_identity=by_identity),
            signal_share=_pair(prior.signal_share),
            num_iterations=prior.num_iterations,
            effective_share=prior.effective_share(labels_deg),
            doubt=prior.doubt,
        )
        run.metrics(found.metrics())
    logger.log(logging.INFO if is_new else logging.DEBUG, "%s", found)
    return found


def known_head_pose(block: SampleBlock) -> NDArray[np.float32] | None:
    """Return the head poses [N, 3] of unlabelled images, where pitch and yaw of all are known."""
    poses = block.labels.get(HEAD_POSE.name)
    if poses is None:
        return None
    is_known = np.isfinite(poses[:, :2]).all(axis=1)
    if is_known.all():
        return poses
    if is_known.any():
        logger.warning(
            "head poses are not used: that of %s of %s unlabelled images is not known",
            f"{np.count_nonzero(~is_known):,}",
            f"{len(poses):,}",
        )
    return None


def _by_pseudo_labels(
    pseudo_labels_deg: NDArray[np.float64], labels_deg: NDArray[np.float64]
) -> LabelPrior:
    """Estimate the prior behind pseudo-labels [M, 2], whose error is known from other people."""
    sd_deg = (PSEUDO_LABEL_ERROR_SD_DEG, PSEUDO_LABEL_ERROR_SD_DEG)
    prior = estimate_label_prior(pseudo_labels_deg[None], labels_deg, sd_deg, seed=_SPLIT_SEED)
    return replace(prior, by_landmarks=True)


def _by_estimators(
    real_deg: NDArray[np.float64],
    held_out: "_HeldOut",
    labels_deg: NDArray[np.float64],
    *,
    by_identity: bool,
) -> LabelPrior:
    """Estimate the prior behind the predictions [2, M, 2] of two seeds as they are."""
    sd_deg = error_spread_deg(
        held_out.predicted_deg, labels_deg[held_out.rows], real_deg, by_identity=by_identity
    )
    return estimate_label_prior(real_deg, labels_deg, sd_deg, _SPLIT_SEED)


def _held_out_by(prior: LabelPrior, *, by_identity: bool) -> Literal["identity", "row", "none"]:
    if prior.by_landmarks:
        return "none"
    return "identity" if by_identity else "row"


def angles_deg(gaze: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return pitch and yaw [N, 2] in degrees of gaze vectors [N, 3]."""
    return np.degrees(pitchyaw_from_gaze(gaze)).astype(np.float64)


def spread_of(labels_deg: NDArray[np.float64]) -> LabelSpread:
    """Return mean and standard deviation of pitch and yaw [N, 2]."""
    return LabelSpread(
        mean_deg=_pair(labels_deg.mean(axis=0)), sd_deg=_pair(labels_deg.std(axis=0))
    )


class _HeldOut(NamedTuple):
    rows: NDArray[np.intp]
    """Rows [n] that were held out."""
    predicted_deg: NDArray[np.float64]
    """Predictions of two seeds on them [2, n, 2], neither trained on them."""


def _held_out(
    synthetic: DatasetInfo,
    config: EstimatorConfig,
    samples: TrainingSamples,
    folds: list[NDArray[np.intp]],
) -> _HeldOut:
    predicted = []
    everything = np.arange(len(samples.images))
    for number, rows in enumerate(folds):
        words = "estimating the gaze distribution: fold %d of %d"
        at = position("estimating the gaze distribution", number, len(folds))
        logger.info(words, number + 1, len(folds), extra=at)
        kept = samples.of_rows(np.setdiff1d(everything, rows))
        left_out = ["fold", number, len(folds), len(rows)]
        trained = [
            trained_estimator(
                plain_estimator_id(synthetic, config, seed, left_out), config, kept, seed
            )
            for seed in TEACHER_SEEDS
        ]
        predicted.append([predictions_deg(each, samples.images[rows]) for each in trained])
    at = position("estimating the gaze distribution", len(folds), len(folds))
    logger.info("estimating the gaze distribution: held-out predictions done", extra=at)
    by_seed = np.concatenate([np.stack(each) for each in predicted], axis=1)
    return _HeldOut(np.concatenate(folds), by_seed)


def _folds(
    ids: list[str], image_of_row: NDArray[np.int64] | None
) -> tuple[list[NDArray[np.intp]], bool]:
    """Divide rows by identity, the first part of their ids; else hold out a tenth at random.

    Rows of one image stay together. Returns the parts, and whether identities were told.
    """
    first = np.array([each.partition("/")[0] if "/" in each else "" for each in ids])
    identities = np.unique(first)
    if "" in identities or not 2 <= len(identities) <= len(ids) // 2:
        numbers = np.arange(len(ids)) if image_of_row is None else image_of_row
        num_images = int(numbers.max()) + 1
        order = np.random.default_rng(_SPLIT_SEED).permutation(num_images)
        held_out = order[: max(1, round(_HELD_OUT_SHARE * num_images))]
        return [np.flatnonzero(np.isin(numbers, held_out))], False
    count = min(_NUM_FOLDS, len(identities))
    parts = [np.flatnonzero(np.isin(first, identities[part::count])) for part in range(count)]
    return parts, True


def predictions_deg(
    estimator: Estimator, images: NDArray[np.uint8] | NDArray[np.uint16]
) -> NDArray[np.float64]:
    """Return the pitch and yaw [N, 2] in degrees that an estimator predicts on images."""
    return angles_deg(predict_gaze(estimator, images))


def _spread_of(prior: LabelPrior) -> LabelSpread:
    return LabelSpread(mean_deg=_pair(prior.mean_deg), sd_deg=_pair(prior.sd_deg))


def _pair(values: NDArray[np.float64]) -> tuple[float, float]:
    pitch, yaw = values
    return float(pitch), float(yaw)
