"""Ablation results: the same training without one part, and the difference in metrics."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from simgan_core.config import PARTS, Part, RegularizationConfig, TrainingConfig
from simgan_core.quality.artefacts import ArtefactDetector
from simgan_core.stats.bootstrap import bootstrap_difference
from storage.reader import open_dataset
from tasks.comparison.error_metrics import ERROR_METRICS, MeasureName
from tasks.comparison.plan import Estimate
from tasks.comparison.predictions import ArmPredictions, read_predictions
from tasks.comparison.reporting.analysis import BOOTSTRAP_SEED
from tasks.comparison.reporting.report import EvaluationResult
from tasks.comparison.reporting.results import Difference
from tasks.runtime.policies import CACHE
from tasks.runtime.refiners import open_refiner

FIGURES = {
    "realism/kid": "KID",
    "realism/classifier_accuracy": "classifier",
    "realism/artefacts": "artefacts",
    "labels/pupil_shift_px.mean": "shift, px",
    "error": "error,",
}
"""Columns of the table: metric and heading; the error's unit follows its heading."""
AS_IT_IS = "as it is"
_NUM_SEARCHED = 2000
"""Images of a dataset, at most, that are searched for artefacts or compared with."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class VariantSeed(_Model):
    """Metrics and predictions of one refiner of a variant."""

    figures: dict[str, float]
    """Of the validation that it was chosen by, "realism/artefacts" of the dataset that it made, and
    "error": the mean of its estimators."""
    answers: tuple[str, ...]
    """Files of its estimators' predictions on the test set."""


class AblationRow(_Model):
    """Row of the ablation table: one variant over all its seeds."""

    variant: str
    figures: dict[str, tuple[float, ...]]
    """By name, a value for each seed of the refiner that has one."""
    minus_as_it_is: Difference | None
    """Error of this way minus that of the training as it is, paired over refiners' seeds, people
    and images; None for the training as it is."""


class Ablation(_Model):
    """Ablation table of all variants."""

    measure: MeasureName
    synthetic_error: float
    """Of estimators trained on synthetic images as they are."""
    rows: tuple[AblationRow, ...]


def variants(
    config: TrainingConfig, label_prior: str | None, parts: Sequence[Part] = PARTS
) -> dict[str, TrainingConfig]:
    """Return the training as it is, and once without each of these parts that it has.

    Label matching is added instead of left out where the training has none, by the file of
    `label_prior`.
    """
    without = (_without(part, config, label_prior) for part in parts)
    return {AS_IT_IS: config} | {name: changed for name, changed in without if changed != config}


def _without(
    part: Part, config: TrainingConfig, label_prior: str | None
) -> tuple[str, TrainingConfig]:
    """Name the training without a part, and return it; the same one where it lacks the part."""
    changed: dict[str, object] = {}
    match part:
        case "history":
            name, changed = "no history", {"history_size": 0}
        case "local-adversary":
            scope = {**config.discriminator.model_dump(), "scope": "global"}
            name, changed = "global adversary", {"discriminator": scope}
        case "psi":
            identity = config.regularization.identity or 1.0
            psi = RegularizationConfig(identity=identity, gradient=0.0)
            name, changed = "identity-only ψ", {"regularization": psi.model_dump()}
        case "label-matching":
            name = f"{'with' if config.match_labels_by is None else 'no'} label matching"
            changed = {"match_labels_by": label_prior if config.match_labels_by is None else None}
        case "averaging":
            name, changed = "no averaging", {"ema_decay": 0.0}
        case "residual":
            name, refiner = "no residual", {**config.refiner.model_dump(), "residual": False}
            if config.family == "convolutional" and config.refiner.residual:
                # A refiner that does not start as the identity needs pretraining to it.
                steps = max(config.refiner_pretraining_steps, 500)
                changed = {"refiner": refiner, "refiner_pretraining_steps": steps}
    return name, TrainingConfig.model_validate({**config.model_dump(), **changed})


