"""From the simulators' files to the verdict, by the commands that a user types."""

import json
import re
import shlex
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
)

from tests.docs.pages import README
from tests.flows.conftest import ForkedSimgan
from tests.unityeyes_folder import write_assets

TRAINING = ("--steps", 6, "--batch-size", 8, "--history-size", 16, "--refiner.num-features", 4,
            "--refiner.num-blocks", 1, "--discriminator-pretraining-steps", 2)  # fmt: skip
ESTIMATOR = ("--seeds", 2, "--steps", 4, "--batch-size", 8)
ARMS = ("--arms", "synthetic", "--arms", "tone_matched", "--arms", "refined", "--arms", "real",
        "--empty-methods", "--empty-shares")  # fmt: skip
LESS = {"train": TRAINING, "compare": (*ESTIMATOR, *ARMS), "simulate": ("--count", 20)}
RECIPES = README.read_text("utf-8").split("### 1. On your own data")[1].split("### 3.")[0]
COMMANDS = [*re.findall(r"^    (simgan .*)$", RECIPES, re.MULTILINE),
            "simgan compare --from-mlflow comparisons"]  # fmt: skip


def result_of(done: "CompletedProcess[str]") -> dict[str, Any]:
    """The JSON in the last line of stdout."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def of_readme(simgan: ForkedSimgan, workplace: Path) -> list[dict[str, Any]]:
    """What README's commands find on rendered files, run in its order, with less to do."""
    folder = workplace / "round"
    folder.mkdir()
    simgan = simgan.within(folder)
    simgan("simulate", "synthetic", "--out", "UnityEyes/imgs", "--count", 60, "--seed", 1)
    simgan("simulate", "real", "--out", "MPIIGaze", "--count", 120, "--seed", 2)
    write_assets(folder / "UnityEyes2")
    found: list[dict[str, Any]] = []
    for command in COMMANDS:
        _, *words = shlex.split(command, comments=True)
        if "--refiner" in words:
            words[words.index("--refiner") + 1] = found[-1]["refiner"]
        less = () if "--from-mlflow" in words else LESS.get(words[0], ())
        found.append(result_of(simgan(*words, *less, "--json")))
    return found


@pytest.fixture(scope="module")
def datasets(of_readme: list[dict[str, Any]], workplace: Path) -> dict[str, str]:
    """Both domains rendered and ingested, and the synthetic one refined."""
    data = workplace / "round" / "data"
    trained = next(found for found in of_readme if "model_version" in found)
    return {
        **{name: str(data / f"{name}.zarr") for name in ("synthetic", "real", "test", "refined")},
        "refiner": trained["refiner"],
        "model": f"models:/refiner/{trained['model_version']}",
    }


def test_every_command_of_readme_does_what_it_says(
    of_readme: list[dict[str, Any]], workplace: Path
) -> None:
    told = dict(zip(COMMANDS, of_readme, strict=True))
    rows = [found["num_rows"] for line, found in told.items() if " ingest " in line]
    assert rows == [60, 24, 16]
    assert (workplace / "round" / "sheet.png").exists()
    compared, recollected = (found for line, found in told.items() if " compare " in line)
    assert compared["num_test"] == 16
    assert compared["comparison"] in {each["comparison"] for each in recollected["comparisons"]}


def test_refine_keeps_every_row_and_says_so(simgan: Any, datasets: dict[str, str]) -> None:
    again = simgan("refine", datasets["synthetic"], "--refiner", datasets["refiner"], "--to",
                   datasets["refined"], "--json")  # fmt: skip
    result = result_of(again)
    assert result["num_rows"] == 60
    assert result["num_rejected"] == 0
    assert result["domain"] == "refined"


def test_compare_prints_every_arm_and_the_difference(simgan: Any, datasets: dict[str, str]) -> None:
    done = simgan("compare", "--synthetic", datasets["synthetic"], "--refined",
                  datasets["refined"], "--real", datasets["real"], "--test", datasets["test"],
                  *ESTIMATOR, *ARMS, "--json")  # fmt: skip
    result = result_of(done)
    for arm in ("synthetic", "refined", "tone_matched", "real"):
        low, high = result[arm]["ci95"]
        assert low <= result[arm]["error_deg"] <= high
        assert 0 <= result[arm]["within_7deg"] <= 1
    difference = result["refined_minus_synthetic"]["error_deg"]
    expected = result["refined"]["error_deg"] - result["synthetic"]["error_deg"]
    assert difference == pytest.approx(expected, abs=1e-9)
    assert set(result["pupil_shift_px"]) == {"mean", "sd", "median"}
    assert result["num_test"] == 16
    assert result["seeds"] == 2
    assert Path(result["report"]).exists()
    assert len(done.stdout.splitlines()) == 1


