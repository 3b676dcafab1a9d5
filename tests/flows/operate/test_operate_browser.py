"""A data team's day in a real browser; the pictures of docs/operate.md are made on the way."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[3] / "docs" / "operate"


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser's page; what it complains of is an error."""
    context = browser.new_context(viewport={"width": 1180, "height": 760}, color_scheme="light")
    page, complaints = context.new_page(), []
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def picture(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep a picture of the page: beside docs/operate.md when SIMGAN_PICTURES is set."""
    folder = DOCS if "SIMGAN_PICTURES" in os.environ else tmp_path_factory.mktemp("pictures")
    folder.mkdir(exist_ok=True)

    def keep(name: str) -> None:
        page.wait_for_timeout(1000)  # fonts, and what slides in
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        assert 10_000 < path.stat().st_size < 300_000

    return keep


def test_bulk_refinement_from_the_form_to_its_artifacts(
    team: Any, nights: Any, page: Any, picture: Any
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
    page.get_by_text("View run").first.click()
    page.get_by_text("Completed", exact=True).first.wait_for()
    picture("run")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("refined-images").first.wait_for()
    picture("artifacts")
    page.get_by_text("refined-images").first.click()
    page.locator("img[src^='data:image/png']").first.wait_for()
    picture("refined")


def test_both_errors_of_a_comparison_in_mlflow(
    team: Any, nights: Any, page: Any, picture: Any
) -> None:
    page.goto(team.mlflow)
    page.get_by_text("comparisons", exact=True).first.click()
    name = re.compile("comparison-[0-9a-f]{12}")
    page.get_by_role("link", name=name).first.click()
    page.get_by_text("synthetic.error_deg", exact=True).first.wait_for()
    page.get_by_text("refined.error_deg", exact=True).first.wait_for()
    picture("mlflow")
