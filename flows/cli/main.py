"""The `simgan` command line.

Everything heavy is imported inside the command that needs it, so that help answers at once.
"""

import gc
import json
import sys
from contextlib import nullcontext
from importlib import import_module
from inspect import BoundArguments
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, validators
from pydantic import ValidationError

from flows.cli.ablate import app as ablate_app
from flows.cli.arguments import (
    COMMON,
    COMPARISON,
    FLAT,
    Count,
    DaskAddress,
    Estimator,
    RunnerKind,
    Seed,
    Seeds,
    Training,
    Workers,
    in_a_sentence,
    require_not_empty,
    require_usable,
    require_whole_numbers,
)
from flows.cli.environment import prepare
from flows.cli.flow_help import described_by
from flows.cli.gallery import app as gallery_app
from flows.cli.ingest import ingest_app
from flows.cli.inspect import inspect_app, verify_app
from flows.cli.landmarks import app as landmarks_app
from flows.cli.next_command import after_error, gallery_of
from flows.cli.outcome import Outcome, dataset_outcome
from flows.cli.preset import Preset, with_preset
from flows.cli.servers import prefect_for_flows, require_tracking
from flows.cli.terminal import is_full_disk, say, terminal_output, written_log
from flows.cli.turing import app as turing_app
from flows.cli.ui import ui
from flows.cli.unityeyes import simulate_unityeyes
from flows.cli.up import down, status, up
from simgan_core.config import EstimatorConfig, TrainingConfig
from simgan_core.errors import InputError, UnavailableError
from storage.errors import StorageError
from storage.schema import Preprocess
from tasks.comparison.arms import ComparisonConfig
from tasks.runtime.paths import refused_place

FLOW_MODULES = {
    "simulate": "flows.simulate",
    "ingest": "flows.ingest",
    "train": "flows.train",
    "label-prior": "flows.label_prior",
    "landmarks": "flows.landmarks",
    "refine": "flows.refine",
    "evaluate": "flows.evaluate",
    "compare": "flows.evaluate",
    "choose": "flows.choose",
    "pipeline": "flows.pipeline",
    "ablate": "flows.ablate",
    "demo": "flows.demo",
}
"""Modules of the flows by the first words of commands; such a command needs Prefect's server."""
GARBAGE_COLLECTION_THRESHOLD = 10_000
UNTRACKED_COMMANDS = {"simulate", "ingest"}
"""Those of them that record nothing in MLflow."""

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

PARAMETER_ERRORS = ("ParameterTypeError", "ParameterBindError")
"""Names of Prefect's errors for a flow's parameters; importing them takes a second."""

Comparing = Annotated[ComparisonConfig, Parameter(group=COMPARISON, negative_iterable="empty-")]
Teachers = Annotated[tuple[str, ...], Parameter(show_default=False)]
People = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100))]


app = App(
    name="simgan",
    help="Make a simulator's labelled images look real, keep their labels true, and measure "
    "what that is worth on real images.\n\n"
    "First steps: `simgan demo` needs no data; `simgan ingest --help` lists the formats of images; "
    "`simgan doctor` checks the installation.",
    help_epilogue="Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted. After a stop the "
    "same command resumes.",
    default_parameter=Parameter(negative_iterable=()),
)
# `main` catches it and says that the same command resumes.
app.meta.suppress_keyboard_interrupt = False
app.register_install_completion_command(
    help="Install completion of commands and options in this shell: bash, zsh or fish."
)
simulate_app = App(
    name="simulate",
    help="Render labelled images: eyes and hands of the built-in simulator, or UnityEyes' eyes.",
)
simulate_app.command(simulate_unityeyes, name="unityeyes")
app.command(simulate_app)
app.command(ingest_app())
app.command(inspect_app)
app.command(verify_app)
app.command(landmarks_app)
app.command(turing_app)
app.command(gallery_app)
for command in (up, status, down, ui):
    app.command(command)
app.command(ablate_app)


@simulate_app.command(name="synthetic")
def simulate_synthetic(*, out: Path, count: Count = 6000, seed: Seed = 1) -> Outcome:
    """Render synthetic eyes, clean and labelled, as UnityEyes' files N.jpg and N.json.

    Parameters
    ----------
    out
        Folder to write to.
    count
        Number of images.
    seed
        The same seed gives the same files.
    """
    return _simulate("synthetic", out, count, seed)


