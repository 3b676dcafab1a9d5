"""What each part of the method is worth: the same training without it, and what that costs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from simgan_core.checkpoint import load_refiner
from simgan_core.config import RegularizationConfig, TrainingConfig
from tasks.policies import CACHE

logger = logging.getLogger(__name__)

FIGURES = {
    "realism/kid": "KID",
    "realism/classifier_accuracy": "classifier",
    "labels/pupil_shift_px.mean": "shift, px",
    "error_deg": "error, °",
}
"""What the table shows, and how it calls it."""


class AblationRow(BaseModel):
    """One way of training, over all its seeds."""

    model_config = ConfigDict(frozen=True)

    variant: str
    figures: dict[str, tuple[float, ...]]
    """By name, a value for each seed of the refiner that has one."""


class Ablation(BaseModel):
    """All ways of training, in one table."""

    model_config = ConfigDict(frozen=True)

    synthetic_error_deg: float
    """Of estimators trained on synthetic images as they are."""
    rows: tuple[AblationRow, ...]


def variants(config: TrainingConfig) -> dict[str, TrainingConfig]:
    """Return the training as it is, and once without each part that it has."""

    def changed(**parts: object) -> TrainingConfig:
        return TrainingConfig.model_validate({**config.model_dump(), **parts})

    discriminator, psi = config.discriminator, config.regularization
    found = {"as it is": config}
    if config.history_size > 0:
        found["no history"] = changed(history_size=0)
    if discriminator.scope == "local":
        found["global adversary"] = changed(
            discriminator={**discriminator.model_dump(), "scope": "global"}
        )
    identity_only = RegularizationConfig(identity=psi.identity or 1.0, gradient=0.0)
    if psi != identity_only:
        found["identity-only ψ"] = changed(regularization=identity_only.model_dump())
    if config.match_labels_by is not None:
        found["no label matching"] = changed(match_labels_by=None)
    if config.ema_decay > 0:
        found["no averaging"] = changed(ema_decay=0.0)
    if config.refiner.residual:
        found["no residual"] = changed(
            refiner={**config.refiner.model_dump(), "residual": False},
            refiner_pretraining_steps=max(config.refiner_pretraining_steps, 500),
        )
    return found


@task(name="measure-variant", cache_policy=CACHE)
def measure_variant(refiner_path: str, error_deg: float) -> dict[str, float]:
    """Gather what is known of one refiner: its last examination, and the estimator's error."""
    figures: Mapping[str, float] = load_refiner(Path(refiner_path)).metadata["figures"]
    return {"error_deg": error_deg, **{name: figures[name] for name in FIGURES if name in figures}}


@task(name="tabulate-ablation", cache_policy=CACHE)
def tabulate(measured: dict[str, list[dict[str, float]]], synthetic_error_deg: float) -> Ablation:
    """Lay all figures out, in Prefect too."""
    rows = tuple(
        AblationRow(
            variant=variant,
            figures={
                name: tuple(seed[name] for seed in of_seeds if name in seed) for name in FIGURES
            },
        )
        for variant, of_seeds in measured.items()
    )
    ablation = Ablation(synthetic_error_deg=synthetic_error_deg, rows=rows)
    create_markdown_artifact(table(ablation), key="ablation", description="Ablation")
    return ablation


def table(ablation: Ablation) -> str:
    """Return the table in Markdown: means ± standard deviations over the refiner's seeds."""
    lines = [
        "| training | " + " | ".join(FIGURES.values()) + " |",
        "|---|" + "---:|" * len(FIGURES),
    ]
    for row in ablation.rows:
        cells = [_cell(row.figures.get(name, ())) for name in FIGURES]
        lines.append(f"| {row.variant} | " + " | ".join(cells) + " |")
    lines.append(f"\nestimators on synthetic images: {ablation.synthetic_error_deg:.2f}°")
    return "\n".join(lines)


def _cell(values: tuple[float, ...]) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"