def test_compare_without_real_has_no_ceiling_but_still_tone_matches(
    simgan: Any, datasets: dict[str, str]
) -> None:
    result = result_of(
        simgan("compare", "--synthetic", datasets["synthetic"], "--refined", datasets["refined"],
               "--test", datasets["test"], *ESTIMATOR, *ARMS, "--json")
    )  # fmt: skip
    assert result["real"] is None
    assert result["tone_matched"] is not None


def test_the_same_comparison_gives_the_same_table(simgan: Any, datasets: dict[str, str]) -> None:
    words = ("evaluate", "--train", datasets["synthetic"], "--test", datasets["test"], *ESTIMATOR,
             "--json")  # fmt: skip
    assert result_of(simgan(*words)) == result_of(simgan(*words))


def test_mlflow_remembers_the_training_with_its_datasets_curves_and_model(
    datasets: dict[str, str], environment: dict[str, str]
) -> None:
    client = MlflowClient(f"sqlite:///{environment['SIMGAN_HOME']}/mlflow.db")
    version = client.get_model_version("refiner", datasets["model"].rsplit("/", 1)[1])
    run = client.get_run(version.run_id)
    assert run.data.tags["simgan.refiner"] == datasets["refiner"]
    assert run.data.params["steps"] == "6"
    assert {tag.value for given in run.inputs.dataset_inputs for tag in given.tags} == {
        "synthetic",
        "real",
    }
    assert len(client.get_metric_history(run.info.run_id, "refiner/loss")) >= 1


def test_prefect_shows_the_training_under_its_name_with_progress_and_pictures(
    datasets: dict[str, str], environment: dict[str, str]
) -> None:
    name = FlowRunFilterName(any_=["train a refiner from synthetic to real"])
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        # The newest: other files' trainings of the same name are on the same server.
        run, *_ = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=name), sort="START_TIME_DESC"
        )
        # Without a filter the 200 newest of all runs come.
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        found = {each.key: each for each in client.read_artifacts(artifact_filter=of_run)}
    assert found["training-progress"].data == 100.0
    assert "step 8 of 8" in (found["training-progress"].description or "")
    assert str(found["refined-samples"].data).startswith("data:image/png;base64,")


def test_a_registered_model_uri_names_the_same_refiner(
    simgan: Any, datasets: dict[str, str], tmp_path: Path
) -> None:
    by_id = simgan("refine", datasets["synthetic"], "--refiner", datasets["refiner"], "--to",
                   datasets["refined"], "--json")  # fmt: skip
    by_uri = simgan("refine", datasets["synthetic"], "--refiner", datasets["model"], "--to",
                    tmp_path / "again.zarr", "--json")  # fmt: skip
    assert result_of(by_uri)["digest"] == result_of(by_id)["digest"]


def test_pipeline_goes_the_whole_way_round_in_one_command(
    simgan: Any, datasets: dict[str, str], workplace: Path
) -> None:
    folder = workplace / "round"
    training = [f"--training.{word[2:]}" if str(word)[:2] == "--" else word for word in TRAINING]
    done = simgan(
        "pipeline", "--synthetic", folder / "UnityEyes/imgs", "--real", folder / "MPIIGaze",
        "--real-people", "p00,p01", "--test-people", "p02,p03", "--out", workplace / "piped",
        *training, "--seeds", 1,
        "--estimator.steps", 20, "--comparison.arms", "synthetic", "--comparison.arms", "refined",
        "--comparison.shares", 0.5, "--comparison.methods", "ridge", "--json",
    )  # fmt: skip
    result = result_of(done)
    assert result["num_test"] == 16
    assert {"synthetic", "refined"} <= result["arms"].keys()
    assert (workplace / "piped" / "refined.zarr").is_dir()
