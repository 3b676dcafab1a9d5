"""`simgan ablate`: an ablation table of the method's parts.

Everything heavy is imported inside the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

from cyclopts import App

from flows.cli.arguments import DaskAddress, Estimator, RunnerKind, Seeds, Training, Workers
from flows.cli.flow_help import described_by
from flows.cli.outcome import Outcome
from flows.cli.preset import Preset, with_preset
from simgan_core.config import PARTS, EstimatorConfig, Part, TrainingConfig

app = App(name="ablate", help="Ablation study: train without each part of the method in turn.")


@app.default
@described_by("ablate", "ablate")
def ablate(
    *,
    synthetic: str,
    real: str,
    test: str,
    out: str,
    preset: Preset = None,
    seeds: Seeds = 3,
    estimator_seeds: Seeds = 3,
    training: Training = TrainingConfig(),
    estimator: Estimator = EstimatorConfig(),
    parts: tuple[Part, ...] = PARTS,
    runner: RunnerKind = "local",
    workers: Workers = None,
    dask_address: DaskAddress = None,
) -> Outcome:
    """Tabulate realism, label shift and downstream error of a training and of its ablations."""
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
