"""A data team's day in a real browser; its pictures are left in build/screenshots.

Those in docs/how-to/operate are copies of them.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.drill

CHROMIUM = shutil.which("chromium")
PICTURES = Path(__file__).parents[3] / "build" / "screenshots"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of headless Chromium; what it complains of is an error."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed: apt-get install chromium")
    args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    complaints: list[str] = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=args)
        page = chromium.new_page(viewport={"width": 1180, "height": 1000})
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        chromium.close()
    assert complaints == []


@pytest.fixture(scope="module")
def picture(page: Any) -> Callable[[str], None]:
    """Keep a picture of the page as it is."""
    PICTURES.mkdir(parents=True, exist_ok=True)

    def keep(name: str) -> None:
        page.wait_for_timeout(1500)  # fonts, and what slides in
        page.screenshot(path=PICTURES / f"{name}.png")
        with Image.open(PICTURES / f"{name}.png") as made:
            assert len(np.unique(made.convert("L"))) > 16  # not empty

    return keep


def test_bulk_refinement_from_the_form_to_its_artifacts(
    team: Any, nights: Any, page: Any, picture: Callable[[str], None]
) -> None:
    page.goto(f"{team.prefect}/deployments")
    page.get_by_text("bulk-refine", exact=True).first.wait_for()
    picture("deployments")
    page.get_by_text("bulk-refine", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_text("The dataset to refine, path or URL.").wait_for()
    values = ["data/nightly/synthetic.zarr", nights.refiner, "data/by-hand.zarr"]
    for place, text in enumerate(values):
        page.locator("form textarea").nth(place).fill(text)
    picture("form")
    page.get_by_role("button", name="Submit").click()
    # It slides in and goes by itself, too fast for a click that waits for it to lie still.
    page.get_by_role("button", name="View run").first.dispatch_event("click")
    page.get_by_text("Completed", exact=True).first.wait_for()
    page.reload()  # the name that the run gave itself
    page.get_by_text("refine synthetic into by-hand").first.wait_for()
    picture("run")
    page.get_by_text("Artifacts", exact=True).first.click()
    for key in ("refinement", "refined-images", "mlflow-dataset", "mlflow-refiner"):
        page.get_by_text(key, exact=True).first.wait_for()
    page.mouse.wheel(0, 1000)
    picture("artifacts")
    page.get_by_text("refined-images", exact=True).first.click()
    page.locator("img[src^='data:image/png']").first.wait_for()
    picture("refined")


def test_both_errors_of_a_comparison_in_mlflow(
    team: Any, nights: Any, page: Any, picture: Callable[[str], None]
) -> None:
    page.goto(team.mlflow)
    # MLflow shows language models until it is told otherwise.
    page.get_by_text("Model training", exact=True).first.click()
    page.get_by_text("comparisons", exact=True).first.click()
    page.get_by_role("link", name=re.compile("comparison-[0-9a-f]{12}")).first.click()
    page.get_by_text("synthetic.error_deg", exact=True).first.wait_for()
    page.get_by_text("refined.error_deg", exact=True).first.wait_for()
    page.get_by_text("synthetic.error_deg", exact=True).first.scroll_into_view_if_needed()
    picture("mlflow")
