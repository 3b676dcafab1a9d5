"""Refining in bulk from Prefect's own pages, in headless Chromium; pictures in build/screenshots.

The whole day of a data team, with MLflow's pages, is a drill: tests/flows/operate.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.refinement_inputs import make_refiner, make_synthetic

CHROMIUM = shutil.which("chromium")
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
WORKER = ("prefect", "worker", "start", "--type", "process", "--pool", "simgan-cpu", "--run-once")


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of the browser; what it complains of is an error."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed: apt-get install chromium")
    args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    complaints: list[str] = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=args)
        page = chromium.new_page(viewport={"width": 1180, "height": 1000})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        chromium.close()
    assert complaints == []


def test_a_form_that_is_filled_becomes_a_run_with_pictures(
    api_with_deployments: str, page: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    make_synthetic(str(tmp_path / "synthetic.zarr"), 32, 16)
    refiner = make_refiner(tmp_path / "refiner.pt")
    server = api_with_deployments.removesuffix("/api")
    page.goto(f"{server}/deployments")
    page.get_by_text("bulk-refine", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_text("The dataset to refine, path or URL.").wait_for()
    for place, text in enumerate(["synthetic.zarr", str(refiner), "by-hand.zarr"]):
        page.locator("form textarea").nth(place).fill(text)
    page.screenshot(path=picture("bulk-refine-form"))
    page.get_by_role("button", name="Submit").click()
    # It slides in and goes by itself, too fast for a click that waits for it to lie still.
    page.get_by_role("button", name="View run").first.dispatch_event("click")
    surroundings = {**environment, "SIMGAN_FOLDER": str(tmp_path)}
    subprocess.run([sys.executable, "-m", *WORKER], env=surroundings, check=True)
    page.get_by_text("Completed", exact=True).first.wait_for()
    page.reload()  # the name that the run gave itself
    page.get_by_text("refine synthetic into by-hand").first.wait_for()
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("refined-images", exact=True).first.wait_for()
    page.screenshot(path=picture("bulk-refine-run"))
    page.get_by_text("refined-images", exact=True).first.click()
    page.locator("img[src^='data:image/png']").first.wait_for()
    page.screenshot(path=picture("bulk-refine-images"))
    assert (tmp_path / "by-hand.zarr").is_dir()


def picture(name: str) -> Path:
    """Where a picture of this name is kept."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES / f"{name}.png"
