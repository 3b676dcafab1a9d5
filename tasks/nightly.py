"""Rules of the nightly run: when to retrain, and when refined images got worse."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from pydantic import Field, ValidationError

from simgan_core.atomic_file import atomic_write
from simgan_core.config import Config, TrainingConfig
from storage.schema import DatasetInfo
from tasks.comparison.reporting.results import ComparisonResult
from tasks.runtime.content_ids import content_id
from tasks.runtime.paths import home
from tasks.runtime.policies import CACHE, REFINED_GOT_WORSE
from tasks.training.train import finished_refiner

logger = logging.getLogger(__name__)


class RetrainRule(Config):
    """Rule for retraining: when a nightly run trains a new refiner instead of using the last."""

    grown_by: float = Field(default=0.25, gt=0)
    """Train when the synthetic dataset has grown by this share since the last training."""
    after_days: int = Field(default=30, ge=1)
    """Train when the last training is this many days ago."""
    when_worse: bool = True
    """Train when the last comparison found refined images worse than synthetic ones."""


class LastTraining(Config):
    """Refiner in use and its training, kept in the folder from one nightly run to the next."""

    refiner: str
    num_synthetic: int
    """Rows that it was trained on."""
    real_digest: str
    config: TrainingConfig
    trained_at: datetime
    worse: bool = False
    """True where the last comparison found its images worse than synthetic ones."""

    @classmethod
    def read(cls, out: str) -> Self | None:
        """Read what the last nightly run of this folder wrote; None before the first.

        None also where a release with other settings wrote it: the run then trains a new refiner.
        """
        try:
            return cls.model_validate_json(_memory(out).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            logger.warning(
                "%s is not what this release writes, and is left out: %s",
                _memory(out),
                "; ".join(each["msg"] for each in error.errors(include_url=False)),
            )
            return None

    def write(self, out: str) -> None:
        """Write it for the next nightly run."""
        with atomic_write(_memory(out)) as file:
            file.write(self.model_dump_json(indent=2).encode())


class Decision(NamedTuple):
    """Decision whether to train, with its reason."""

    refiner: str | None
    """The refiner to go on with; None to train a new one."""
    reason: str


@task(name="decide-retraining", cache_policy=CACHE)
def decide_retraining(
    out: str, synthetic: DatasetInfo, real: DatasetInfo, config: TrainingConfig, rule: RetrainRule
) -> Decision:
    """Apply the rule and show its decision as an artifact of the run."""
    last = LastTraining.read(out)
    finished = None if last is None else finished_refiner(synthetic.url, real.url, config)
    decision = decide(last, synthetic, real, config, rule, datetime.now(UTC), finished)
    what = "Train a new refiner" if decision.refiner is None else f"Go on with {decision.refiner}"
    logger.info("%s: %s", what, decision.reason)
    create_markdown_artifact(
        f"**{what}**: {decision.reason}.\n\nThe rule: train when the synthetic dataset has grown "
        f"by {rule.grown_by:.0%}, after {rule.after_days} days"
        f"{', when refined images got worse' if rule.when_worse else ''}, and when the real images "
        "or the training's settings have changed. The same images and settings, the seed among "
        "them, give the same refiner, which is not trained twice.",
        key="retraining",
        description=f"{what}: {decision.reason}.",
    )
    return decision


def decide(
    last: LastTraining | None,
    synthetic: DatasetInfo,
    real: DatasetInfo,
    config: TrainingConfig,
    rule: RetrainRule,
    now: datetime,
    finished: str | None = None,
) -> Decision:
    """Return the first reason for a new refiner that holds, or the decision to keep the last.

    `finished` is the refiner that a training would find finished, if any: where that is the last
    one, nothing would be trained.
    """
    if last is None:
        return Decision(None, "there is none yet")
    grown = synthetic.spec.num_rows / last.num_synthetic - 1
    age = now - last.trained_at
    reasons = {
        "the real images have changed": last.real_digest != real.digest,
        "the training's settings have changed": last.config != config,
        "refined images trained worse estimators than synthetic ones": (
            rule.when_worse and last.worse
        ),
        f"the synthetic dataset has grown by {grown:.0%}": grown >= rule.grown_by,
        f"the last training was {age.days} days ago": age >= timedelta(days=rule.after_days),
    }
    for reason, holds in reasons.items():
        if holds and finished == last.refiner:
            return Decision(
                last.refiner,
                f"{reason}, but a training of the same images by the same settings and seed would "
                "give this refiner again; add images, or change the training's seed or settings",
            )
        if holds:
            return Decision(None, reason)
    return Decision(
        last.refiner,
        f"the synthetic dataset has grown by {grown:.0%} in {age.days} days, and nothing else "
        "has changed",
    )


@task(name="remember-training", cache_policy=CACHE)
def remember_training(
    out: str, refiner: str, synthetic: DatasetInfo, real: DatasetInfo, config: TrainingConfig
) -> None:
    """Store the new refiner as the one in use for the next nightly runs."""
    LastTraining(
        refiner=refiner,
        num_synthetic=synthetic.spec.num_rows,
        real_digest=real.digest,
        config=config,
        trained_at=datetime.now(UTC),
    ).write(out)


@task(name="watch-outcome", cache_policy=CACHE)
def watch_outcome(out: str, result: ComparisonResult) -> None:
    """Store the comparison's outcome; raise an event where refined images are worse."""
    last = LastTraining.read(out)
    worse = got_worse(result)
    if last is not None:
        last.model_copy(update={"worse": worse}).write(out)
    if worse:
        logger.warning("refined images got worse: %s", result.verdict)
        raise_alarm(result)


def got_worse(result: ComparisonResult) -> bool:
    """True where refined training images are worse: the interval of the difference is above 0."""
    difference = result.differences.get("refined_minus_synthetic")
    return difference is not None and difference.is_worse


def raise_alarm(result: ComparisonResult) -> None:
    """Emit the event that triggers the automation of `simgan up`."""
    emit_event(
        REFINED_GOT_WORSE,
        resource={
            "prefect.resource.id": f"simgan.comparison.{result.comparison}",
            "prefect.resource.name": result.comparison,
        },
        payload={
            "verdict": result.verdict,
            "refined_minus_synthetic": (
                result.differences["refined_minus_synthetic"].model_dump(mode="json")
            ),
            "mlflow_run_id": result.mlflow_run_id,
        },
    )


def _memory(out: str) -> Path:
    return home() / "nightly" / f"{content_id('nightly', {'out': out})}.json"
