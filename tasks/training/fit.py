"""One training process: from two datasets to the refiner's weights file and MLflow run."""

import logging
from pathlib import Path
from typing import Any

import torch

from simgan_core.compute.distributed import ALONE, DistributedContext
from simgan_core.config import TrainingConfig
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import LoadedRefiner, save_refiner
from simgan_core.training.trainer import TrainedRefiner, Trainer
from storage.reader import Dataset
from tasks.runtime.code_version import code_version
from tasks.runtime.devices import default_device, describe_compute
from tasks.runtime.processes.cancellation import EXIT_CODE, termination_noticed
from tasks.runtime.recipes import recipe_version
from tasks.runtime.refiners import open_refiner
from tasks.runtime.tracking.champion import CHAMPION_RULE, chosen_champion
from tasks.runtime.tracking.runs import REGISTERED_REFINER, TrackedRun
from tasks.training.data import open_training_data
from tasks.training.domain_report import report_domains
from tasks.training.sink import TrackedSink

logger = logging.getLogger(__name__)


def fit(
    weights: Path,
    synthetic: Dataset,
    real: Dataset,
    config: TrainingConfig,
    run: TrackedRun,
    distributed: DistributedContext = ALONE,
    may_lead: bool = True,
) -> None:
    """Train or resume until the refiner is at `weights`; raises SystemExit after SIGTERM.

    Only with `may_lead` can the refiner become the champion.
    """
    device = torch.device(default_device())
    checkpoint = weights.with_name("training.ckpt")
    data = open_training_data(synthetic, real, config, device)
    sink = TrackedSink(run)
    trainer = Trainer(
        config,
        data.synthetic,
        data.real,
        device,
        sink,
        pupil_px=data.pupil_px,
        features=data.features,
        estimator=data.estimator,
        distributed=distributed,
    )
    if distributed.is_first:
        report_domains(run, synthetic, real)
    with termination_noticed() as should_stop:
        trained = trainer.run(checkpoint, should_stop)
    if not trained.finished:
        logger.warning(
            "stopped by SIGTERM at step %d; the checkpoint is written; the same command resumes",
            trained.step,
        )
        raise SystemExit(EXIT_CODE)
    if not distributed.is_first:
        return
    logger.info("refiner trained in %s steps: %s", f"{trained.step:,}", trained.verdict)
    alias, reason = (
        _alias(trainer, trained, synthetic)
        if may_lead
        else ("candidate", "a variant of an ablation takes no part")
    )
    tags = {"simgan.verdict": trained.verdict, "simgan.alias": f"{alias}: {reason}"}
    run.tags(tags | {"simgan.champion_rule": CHAMPION_RULE})
    run.computed_by(describe_compute(trainer.precision))
    run.metrics({f"best/{name}": value for name, value in trained.metrics.items()}, trained.step)
    run.image("refined_while_training", sink.progress_picture())
    logger.debug("in MLflow it is %s: %s", alias, reason)
    outcome = {
        "verdict": trained.verdict,
        "figures": trained.metrics,
        "alias": alias,
        "may_lead": may_lead and trained.best_step is not None,
    }
    save_refiner(weights, trained.refiner, config, _metadata(weights, synthetic, real) | outcome)


def _alias(trainer: Trainer, trained: TrainedRefiner, synthetic: Dataset) -> tuple[str, str]:
    """Return the refiner's alias in the registry, champion or candidate, and the reason."""
    if trained.best_step is None:
        return "candidate", trained.verdict
    champion = _champion()
    if champion is None:
        return "champion", "there was none, and the label gate is passed"
    if not _takes(champion, synthetic):
        return "candidate", "not comparable: the champion is for another kind of images"
    return _against(champion, trainer, trained)


def _against(champion: LoadedRefiner, trainer: Trainer, trained: TrainedRefiner) -> tuple[str, str]:
    """Return alias and reason, by the champion's metrics on this training's images."""
    theirs, ours = trainer.validate(champion.refiner), trained.metrics
    kids = f"KID {ours['realism/kid']:.4f}, the champion's on the same images "
    kids += f"{theirs['realism/kid']:.4f}"
    if refusal := trainer.refusal(theirs):
        return "champion", f"with the former one's refinement {refusal}"
    if chosen := chosen_champion():
        reason = (
            f"{kids}; the champion was chosen by its error on pseudo-labels "
            f"({chosen.error_deg:.2f}°, {chosen.measured_by}), which KID does not outweigh; refine "
            f"{chosen.synthetic} with this one to NEW.zarr, then compare them: "
            f"{chosen.compared_with}"
        )
        logger.info("registered in MLflow as candidate, not champion: %s", reason)
        return "candidate", reason
    if ours["realism/kid"] < theirs["realism/kid"]:
        return "champion", kids
    return "candidate", kids


def _champion() -> LoadedRefiner | None:
    try:
        return open_refiner(f"models:/{REGISTERED_REFINER}@champion")
    except InputError:
        return None


def _takes(refiner: LoadedRefiner, synthetic: Dataset) -> bool:
    spec = synthetic.info.spec
    theirs = (refiner.image_height, refiner.image_width, refiner.channels, refiner.pixels)
    ours = (spec.height, spec.width, spec.channels, spec.dtype)
    return theirs == ours and refiner.preprocess == spec.preprocess


def _metadata(weights: Path, synthetic: Dataset, real: Dataset) -> dict[str, Any]:
    info = synthetic.info
    return {
        "refiner": weights.parent.name,
        "synthetic_digest": info.digest,
        "real_digest": real.info.digest,
        "real_url": real.info.url,
        "preprocess": info.spec.preprocess,
        "pixels": info.spec.dtype,
        "image_height": info.spec.height,
        "image_width": info.spec.width,
        "recipe": recipe_version("train"),
        "code": code_version()._asdict(),
    }
