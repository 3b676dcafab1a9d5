"""What charts show: every arm has a name, letters are large enough, pixels are two for one."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tasks.comparison.plan import Comparison
from tasks.comparison.predictions import ArmPredictions
from tasks.comparison.reporting import charts
from tasks.comparison.reporting.analysis import results_from_predictions
from tasks.comparison.reporting.charts import Chart, draw_charts
from tasks.comparison.reporting.results import Results
from tests.tasks.comparison.test_arms import plan

PAGE_PX = 480
"""Width of a chart on the report's page."""


@pytest.fixture
def comparison(eyes: dict[str, str], home: Path) -> Comparison:
    return plan(eyes, 2, arms=("synthetic", "tone_matched", "refined", "real"))


@pytest.fixture
def predictions(comparison: Comparison) -> dict[str, ArmPredictions]:
    """Answers that were drawn at random, on 40 images of four people."""
    rng = np.random.default_rng(0)
    ids = [f"p{row // 10:02d}/{row}" for row in range(40)]
    truth = rng.normal((0, 0, -4), size=(40, 3))
    truth = (truth / np.linalg.norm(truth, axis=1, keepdims=True)).astype(np.float32)
    return {
        arm.name: ArmPredictions(
            ids, truth, np.stack([truth, truth]), rng.gamma(4, 2, (2, 40)), np.ones((2, 40))
        )
        for arm in comparison.arms
    }


def draw(comparison: Comparison, predictions: dict[str, ArmPredictions]) -> list[Chart]:
    results: Results = results_from_predictions(comparison, predictions, None)
    images = {name: np.zeros((35, 55, 1), np.uint8) for name in predictions["refined"].ids}
    pupils = np.arange(40.0).reshape(20, 2)
    curves = {"realism/kid": [(0, 2.0), (10, 1.0)]}
    return draw_charts(comparison, results, predictions, images, (pupils, pupils + 1), curves, {})


def test_every_arm_is_in_the_legend_of_the_errors_by_person(
    comparison: Comparison, predictions: dict[str, ArmPredictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []

    def keep(draw_on: Callable[[Axes], None], height_in: float) -> bytes:
        figures.append(Figure())
        draw_on(figures[-1].subplots())
        return b""

    monkeypatch.setattr(charts, "_png", keep)
    names = [chart.name for chart in draw(comparison, predictions)]
    figure = figures[names.index("by_person")]
    (legend,) = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    assert {text.get_text() for text in legend.get_texts()} == {
        arm.title for arm in comparison.arms
    }


def test_charts_have_two_pixels_for_each_of_the_pages(
    comparison: Comparison, predictions: dict[str, ArmPredictions]
) -> None:
    for chart in draw(comparison, predictions):
        assert Image.open(io.BytesIO(chart.png)).width >= 2 * PAGE_PX, chart.name


def test_no_letters_are_smaller_than_11_px_on_the_page(
    comparison: Comparison, predictions: dict[str, ArmPredictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, float] = {}
    save = Figure.savefig

    def measured(figure: Figure, *given: Any, **named: Any) -> None:
        texts: Any = figure.findobj(Text)
        shown = [text for text in texts if text.get_text()]
        width_in, _ = figure.get_size_inches()
        smallest = min(text.get_fontsize() for text in shown)
        sizes[shown[0].get_text()] = smallest / 72 * PAGE_PX / width_in
        save(figure, *given, **named)

    monkeypatch.setattr(Figure, "savefig", measured)
    drawn = draw(comparison, predictions)
    assert len(sizes) > len(drawn) / 2
    assert min(sizes.values()) >= 11
