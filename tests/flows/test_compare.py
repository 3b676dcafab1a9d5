"""`simgan compare` with all that takes part by default: its report, MLflow, Prefect and twice."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from playwright.sync_api import sync_playwright

from storage.reader import open_dataset
from tests.flows.conftest import wait_until_healthy

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture(scope="module")
def compared(simgan: Any, workplace: Path) -> dict[str, Any]:
    """Render, ingest and compare; "refined" is another crop, since nothing is refined here."""
    folder = workplace / "compared"
    simgan("simulate", "synthetic", "--out", folder / "s", "--count", 40, "--seed", 3)
    simgan("simulate", "real", "--out", folder / "r", "--count", 90, "--seed", 4)
    for name, crop in (("s", "eye-width"), ("f", "margin")):
        simgan("ingest", "unityeyes", folder / "s", "--to", folder / f"{name}.zarr", "--crop",
               crop, "--preprocess", "equalize")  # fmt: skip
    for name, people in (("real", "p00,p01,p02,p03,p04,p05,p06,p07,p08,p09"), ("test", "p10,p11")):
        simgan("ingest", "mpiigaze", folder / "r", "--to", folder / f"{name}.zarr", "--people",
               people)  # fmt: skip
    done = simgan("compare", "--synthetic", folder / "s.zarr", "--refined", folder / "f.zarr",
                  "--real", folder / "real.zarr", "--test", folder / "test.zarr", "--seeds", 1,
                  "--steps", 4, "--batch-size", 8, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_everything_takes_part_by_default(compared: dict[str, Any]) -> None:
    assert len(compared["arms"]) == 14 + 2 + 8
    assert compared["label_matching"]["prior"]["held_out_by"] == "row"
    assert compared["refined"] == compared["arms"]["refined"]
    assert compared["protocol"]["name"] == "cross-domain"
    assert compared["test_evaluations"] == 24
    assert "1 estimator seed, 2 people, one refiner)" in compared["verdict"].split(". ")[0]


def test_label_prior_prints_the_file_of_the_same_distribution(
    simgan: Any, compared: dict[str, Any], workplace: Path
) -> None:
    folder = workplace / "compared"
    done = simgan("label-prior", "--synthetic", folder / "s.zarr", "--unlabelled",
                  folder / "real.zarr", "--steps", 4, "--batch-size", 8, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    prior = json.loads(done.stdout.splitlines()[-1])
    assert prior == compared["label_matching"]["prior"]
    assert Path(prior["path"]).exists()


def test_mlflow_alone_gives_the_same_table(
    simgan: Any, compared: dict[str, Any], environment: dict[str, str]
) -> None:
    home = Path(environment["SIMGAN_HOME"])
    for kept in ("estimates", "estimators", "comparisons"):
        (home / kept).rename(home / f"{kept}.away")
    try:
        done = simgan("compare", "--from-mlflow", "comparisons", "--json")
    finally:
        for kept in ("estimates", "estimators", "comparisons"):
            (home / f"{kept}.away").rename(home / kept)
    assert done.returncode == 0, done.stderr
    found = {one["comparison"]: one for one in json.loads(done.stdout)["comparisons"]}
    again = found[compared["comparison"]]
    for what in ("arms", "differences", "num_test", "num_people", "label_matching"):
        assert again[what] == compared[what]


def test_an_experiment_that_mlflow_lacks_is_named(simgan: Any, compared: dict[str, Any]) -> None:
    done = simgan("compare", "--from-mlflow", "nowhere")
    assert done.returncode == 2
    assert "no experiment nowhere (it has:" in done.stderr


def test_the_test_set_carries_how_often_it_was_asked(
    compared: dict[str, Any], environment: dict[str, str]
) -> None:
    client = MlflowClient(f"sqlite:///{environment['SIMGAN_HOME']}/mlflow.db")
    kept = client.get_experiment_by_name("datasets")
    assert kept is not None
    (run,) = client.search_runs([kept.experiment_id], "tags.test_evaluations = '24'")
    assert run.data.tags["test_comparisons"] == "1"


def test_the_winner_is_a_model_that_plain_mlflow_knows(
    compared: dict[str, Any], environment: dict[str, str]
) -> None:
    client = MlflowClient(f"sqlite:///{environment['SIMGAN_HOME']}/mlflow.db")
    name, version = compared["registered_model"].removeprefix("models:/").split("/")
    tags = client.get_model_version(name, version).tags
    assert tags["best_of_arms"] == "13"
    unlabelled = [
        arm["error_deg"]
        for title, arm in compared["arms"].items()
        if title.startswith(("synthetic", "refined", "tone", "fourier", "adapted"))
    ]
    assert float(tags["error_deg"]) == pytest.approx(min(unlabelled), abs=1e-3)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium; without it these tests skip, except in CI, where that is a failure."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def mlflow_url(compared: dict[str, Any], environment: dict[str, str]) -> Iterator[str]:
    """MLflow's pages, served by the command that README names."""
    store = f"sqlite:///{environment['SIMGAN_HOME']}/mlflow.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", port]
    own = {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen([*command, "--workers", "1"], env=own) as server:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def test_mlflows_pages_show_both_errors_of_the_comparison(
    chromium: Any, mlflow_url: str, compared: dict[str, Any]
) -> None:
    page = chromium.new_page(viewport={"width": 1180, "height": 760})
    page.goto(mlflow_url)
    # MLflow shows language models until it is told otherwise.
    page.get_by_text("Model training", exact=True).first.click()
    page.get_by_text("comparisons", exact=True).first.click()
    page.get_by_role("link", name=compared["comparison"]).first.click()
    for arm in ("refined", "synthetic"):
        shown = page.get_by_text(f"{arm}.error_deg", exact=True).first
        shown.wait_for()
        assert page.get_by_text(str(compared[arm]["error_deg"])[:7]).count() > 0
        shown.scroll_into_view_if_needed()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "mlflow-comparison.png")
    page.close()


