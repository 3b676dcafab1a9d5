"""The `simgan` command line.

Everything heavy is imported inside the command that needs it, so that help answers at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, validators
from pydantic import ValidationError

from flows.cli.ablate import app as ablate_app
from flows.cli.environment import prepare
from flows.cli.gallery import app as gallery_app
from flows.cli.ingest import app as ingest_app
from flows.cli.inspect import inspect_app, verify_app
from flows.cli.outcome import Outcome, dataset_outcome
from flows.cli.preset import Preset, with_preset
from flows.cli.terminal import show_logs
from flows.cli.turing import app as turing_app
from flows.cli.unityeyes import simulate_unityeyes
from flows.cli.up import down, status, up
from simgan_core.config import EstimatorConfig, TrainingConfig
from simgan_core.errors import InputError
from storage.errors import StorageError
from tasks.comparison.arms import ComparisonConfig

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

Preprocess = Literal["none", "equalize"]
# Options of a configuration beside a command's own; a default would hide what the preset says.
Flat = Parameter(name="*", show_default=False)


app = App(
    name="simgan",
    help="Make a simulator's labelled images look real, keep their labels true, and measure "
    "what that is worth on real images.",
    help_epilogue="Every command takes --json: one machine-readable result as the last line of "
    "stdout. Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted.",
)
simulate_app = App(
    name="simulate", help="Render the built-in simulator's domains, or UnityEyes' eyes."
)
simulate_app.command(simulate_unityeyes, name="unityeyes")
app.command(simulate_app)
app.command(ingest_app)
app.command(inspect_app)
app.command(verify_app)
app.command(turing_app)
app.command(gallery_app)
for command in (up, status, down):
    app.command(command)
app.command(ablate_app)


@simulate_app.command(name="synthetic")
def simulate_synthetic(*, out: Path, count: int = 6000, seed: int = 1) -> Outcome:
    """Render the clean domain in UnityEyes' layout, N.jpg and N.json.

    Parameters
    ----------
    out
        Folder to write to.
    count
        Images.
    seed
        The same seed gives the same files.
    """
    return _simulate("synthetic", out, count, seed)


@simulate_app.command(name="real")
def simulate_real(*, out: Path, count: int = 4000, seed: int = 2, people: int = 15) -> Outcome:
    """Render the stand-in for real images in MPIIGaze's layout.

    Parameters
    ----------
    out
        Folder to write to.
    count
        Eye images, left and right together.
    seed
        The same seed gives the same files.
    people
        Whose eyes, in turn: p00, p01, …
    """
    return _simulate("real", out, count, seed, people)


@simulate_app.command(name="hand")
def simulate_hand(
    *,
    out: Path,
    domain: Literal["synthetic", "real"] = "synthetic",
    count: int = 1000,
    seed: int = 3,
) -> Outcome:
    """Render depth frames of hands in NYU's layout, with labels.txt; `ingest nyu-hand` reads them.

    Parameters
    ----------
    out
        Folder to write to.
    domain
        synthetic: clean depth; real: what a structured-light camera makes of it.
    count
        Frames.
    seed
        The same seed gives the same files.
    """
    from flows.simulate import simulate_hands

    simulate_hands(domain, str(out), count, seed)
    return Outcome(
        {"out": str(out), "count": count, "seed": seed},
        f"{count} rendered {domain} hands are in {out}",
    )


def _simulate(
    domain: Literal["synthetic", "real"], out: Path, count: int, seed: int, *people: int
) -> Outcome:
    from flows.simulate import simulate

    simulate(domain, str(out), count, seed, *people)
    return Outcome(
        {"out": str(out), "count": count, "seed": seed},
        f"{count} rendered {domain} images are in {out}",
    )


@app.command
def train(
    *,
    synthetic: str,
    real: str,
    preset: Preset = "stable",
    options: Annotated[TrainingConfig, Flat] = TrainingConfig(),
) -> Outcome:
    """Train the refiner and print its id; run again after a stop, it goes on where it was.

    Parameters
    ----------
    synthetic
        The simulator's dataset, path or URL.
    real
        The unlabelled real dataset, path or URL.
    preset
        Where every setting comes from that is not given here.
    """
    from flows.train import train as train_flow

    trained = train_flow(synthetic, real, with_preset(preset, options))
    return Outcome(
        trained._asdict(),
        f"{trained.refiner}\nrefine with: simgan refine DATASET --refiner {trained.refiner} "
        f"--to DATASET\nMLflow: models:/refiner/{trained.model_version}, run "
        f"{trained.mlflow_run_id}",
    )


@app.command
def refine(
    dataset: str,
    *,
    refiner: str,
    to: str,
    overwrite: bool = False,
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    gate_shift: Annotated[
        float | None, Parameter(validator=validators.Number(gt=0, lte=20))
    ] = None,
    runner: Literal["local", "dask"] = "local",
    workers: int | None = None,
    dask_address: str | None = None,
    append: bool = False,
) -> Outcome:
    """Refine every valid row of a dataset; labels and ids are kept.

    Parameters
    ----------
    dataset
        The dataset to refine, path or URL.
    refiner
        What `train` printed, an MLflow model URI, or the path of a refiner.pt.
    to
        Path or URL of the refined dataset.
    overwrite
        Replace another dataset that is at `to`.
    dtype
        Number format of the network; auto is what is fastest here.
    gate_shift
        Mark rows as not valid whose pupil refinement moved by more pixels than this.
    runner
        Refine in this process, or by Dask's workers.
    workers
        With dask: start so many workers on this machine.
    dask_address
        With dask: the scheduler of a running cluster, tcp://HOST:PORT.
    append
        Keep the full shards that the same refiner made before rows were added to the dataset.
    """
    from flows.refine import refine as refine_flow
    from tasks.runtime.policies import Runner

    where = Runner(kind=runner, workers=workers, dask_address=dask_address)
    return dataset_outcome(
        refine_flow(dataset, refiner, to, overwrite, dtype, gate_shift, where, append)
    )


@app.command
def evaluate(
    *,
    train: str,
    test: str,
    seeds: int = 3,
    estimator: Annotated[EstimatorConfig, Flat] = EstimatorConfig(),
) -> Outcome:
    """Train estimators on one dataset and test them on another.

    Parameters
    ----------
    train
        Dataset to train on, path or URL.
    test
        Labelled dataset to test on, path or URL.
    seeds
        Trainings, each from another seed.
    """
    from flows.evaluate import evaluate as evaluate_flow

    result = evaluate_flow(train, test, seeds, estimator)
    estimators = "".join(f"\nestimator: {path}" for path in result.estimators)
    return Outcome(result.model_dump(mode="json"), f"{result}{estimators}")


@app.command
def compare(
    *,
    synthetic: str | None = None,
    refined: str | None = None,
    test: str | None = None,
    real: str | None = None,
    seeds: int = 3,
    estimator: Annotated[EstimatorConfig, Flat] = EstimatorConfig(),
    comparison: Annotated[ComparisonConfig, Flat] = ComparisonConfig(),
    from_mlflow: str | None = None,
) -> Outcome:
    """Did refinement help on real images: by how much, and how sure is that.

    Parameters
    ----------
    synthetic
        The simulator's dataset, path or URL.
    refined
        The same rows refined.
    test
        Labelled real images to test on.
    real
        Labelled real images to train on, as the ceiling.
    seeds
        Estimators trained for each training set.
    from_mlflow
        Compute nothing: rebuild the tables of this MLflow experiment ("comparisons") from what
        MLflow keeps.
    """
    if from_mlflow is not None:
        return _recollected(from_mlflow)
    if synthetic is None or refined is None or test is None:
        raise InputError(
            "compare needs --synthetic, --refined and --test, or --from-mlflow EXPERIMENT alone"
        )
    from flows.evaluate import compare as compare_flow

    result = compare_flow(synthetic, refined, test, real, seeds, estimator, comparison)
    return _comparison_outcome(result)


@app.command
def pipeline(
    *,
    synthetic: Path,
    real: Path,
    real_people: str,
    test_people: str,
    out: str,
    preprocess: Preprocess = "equalize",
    preset: Preset = "stable",
    seeds: int = 3,
    training: TrainingConfig = TrainingConfig(),
    estimator: EstimatorConfig = EstimatorConfig(),
    comparison: ComparisonConfig = ComparisonConfig(),
) -> Outcome:
    """From UnityEyes and MPIIGaze folders to the verdict, as one flow.

    Parameters
    ----------
    synthetic
        UnityEyes' folder of N.jpg + N.json.
    real
        MPIIGaze's folder.
    real_people
        People whose images the refiner learns from: p00,p01.
    test_people
        People to test on, none of them among the former.
    out
        Folder or URL under which the four datasets are kept.
    preprocess
        Applied to both domains alike.
    preset
        Where every training setting comes from that is not given here.
    seeds
        Estimators trained for each training set.
    """
    from flows.pipeline import pipeline as pipeline_flow
    from tasks.ingestion.inputs import MPIIGazeInput, UnityEyesInput

    result = pipeline_flow(
        synthetic=UnityEyesInput(folder=str(synthetic)),
        real=MPIIGazeInput(folder=str(real), people=_names(real_people)),
        test=MPIIGazeInput(folder=str(real), people=_names(test_people)),
        out=out,
        preprocess=preprocess,
        training=with_preset(preset, training),
        estimator=estimator,
        seeds=seeds,
        comparison=comparison,
    )
    return _comparison_outcome(result)


@app.command
def demo(*, out: Path | None = None, seed: int = 0) -> Outcome:
    """Go the whole way round on the built-in simulator, in a few minutes on two cores.

    Parameters
    ----------
    out
        Folder for the rendered files and the datasets; under SIMGAN_HOME when not given.
    seed
        Seed of the rendered domains and of the refiner.
    """
    from flows.demo import demo as demo_flow

    folder = out or prepare() / "demo" / f"seed-{seed}"
    outcome = _comparison_outcome(demo_flow(str(folder), seed))
    note = (
        'Both domains of this demo are rendered: "real" stands for a rendered imitation of a '
        "laptop's camera, with its own people.\n"
    )
    return Outcome(outcome.result, note + outcome.text)


@app.command
def doctor() -> Outcome:
    """Say what is installed and reachable, what is wrong and how to mend it."""
    from tasks.ops.doctor import diagnose

    diagnosis = diagnose()
    return Outcome(diagnosis.model_dump(mode="json"), diagnosis.text())


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Run a command and print what it found.

    Parameters
    ----------
    json_output
        Print the result as JSON, in the last line of stdout; all else goes to stderr.
    """
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    prepare()
    show_logs()
    outcome = command(*bound.args, **bound.kwargs)
    if isinstance(outcome, Outcome):
        print(outcome.text, file=sys.stderr if json_output else sys.stdout)
        if json_output:
            print(json.dumps(outcome.result))  # noqa: T201


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        app.meta(exit_on_error=False, print_error=False)
    except (CycloptsError, ValidationError, InputError, StorageError) as error:
        _leave(WRONG_INPUT, f"error: {error}")
    except KeyboardInterrupt:
        _leave(INTERRUPTED, "stopped; the same command goes on where it was")
    except Exception as error:  # noqa: BLE001  the traceback is in the log above
        _leave(FAILED, f"failed: {type(error).__name__}: {error}")


def _leave(code: int, message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _comparison_outcome(result: Any) -> Outcome:
    from tasks.comparison.report import output_locations
    from tasks.comparison.results import table

    return Outcome(result.model_dump(mode="json"), f"{table(result)}\n\n{output_locations(result)}")


def _recollected(experiment: str) -> Outcome:
    from tasks.comparison.results import table, table_of_many
    from tasks.comparison.tracked_results import results_from_tracking

    found = results_from_tracking(experiment)
    text = table(found[0]) if len(found) == 1 else table_of_many(found)
    return Outcome({"comparisons": [each.model_dump(mode="json") for each in found]}, text)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
