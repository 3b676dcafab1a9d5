"""The report of a visual Turing test on the MLflow run of the refiner that made the images."""

from pathlib import Path

from simgan_core.errors import InputError
from tasks.runtime.tracking.experiments import REFINERS
from tasks.runtime.tracking.runs import tracked_run
from tasks.turing.report import PartResult, TuringReport


def track(report: TuringReport, page: Path) -> str:
    """Put the report on the MLflow run of the refiner whose images were shown; returns its id.

    Raises InputError where the refined images do not say which refiner made them.
    """
    refined = report.study.datasets["refined"]
    if refined.refiner is None:
        raise InputError(
            f"dataset {refined.url} does not say which refiner made it, so there is no MLflow run "
            "to put the report on; leave out --mlflow"
        )
    with tracked_run(REFINERS, refined.refiner, refined.refiner) as run:
        for part in report.parts:
            run.metrics({f"turing.{part.made}_vs_real.{k}": v for k, v in _figures(part).items()})
        run.tags({f"turing.{part.made}_vs_real": part.verdict for part in report.parts})
        run.artifact(page, f"turing/{report.study.id}")
    return run.run_id


def _figures(part: PartResult) -> dict[str, float]:
    figures = {
        "share_right": part.right.share,
        "share_right_ci95_low": part.right.ci95[0],
        "share_right_ci95_high": part.right.ci95[1],
        "p_value": part.right.p_value,
        "num_answers": part.right.total,
        "num_subjects": len(part.subjects),
    }
    if part.reaction is not None:
        figures["reaction_median_ms"] = part.reaction.median_ms
    return figures