@pytest.mark.parametrize("width", [375, 1440])
def test_the_report_reads_well_without_a_network(
    chromium: Any, compared: dict[str, Any], width: int
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(Path(compared["report"]).as_uri())
    assert page.inner_text("h1").rstrip(".") == compared["verdict"].split(". ")[0]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    images = page.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length, "
        "i.getBoundingClientRect().width])"
    )
    assert len(images) >= 7
    assert all(loaded and described > 20 for loaded, described, _ in images)
    # Letters of 9 points in a picture 4.2 inches wide: at 300 px they are still 9 px high.
    assert min(shown for _, _, shown in images) >= 300
    sizes = page.evaluate(
        "[...document.querySelectorAll('p, td, th, figcaption, dd')]"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert np.min(sizes) >= 14
    assert complaints == []
    context.close()


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        (
            ("--protocol.name", "leave-one-person-out", "--arms", "real", "--arms", "real_refined"),
            "leave-one-person-out",
        ),
        (
            (
                "--protocol.name",
                "fine-tuning",
                "--protocol.samples-per-person",
                2,
                "--arms",
                "synthetic",
                "--arms",
                "refined",
            ),
            "fine-tuning on 2 samples a person",
        ),
    ],
)
def test_the_other_protocols_run_from_the_command_line(
    simgan: Any, compared: dict[str, Any], workplace: Path, options: tuple[Any, ...], rules: str
) -> None:
    folder = workplace / "compared"
    done = simgan("compare", "--synthetic", folder / "s.zarr", "--refined", folder / "f.zarr",
                  "--test", folder / "test.zarr", "--seeds", 1, "--steps", 2, "--batch-size", 4,
                  "--fine-tuning-steps", 2, "--empty-methods", *options, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert rules in found["verdict"]
    assert found["num_people"] == 2


def test_depth_hands_are_simulated_refined_and_compared(simgan: Any, workplace: Path) -> None:
    folder = workplace / "hands"
    domains = {"synthetic": "synthetic", "real": "real", "test": "real"}
    for seed, (name, domain) in enumerate(domains.items()):
        words = ("--out", folder / name, "--domain", domain, "--count", 8, "--seed", seed)
        simgan("simulate", "hand", *words)
        done = simgan("ingest", "nyu-hand", folder / name, "--labels",
                      folder / name / "labels.txt", "--domain", domain, "--size", "32x32", "--to",
                      folder / f"{name}.zarr")  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = simgan("train", "--synthetic", folder / "synthetic.zarr", "--real", folder / "real.zarr",
                  "--preset", "hand", "--refiner.num-features", 4, "--refiner.num-blocks", 1,
                  "--refiner.kernel-size", 3, "--discriminator.architecture", "eyes",
                  "--steps", 2, "--refiner-pretraining-steps", 1, "--batch-size", 4,
                  "--discriminator-pretraining-steps", 1, "--stopping.evaluate-every", 0,
                  "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    refiner = json.loads(done.stdout.splitlines()[-1])["refiner"]
    done = simgan("refine", folder / "synthetic.zarr", "--refiner", refiner,
                  "--to", folder / "refined.zarr")  # fmt: skip
    assert done.returncode == 0, done.stderr
    refined = open_dataset(str(folder / "refined.zarr")).load().images
    assert refined.dtype == np.uint16
    assert not np.array_equal(refined, open_dataset(str(folder / "synthetic.zarr")).load().images)
    done = simgan("compare", "--synthetic", folder / "synthetic.zarr", "--refined",
                  folder / "refined.zarr", "--test", folder / "test.zarr", "--seeds", 1,
                  "--architecture", "hourglass", "--num-features", 4, "--steps", 1,
                  "--batch-size", 4, "--empty-shares",
                  "--arms", "synthetic", "--arms", "refined", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["num_test"] == 8
    assert "joints_within_5px" in found["arms"]["refined"]
