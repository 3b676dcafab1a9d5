"""Measure refiner quality on the built-in domains; results in docs/benchmarks.md.

    python -m benchmarks.train_quality arms DIR        refined against what one tries before it, and
                                                       bf16 against fp32; five seeds of everything
    python -m benchmarks.train_quality ablation DIR    `simgan ablate` with the same refiners
    python -m benchmarks.train_quality kills DIR       a training killed at 10 random moments

What is done in DIR is not done again: killed and started again, a part goes on.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import numpy as np
import torch

from benchmarks.built_in_domains import Domains, run_simgan, write_domains
from flows.cli.environment import prepare
from simgan_core.config import PRESETS, EstimatorConfig
from simgan_core.models.checkpoint import load_checkpoint
from simgan_core.stats.bootstrap import bootstrap_difference, bootstrap_mean
from simgan_core.training.validation import Metrics, Validator
from storage.reader import open_dataset
from tasks.comparison.arms import ComparisonConfig
from tasks.comparison.estimate import estimate
from tasks.comparison.plan import Comparison, Estimate
from tasks.comparison.planning import plan_comparison
from tasks.comparison.predictions import ArmPredictions, read_predictions
from tasks.comparison.reporting.analysis import BOOTSTRAP_SEED, results_from_predictions
from tasks.refinement.refine import finish_refinement, plan_refinement, refine_shards
from tasks.runtime.dataset_cache import DatasetCache
from tasks.training.train import train_refiner

Precision = Literal["fp32", "bf16"]

NUM_SEEDS = 5
NUM_EXAMINED = 3000
"""Images of the synthetic dataset, and of the test set, that realism and labels are measured on."""
ARMS = ComparisonConfig(
    arms=("synthetic", "tone_matched", "synthetic_augmented", "refined"),
    methods=(),
    shares=(),
    match_labels="never",
)
ESTIMATOR = EstimatorConfig(architecture="compact")
"""What the figures in docs/benchmarks.md are of, and up to 2.6 times as fast as the default."""
NUM_CLAIM_SEEDS, NUM_ABLATION_SEEDS = 5, 2
NUM_KILLS, NUM_KILLED_STEPS = 10, 300
KILLED_TRAINING = (
    *("--refiner.num-features", 8, "--refiner.num-blocks", 2, "--refiner.no-residual"),
    *("--discriminator.normalization", "spectral", "--discriminator.max-shift-px", 1),
    *("--schedule", "adaptive", "--refiner-steps-per-round", 3),
    *("--refiner-pretraining-steps", 60, "--discriminator-pretraining-steps", 40),
    *("--steps", 200, "--stopping.evaluate-every", 50, "--stopping.num-images", 40),
    *("--batch-size", 32, "--history-size", 64, "--checkpoint-every", 7),
)
FIGURES = {
    "realism/kid": "KID",
    "realism/classifier_accuracy": "classifier",
    "labels/pupil_shift_px.mean": "mean pupil shift, px",
    "labels/pupils_kept": "pupils kept",
}


def arms(folder: Path) -> None:
    """Print each arm's error, refined minus each, and what bf16 changes.

    Refiner k is trained with seed k, and so is the one estimator that learns from what it made: a
    seed of an interval is a refiner and an estimator, and resamples are of both and of people.
    """
    domains = write_domains(folder)
    validator = _validator(domains)
    estimates: list[Estimate] = []
    figures: dict[Precision, list[Metrics]] = {"fp32": [], "bf16": []}
    for seed in range(NUM_SEEDS):
        for precision, of_seeds in figures.items():
            refined = _refined(folder, domains, seed, precision)
            of_seeds.append(validator.validate(_first_images(refined)))
            print(precision, seed, of_seeds[-1], flush=True)
            plan, found = _estimates(domains, refined, seed)
            if precision == "fp32":
                estimates += found
            else:
                estimates.append(found[-1]._replace(arm="refined, bf16"))
    predictions = read_predictions(estimates, plan.measure)
    of_bf16 = predictions.pop("refined, bf16")
    results = results_from_predictions(plan, predictions, None)
    for name, each in (results.arms | results.differences).items():
        low, high = each.ci95
        print(f"{name}: {each.error:.2f}° ({low:.2f} to {high:.2f})")
    unrefined = validator.validate(validator.synthetic)
    print("synthetic as it is:", *(f"{unrefined[key]:.3f} {name}" for key, name in FIGURES.items()))
    _compare_precisions(figures, predictions["refined"], of_bf16)


def _refined(folder: Path, domains: Domains, seed: int, precision: Precision) -> str:
    """Return the synthetic dataset as a refiner of this seed refines it, found or made."""
    update = {"seed": seed, "precision": precision}
    config = PRESETS["demo"].model_copy(update=update)
    trained = train_refiner.fn(str(domains.synthetic), str(domains.real), config)
    to = str(folder / f"refined-{precision}-{seed}.zarr")
    plan = plan_refinement.fn(str(domains.synthetic), trained.refiner, to)
    for group in plan.groups:
        refine_shards.fn(group, str(domains.synthetic), trained.refiner, to)
    return finish_refinement.fn(to).url


def _estimates(domains: Domains, refined: str, seed: int) -> tuple[Comparison, list[Estimate]]:
    """Train, or find, the estimator of this seed on each arm; that of the refined one is last."""
    datasets = DatasetCache()
    plan = plan_comparison.fn(
        datasets,
        *(str(domains.synthetic), refined, None, str(domains.test)),
        *(NUM_SEEDS, ESTIMATOR, ARMS),
    )
    return plan, [estimate.fn(job, plan, datasets) for job in plan.jobs if job.seed == seed]


def _validator(domains: Domains) -> Validator:
    """Look at the same images of every refiner; the real ones are of people it never saw."""
    pupil_px = open_dataset(str(domains.synthetic)).read_labels()["pupil_px"]
    return Validator(
        _first_images(str(domains.synthetic)),
        _first_images(str(domains.test)),
        torch.from_numpy(pupil_px[:NUM_EXAMINED]),
        seed=0,
    )


def _first_images(dataset: str) -> torch.Tensor:
    return torch.from_numpy(open_dataset(dataset).read(0, NUM_EXAMINED).images)


def _compare_precisions(
    figures: dict[Precision, list[Metrics]], fp32: ArmPredictions, bf16: ArmPredictions
) -> None:
    """Print every figure of both precisions over the seeds, and the paired difference."""
    by_name = {
        name: [[each[key] for each in of_seeds] for of_seeds in figures.values()]
        for key, name in FIGURES.items()
    }
    by_name["error, °"] = [of.errors.mean(axis=1).tolist() for of in (fp32, bf16)]
    for name, (of_fp32, of_bf16) in by_name.items():
        change = bootstrap_mean(np.subtract(of_bf16, of_fp32)[:, None], None, BOOTSTRAP_SEED)
        print(
            f"{name}: fp32 {_spread(of_fp32)}, bf16 {_spread(of_bf16)}, bf16 − fp32 over seeds "
            f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})"
        )
    change = bootstrap_difference(bf16.errors, fp32.errors, fp32.groups, BOOTSTRAP_SEED)
    print(
        f"error, bf16 − fp32 over seeds and people: {change.mean:+.2f}° "
        f"({change.low:+.2f} to {change.high:+.2f})"
    )


def ablation(folder: Path) -> None:
    """Let the command print its tables; the training as it is, it finds where `arms` left it.

    First what the paper and its article say most about, then all parts with fewer seeds.
    """
    domains = write_domains(folder)
    words = (
        *("ablate", "--synthetic", domains.synthetic, "--real", domains.real),
        *("--test", domains.test, "--out", folder / "ablation", "--preset", "demo"),
        *("--training.precision", "fp32", "--estimator-seeds", 1),
        *("--estimator.architecture", ESTIMATOR.architecture),
    )
    for more in (
        ("--seeds", NUM_CLAIM_SEEDS, "--parts", "history", "--parts", "local-adversary"),
        ("--seeds", NUM_ABLATION_SEEDS),
    ):
        command = [sys.executable, "-m", "flows.cli", *map(str, (*words, *more))]
        subprocess.run(command, check=True)


def kills(folder: Path) -> None:
    """Kill a training at random moments, from its pretraining on; print whether its end differs.

    Each moment is some hundredths of a second after a step drawn at random was saved. What was done
    since the last checkpoint, every seventh step, is lost, and done again.
    """
    domains = write_domains(folder)
    home, draw = folder / "home-of-kills", random.Random(0)
    shutil.rmtree(home, ignore_errors=True)
    os.environ |= {
        "SIMGAN_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }
    words = ("train", "--synthetic", domains.synthetic, "--real", domains.real, *KILLED_TRAINING)
    for after in sorted(draw.sample(range(NUM_KILLED_STEPS - 20), NUM_KILLS)):
        delay_s = draw.uniform(0, 0.2)
        print(f"killed at step {_kill(words, home, after, delay_s)} or later", flush=True)
    killed = run_simgan(*words)
    shutil.rmtree(home / "refiners" / killed["refiner"])
    undisturbed = run_simgan(*words)
    print(f"killed {NUM_KILLS} times: {killed['weights_digest']}")
    print(f"left alone:      {undisturbed['weights_digest']}")
    print("the same bits:", killed["weights_digest"] == undisturbed["weights_digest"])


def _kill(words: tuple[object, ...], home: Path, after: int, delay_s: float) -> int:
    """Start the command, kill it when it has saved this step, and return which it had saved."""
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while _saved_step(home) < after and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay_s)
    process.kill()
    ended = process.wait()
    # The embedded Prefect server outlives its command, and is of no use to the next one.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if ended != -signal.SIGKILL:
        raise SystemExit(f"the training ended before it was killed: {ended}")
    return _saved_step(home)


def _saved_step(home: Path) -> int:
    found = list(home.glob("refiners/*/training.ckpt"))
    return load_checkpoint(found[0])["state"]["step"] if found else -1


def _spread(values: list[float]) -> str:
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"{fmean(values):.3f} ± {stdev(values):.3f} ({each})"


if __name__ == "__main__":
    part, folder = sys.argv[1:]
    place = Path(folder).resolve()
    prepare(place / "home")
    # As a busy machine wants it: a second thread that spins costs more than it computes.
    torch.set_num_threads(1)
    {"arms": arms, "ablation": ablation, "kills": kills}[part](place)
