"""Errors on pseudo-labels as evidence in MLflow's registry: the best refiner is the champion."""

from collections.abc import Mapping

from tasks.comparison.criterion import criterion_id, doubt_of_teachers
from tasks.comparison.plan import Arm, EstimatorPlan
from tasks.runtime.tracking.champion import Measurement, choose_champion, remember_measurement


def decide_champion(
    plan: EstimatorPlan, errors_deg: Mapping[str, tuple[float, float | None]]
) -> str | None:
    """Record the errors of refined arms on their refiners; returns the decision about the champion.

    `errors_deg` holds mean and deviation between seeds by arm. Refiners that MLflow does not know,
    and images that were not refined from the plan's synthetic dataset, are left out. None where
    nothing follows, as where the teachers are in doubt.
    """
    if plan.pseudo_labels is None or doubt_of_teachers(plan.pseudo_labels, plan.label_prior):
        return None
    criterion = None
    for arm in plan.arms:
        if arm.name in errors_deg and _is_a_refiners(arm, plan):
            criterion = criterion_id(plan, arm)
            _remember(arm, plan, criterion, *errors_deg[arm.name])
    return None if criterion is None else choose_champion(criterion)


def _is_a_refiners(arm: Arm, plan: EstimatorPlan) -> bool:
    """Return true where an arm is a refiner's whole output for the plan's synthetic dataset."""
    if arm.training_set != "refined" or arm.num_rows is not None or arm.method is not None:
        return False
    made = plan.datasets[arm.datasets[0]].spec.provenance
    return made.get("parent_digest") == plan.datasets[plan.judged_by[0]].digest


def _remember(
    arm: Arm, plan: EstimatorPlan, criterion: str, error_deg: float, sd_deg: float | None
) -> None:
    assert plan.judged_on is not None, "judged"
    refined = plan.datasets[arm.datasets[0]]
    synthetic, unlabelled = plan.datasets[plan.judged_by[0]], plan.datasets[plan.judged_on]
    measurement = Measurement(
        criterion=criterion,
        measured_by=plan.id,
        error_deg=error_deg,
        sd_deg=sd_deg,
        synthetic=synthetic.url,
        synthetic_digest=synthetic.digest,
        unlabelled=unlabelled.url,
        unlabelled_digest=unlabelled.digest,
        teachers=plan.judged_by[1:],
        refined=refined.url,
    )
    remember_measurement(str(refined.spec.provenance["refiner"]), measurement)
