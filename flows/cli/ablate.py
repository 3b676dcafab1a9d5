"""`simgan ablate`: an ablation table of the method's parts.

Everything heavy is imported inside the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

from typing import Literal

from cyclopts import App

from flows.cli.arguments import Seeds, Workers
from flows.cli.outcome import Outcome
from flows.cli.preset import Preset, with_preset
from simgan_core.config import PARTS, EstimatorConfig, Part, TrainingConfig

app = App(name="ablate", help="Train without each part of the method in turn, and measure.")


@app.default
def ablate(
    *,
    synthetic: str,
    real: str,
    test: str,
    out: str,
    preset: Preset | None = None,
    seeds: Seeds = 3,
    estimator_seeds: Seeds = 3,
    training: TrainingConfig = TrainingConfig(),
    estimator: EstimatorConfig = EstimatorConfig(),
    parts: tuple[Part, ...] = PARTS,
    runner: Literal["local", "dask"] = "local",
    workers: Workers = None,
    dask_address: str | None = None,
) -> Outcome:
    """Tabulate realism, label shift and downstream error of a training and of its ablations.

    Parameters
    ----------
    synthetic
        The simulator's dataset, path or URL.
    real
        The unlabelled real dataset.
    test
        Labelled real images to test on.
    out
        Folder or URL for the refined datasets.
    preset
        Where every training setting comes from that is not given here. Left out: bilateral for the
        bilateral family, else stable.
    seeds
        Refiners trained for each variant.
    estimator_seeds
        Estimators trained on what each refiner made.
    parts
        What to do without, each in turn: a training for each of them and each seed.
    runner
        Train and refine in this process, or by Dask's workers.
    workers
        With dask: start so many workers on this machine.
    dask_address
        With dask: the scheduler of a running cluster, tcp://HOST:PORT.
    """
    from flows.ablate import ablate as ablate_flow
    from tasks.comparison.ablation import table
    from tasks.runtime.policies import Runner

    result = ablate_flow(
        synthetic,
        real,
        test,
        out,
        with_preset(preset, training),
        seeds,
        estimator_seeds,
        estimator,
        parts,
        Runner(kind=runner, workers=workers, dask_address=dask_address),
    )
    return Outcome(result.model_dump(mode="json"), table(result))
