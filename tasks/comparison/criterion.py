"""Error on pseudo-labels: the criterion by which refiners are ordered without real labels.

Estimators trained on an arm's images predict the gaze of unlabelled real images, and are compared
with what teachers, estimators of the unrefined synthetic images, predict there, centred by look.
"""

import numpy as np

from simgan_core.models.estimator import Estimator
from tasks.comparison.kept_files import pseudo_labels_file
from tasks.comparison.label_prior import predictions_deg
from tasks.comparison.plan import Arm, EstimatorPlan, LabelPriorRef, PseudoLabelsRef
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.recipes import recipe_version

PSEUDO_LABEL_ERROR = "pseudo_label_error_deg"
"""Name of the figure in MLflow and in JSON."""
MAX_IMAGES = 4000
"""Unlabelled images that are predicted on; chosen at random where there are more."""
_SEED = 0
_TEACHING = {"synthetic", "synthetic_unmatched"}


def is_judged(arm: Arm) -> bool:
    """Return whether an arm's estimators are judged: networks that learn from synthetic or refined.

    Not judged are those that have seen real or pseudo-labels, and those of synthetic images as they
    are, which the teachers are two of.
    """
    from_teachers = arm.training_set in _TEACHING and not arm.matched and arm.num_rows is None
    learns_otherwise = arm.method is not None or arm.teachers_of is not None
    return not (from_teachers or learns_otherwise or arm.training_set.startswith("real"))


def error_on_pseudo_labels_deg(
    estimator: Estimator, plan: EstimatorPlan, datasets: DatasetCache
) -> float:
    """Return the mean distance of predictions from pseudo-labels, in degrees.

    Distances are Euclidean in pitch and yaw, of at most MAX_IMAGES unlabelled images.
    """
    assert plan.judged_on is not None, "planned so"
    assert plan.pseudo_labels is not None, "teach_students comes before"
    images = datasets.load(plan.datasets[plan.judged_on]).images
    with np.load(pseudo_labels_file(plan.pseudo_labels)) as kept:
        labels_deg = kept["pitchyaw_deg"]
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(images))[:MAX_IMAGES])
    away_deg = predictions_deg(estimator, images[rows]) - labels_deg[rows]
    return float(np.linalg.norm(away_deg, axis=1).mean())


def doubt_of_teachers(labels: PseudoLabelsRef, prior: LabelPriorRef | None) -> str:
    """Return the reason not to trust errors on pseudo-labels; empty if they are trusted.

    Teachers of one simulator, or with predictions that spread hardly wider than their error, favour
    refiners that change nothing.
    """
    if labels.num_sources < 2:
        return (
            "teachers of one simulator alone favour refiners that change nothing; --teachers adds "
            "another simulator's"
        )
    if prior is None:
        return "without label matching the teachers' predictions are not checked"
    return prior.doubt


def criterion_id(plan: EstimatorPlan, arm: Arm) -> str:
    """Return the id of a measurement's conditions: errors of equal ids are comparable.

    That is the simulators' and the unlabelled images, the estimators' recipe, their label matching
    and their number.
    """
    assert plan.pseudo_labels is not None, "teach_students comes before"
    prior = plan.label_prior
    content = {
        "pseudo_labels": plan.pseudo_labels.id,
        "label_prior": prior.id if arm.matched and prior is not None else None,
        "seeds": plan.seeds,
        "recipe": recipe_version("compare"),
    }
    return content_id("criterion", content)