@simulate_app.command(name="real")
def simulate_real(
    *,
    out: Path,
    count: Count = 4000,
    seed: Seed = 2,
    people: People = 15,
) -> Outcome:
    """Render "real" eyes, as a laptop's camera shows them, in MPIIGaze's layout of files.

    Parameters
    ----------
    out
        Folder to write to.
    count
        Number of eye images, left and right together.
    seed
        The same seed gives the same files.
    people
        Number of people, named p00, p01, …
    """
    return _simulate("real", out, count, seed, people)


@simulate_app.command(name="hand")
def simulate_hand(
    *,
    out: Path,
    domain: Literal["synthetic", "real"] = "synthetic",
    count: Count = 1000,
    seed: Seed = 3,
) -> Outcome:
    """Render depth frames of hands, with labels.txt, in the layout that `ingest nyu-hand` reads.

    Parameters
    ----------
    out
        Folder to write to.
    domain
        synthetic: clean depth; real: what a structured-light camera makes of it.
    count
        Number of frames.
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
@described_by("train", "train")
def train(
    *,
    synthetic: str,
    real: str,
    preset: Preset = None,
    options: Annotated[Training, FLAT] = TrainingConfig(),
) -> Outcome:
    """Train a refiner and print its id; after a stop the same command resumes."""
    from flows.train import train as train_flow

    trained = train_flow(synthetic, real, with_preset(preset, options))
    return Outcome(
        trained._asdict(),
        f"{trained.refiner}\nrefine with: simgan refine DATASET --refiner {trained.refiner} "
        f"--to DATASET\nMLflow: models:/refiner/{trained.model_version}, run "
        f"{trained.mlflow_run_id}",
    )


@app.command
@described_by("label_prior", "label_prior")
def label_prior(
    *,
    synthetic: str,
    unlabelled: str,
    estimator: Annotated[Estimator, FLAT] = EstimatorConfig(),
) -> Outcome:
    """Estimate the gaze distribution of unlabelled images, for `train --match-labels-by`."""
    from flows.label_prior import label_prior as label_prior_flow

    prior = label_prior_flow(synthetic, unlabelled, estimator)
    return Outcome(prior.model_dump(mode="json"), f"{prior.path}\n{prior}")


@app.command
@described_by("refine", "refine")
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
    runner: RunnerKind = "local",
    workers: Workers = None,
    dask_address: DaskAddress = None,
    append: bool = False,
    styles: Seeds = 1,
    style_seed: Seed = 0,
) -> Outcome:
    """Refine every valid row of a dataset, with its labels and ids unchanged."""
    from flows.refine import refine as refine_flow
    from tasks.runtime.policies import Runner

    where = Runner(kind=runner, workers=workers, dask_address=dask_address)
    return dataset_outcome(
        refine_flow(
            dataset, refiner, to, overwrite, dtype, gate_shift, where, append, styles, style_seed
        )
    )


@app.command
@described_by("evaluate", "evaluate")
def evaluate(
    *,
    train: str,
    test: str,
    seeds: Seeds = 3,
    estimator: Annotated[Estimator, FLAT] = EstimatorConfig(),
    unlabelled: str | None = None,
    runner: RunnerKind = "local",
    workers: Workers = None,
    dask_address: DaskAddress = None,
) -> Outcome:
    """Train estimators on one dataset and test them on another: mean error, 95% interval."""
    from flows.evaluate import evaluate as evaluate_flow
    from tasks.runtime.policies import Runner

    where = Runner(kind=runner, workers=workers, dask_address=dask_address)
    result = evaluate_flow(train, test, seeds, estimator, unlabelled, where)
    estimators = "".join(f"\nestimator: {path}" for path in result.estimators)
    return Outcome(result.model_dump(mode="json"), f"{result}{estimators}")


@app.command
@described_by("evaluate", "compare")
def compare(
    *,
    synthetic: str | None = None,
    refined: str | None = None,
    test: str | None = None,
    real: str | None = None,
    unlabelled: str | None = None,
    teachers: Teachers = (),
    seeds: Seeds = 3,
    estimator: Annotated[Estimator, FLAT] = EstimatorConfig(),
    comparison: Annotated[Comparing, FLAT] = ComparisonConfig(),
    from_mlflow: str | None = None,
    runner: RunnerKind = "local",
    workers: Workers = None,
    dask_address: DaskAddress = None,
) -> Outcome:
    """Compare synthetic with refined training images by their error on labelled real images.

    --synthetic, --refined and --test are required, unless --from-mlflow is given.

    Parameters
    ----------
    from_mlflow
        Train nothing: list the comparisons of this MLflow experiment ("comparisons").
    """
    if from_mlflow is not None:
        return _recollected(from_mlflow)
    if synthetic is None or refined is None or test is None:
        raise InputError(
            "compare needs --synthetic, --refined and --test, or --from-mlflow EXPERIMENT alone"
        )
    from flows.evaluate import compare as compare_flow
    from tasks.runtime.policies import Runner

    where = Runner(kind=runner, workers=workers, dask_address=dask_address)
    result = compare_flow(
        *(synthetic, refined, test, real, seeds, estimator, comparison, unlabelled, teachers),
        runner=where,
    )
    return _comparison_outcome(result, gallery_of(refined, synthetic, test))


@app.command
@described_by("choose", "choose")
def choose(
    *,
    synthetic: str,
    refined: tuple[str, ...],
    unlabelled: str,
    teachers: Teachers = (),
    seeds: Seeds = 3,
    estimator: Annotated[Estimator, FLAT] = EstimatorConfig(),
    match_labels: Literal["auto", "always", "never"] = "auto",
    runner: RunnerKind = "local",
    workers: Workers = None,
    dask_address: DaskAddress = None,
) -> Outcome:
    """Rank refined datasets without real labels, by their error on pseudo-labels."""
    from flows.choose import choose as choose_flow
    from tasks.comparison.choice import choice_table
    from tasks.runtime.policies import Runner

    where = Runner(kind=runner, workers=workers, dask_address=dask_address)
    result = choose_flow(
        *(synthetic, refined, unlabelled, seeds, estimator, match_labels, teachers), runner=where
    )
    text = choice_table(result)
    if result.champion is not None:
        text += f"\n\nchampion  {result.champion}"
    best = result.candidates[0].refined
    return Outcome(
        result.model_dump(mode="json"),
        f"{text}\nnext      simgan compare --synthetic {synthetic} --refined {best} "
        f"--unlabelled {unlabelled} --test DATASET   (on labelled real images)",
    )


@app.command
@described_by("pipeline", "pipeline")
def pipeline(
    *,
    synthetic: Path,
    real: Path,
    real_people: str,
    test_people: str,
    out: str,
    preprocess: Preprocess = "equalize",
    preset: Preset = None,
    seeds: Seeds = 3,
    training: Training = TrainingConfig(),
    estimator: Estimator = EstimatorConfig(),
    comparison: Comparing = ComparisonConfig(),
) -> Outcome:
    """Run ingest, train, refine and compare as one flow, from UnityEyes' and MPIIGaze's folders.

    Parameters
    ----------
    synthetic
        UnityEyes' folder of N.jpg + N.json.
    real
        MPIIGaze's folder.
    real_people
        People whose images the refiner learns from, separated by commas: p00,p01.
    test_people
        People to test on, separated by commas; none of them in --real-people.
    """
    from flows.pipeline import pipeline as pipeline_flow
    from storage.sources.formats.mpiigaze import MPIIGazeOptions
    from storage.sources.formats.unityeyes import UnityEyesOptions

    result = pipeline_flow(
        synthetic=UnityEyesOptions(folder=synthetic),
        real=MPIIGazeOptions(folder=real, people=_names(real_people)),
        test=MPIIGazeOptions(folder=real, people=_names(test_people)),
        out=out,
        preprocess=preprocess,
        training=with_preset(preset, training),
        estimator=estimator,
        seeds=seeds,
        comparison=comparison,
    )
    datasets = (f"{out}/{name}.zarr" for name in ("refined", "synthetic", "real"))
    return _comparison_outcome(result, gallery_of(*datasets))


@app.command
def demo(*, out: Path | None = None, seed: Seed = 0) -> Outcome:
    """Run the whole pipeline on the built-in simulator: no data, a few minutes on two cores.

    Parameters
    ----------
    out
        Folder for the rendered files and the datasets; under SIMGAN_HOME when not given.
    seed
        Seed of the rendered domains and of the refiner.
    """
    from flows.demo import demo as demo_flow

    folder = out or prepare() / "demo" / f"seed-{seed}"
    outcome = _comparison_outcome(
        demo_flow(str(folder), seed), "simgan ingest --help   (the same with your own images)"
    )
    note = 'Both domains of this demo are rendered: "real" imitates a laptop\'s camera.\n'
    return Outcome(outcome.result, note + outcome.text)


@app.command
def doctor() -> Outcome:
    """Check packages, device, folders and servers; print a remedy for each problem."""
    from tasks.ops.doctor import diagnose

    diagnosis = diagnose()
    return Outcome(diagnosis.model_dump(mode="json"), diagnosis.text())


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json_output: Annotated[bool, Parameter(name="--json", negative="", group=COMMON)] = False,
    verbose: Annotated[
        bool, Parameter(name=("--verbose", "-v"), negative="", group=COMMON)
    ] = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="", group=COMMON)] = False,
) -> None:
    """Run a command and print its result.

    Parameters
    ----------
    json_output
        Print the result as JSON in the last line of stdout; everything else goes to stderr.
    verbose
        Also show details, states of flow and task runs, and warnings of libraries.
    quiet
        Show errors only.
    """
    require_not_empty(tokens)
    require_whole_numbers(app, tokens)
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    require_usable(bound.arguments)
    home = prepare()
    runs_a_flow = _runs_a_flow(tokens, bound)
    if runs_a_flow and tokens[0] not in UNTRACKED_COMMANDS:
        require_tracking()
    with (
        terminal_output("quiet" if quiet else "verbose" if verbose else "normal"),
        prefect_for_flows(home) if runs_a_flow else nullcontext(),
    ):
        if runs_a_flow:
            import_module(FLOW_MODULES[tokens[0]])
        _collect_garbage_from_now_on()
        outcome = command(*bound.args, **bound.kwargs)
    if isinstance(outcome, Outcome):
        say(outcome.text, sys.stderr if json_output else sys.stdout)
        if json_output:
            print(json.dumps(outcome.result))  # noqa: T201


def _collect_garbage_from_now_on() -> None:
    """Freeze the imported objects, so that garbage collection skips them."""
    gc.freeze()
    gc.set_threshold(GARBAGE_COLLECTION_THRESHOLD)
    gc.enable()


def _runs_a_flow(tokens: tuple[str, ...], bound: BoundArguments) -> bool:
    return bool(tokens) and tokens[0] in FLOW_MODULES and bound.arguments.get("from_mlflow") is None


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except (CycloptsError, InputError, StorageError, ValidationError) as error:
        refused = error if isinstance(error, ValidationError) else error.__cause__
        said = in_a_sentence(refused) if isinstance(refused, ValidationError) else str(error)
        _leave(WRONG_INPUT, f"error: {said}{_next(error)}")
    except UnavailableError as error:
        _leave(FAILED, f"failed: {error}{_next(error)}")
    except KeyboardInterrupt:
        _leave(INTERRUPTED, "stopped; the same command goes on where it was")
    except SystemExit:
        raise
    # Libraries in Rust end in a PanicException, which is no Exception.
    except BaseException as error:  # noqa: BLE001
        refusal = refused_place(error)
        if refusal is not None:
            _leave(WRONG_INPUT, f"error: {refusal}{_next(error)}")
        if type(error).__name__ in PARAMETER_ERRORS:
            _leave(WRONG_INPUT, f"error: {_in_a_line(str(error))}{_next(error)}")
        if is_full_disk(error):
            _leave(FAILED, f"failed: {error}: make room there, then run the same command again")
        reason = _in_a_line(f"{type(error).__name__}: {error}")
        _leave(FAILED, f"failed: {reason}; {written_log(error)}; next: simgan doctor")


def _next(error: BaseException) -> str:
    return after_error(error, app, sys.argv[1:])


def _leave(code: int, message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _in_a_line(text: str) -> str:
    return " ".join(text.split())


def _comparison_outcome(result: Any, next_command: str) -> Outcome:
    from tasks.comparison.reporting.report import output_locations
    from tasks.comparison.reporting.tables import table

    text = f"{table(result)}\n\n{output_locations(result)}\nnext      {next_command}"
    return Outcome(result.model_dump(mode="json"), text)


def _recollected(experiment: str) -> Outcome:
    from tasks.comparison.reporting.tables import table, table_of_many
    from tasks.comparison.reporting.tracked_results import results_from_tracking

    found = results_from_tracking(experiment)
    text = table(found[0]) if len(found) == 1 else table_of_many(found)
    return Outcome({"comparisons": [each.model_dump(mode="json") for each in found]}, text)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