@task(name="measure-variant", cache_policy=CACHE)
def measure_variant(
    refiner: str, refined: str, real: str, evaluation: EvaluationResult
) -> VariantSeed:
    """Collect a refiner's validation metrics, its artefacts and its estimators' predictions."""
    figures: Mapping[str, float] = open_refiner(refiner).metadata["figures"]
    known = {name: figures[name] for name in FIGURES if name in figures}
    known["realism/artefacts"] = ArtefactDetector(_first_images(real)).share(_first_images(refined))
    return VariantSeed(figures=known | {"error": evaluation.arm.error}, answers=evaluation.answers)


def _first_images(dataset: str) -> NDArray[Any]:
    """Return a dataset's first images that are valid, as many as artefacts are looked for in."""
    return open_dataset(dataset).load(max_rows=_NUM_SEARCHED).images


@task(name="tabulate-ablation", cache_policy=CACHE)
def tabulate(measured: dict[str, list[VariantSeed]], synthetic: EvaluationResult) -> Ablation:
    """Make the table of all variants, also as a Prefect artifact; intervals as in comparisons."""
    measure = synthetic.arm.measure
    errors = {variant: _errors(seeds, measure) for variant, seeds in measured.items()}
    rows = tuple(
        AblationRow(
            variant=variant,
            figures={
                name: tuple(seed.figures[name] for seed in seeds if name in seed.figures)
                for name in FIGURES
            },
            minus_as_it_is=None
            if variant == AS_IT_IS
            else _difference(errors[variant], errors[AS_IT_IS], measure),
        )
        for variant, seeds in measured.items()
    )
    ablation = Ablation(measure=measure, synthetic_error=synthetic.arm.error, rows=rows)
    create_markdown_artifact(table(ablation), key="ablation", description="Ablation")
    return ablation


def _errors(
    seeds: list[VariantSeed], measure: MeasureName
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Return the error of each refiner's estimators, their mean, on each image [S, N]; and who.

    A refiner is one draw, however many estimators learnt from it: that is what seeds are here.
    """
    found: dict[str, ArmPredictions] = read_predictions(
        (
            Estimate(f"{number}", seed, "", path, None, float("nan"))
            for number, of_refiner in enumerate(seeds)
            for seed, path in enumerate(of_refiner.answers)
        ),
        measure,
    )
    groups = next(iter(found.values())).groups
    return np.stack([predictions.errors.mean(axis=0) for predictions in found.values()]), groups


def _difference(
    ours: tuple[NDArray[np.float64], NDArray[np.int64] | None],
    theirs: tuple[NDArray[np.float64], NDArray[np.int64] | None],
    measure: MeasureName,
) -> Difference:
    (errors, groups), (others, _) = ours, theirs
    interval = bootstrap_difference(errors, others, groups, BOOTSTRAP_SEED)
    return Difference(measure=measure, error=interval.mean, ci95=(interval.low, interval.high))


def table(ablation: Ablation) -> str:
    """Return the table in Markdown: means ± standard deviations over the refiner's seeds."""
    unit = ERROR_METRICS[ablation.measure].unit
    titles = [title + unit if name == "error" else title for name, title in FIGURES.items()]
    lines = [
        "| training | " + " | ".join(titles) + f" | minus {AS_IT_IS} |",
        "|---|" + "---:|" * (len(FIGURES) + 1),
    ]
    for row in ablation.rows:
        cells = [_cell(row.figures.get(name, ())) for name in FIGURES]
        lines.append(f"| {row.variant} | " + " | ".join([*cells, _gap(row.minus_as_it_is)]) + " |")
    lines.append(f"\nestimators on synthetic images: {ablation.synthetic_error:.2f}{unit}")
    return "\n".join(lines)


def _cell(values: tuple[float, ...]) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _gap(difference: Difference | None) -> str:
    if difference is None:
        return ""
    low, high = difference.ci95
    return f"{difference.error:+.2f} ({low:+.2f} to {high:+.2f})"
