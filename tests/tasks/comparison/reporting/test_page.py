"""The report's page says the answer first, and nothing in it is taken for markup."""

from html.parser import HTMLParser

from tasks.comparison.arms import Protocol
from tasks.comparison.plan import LabelSpread, PseudoLabelsRef
from tasks.comparison.reporting.charts import Chart
from tasks.comparison.reporting.page import comparison_page
from tasks.comparison.reporting.results import ArmResult, ComparisonResult, Difference

NOT_MARKUP = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Collects a page's text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.tags[-1] if self.tags else "", []).append(data)


def page(pseudo_label_error_deg: float | None = None) -> Page:
    arm = ArmResult(title=NOT_MARKUP, measure="gaze", error=4.5, ci95=(4.0, 5.0), within=0.9,
                    median=4.2, seeds=3, pseudo_label_error_deg=pseudo_label_error_deg)  # fmt: skip
    worse = Difference(measure="gaze", error=0.5, ci95=(0.1, 0.9))
    unclear = Difference(measure="gaze", error=0.5, ci95=(-0.1, 0.9))
    result = ComparisonResult(
        comparison="comparison-1",
        measure="gaze",
        protocol=Protocol(),
        arms={"refined": arm},
        differences={"refined_minus_synthetic": worse, "refined_minus_real": unclear},
        test_digest="0" * 64,
        num_test=1200,
        num_people=None,
        seeds=3,
        pupil_shift_px=None,
        label_matching=None,
        pseudo_labels={},
        judged_by=PseudoLabelsRef(
            id="pseudo-labels-1",
            num_sources=2,
            num_neighbours=20,
            num_steps=10,
            agreement=0.5,
            agreement_uncentred=0.4,
            spread=LabelSpread(mean_deg=(0, 0), sd_deg=(5, 5)),
        ),
        verdict="Refined is WORSE. It is not worth it.",
        test_evaluations=7,
        registered_model=None,
        mlflow_run_id="run",
        flow_run=None,
        report="report.html",
    )
    chart = Chart("bars", "Bars", "A caption.", NOT_MARKUP, b"png")
    return Page(comparison_page(result, [chart], b"png", {"dataset": NOT_MARKUP}))


def test_the_answer_is_the_heading_and_the_rest_follows() -> None:
    found = page()
    assert found.texts["h1"][0] == "Refined is WORSE."
    assert "It is not worth it." in found.texts["p"]


def test_differences_are_named_by_what_they_show() -> None:
    cells = page().texts["td"]
    assert "worse" in cells
    assert "no difference" in cells
    assert "refined − synthetic" in page().texts["th"]


def test_errors_on_pseudo_labels_have_a_column_and_a_sentence_where_there_are_any() -> None:
    found, without = page(8.13), page()
    assert "pseudo-labels" in found.texts["th"]
    assert "8.13°" in found.texts["td"]
    assert any("no real label used" in text for text in found.texts["p"])
    assert "pseudo-labels" not in without.texts["th"]
    assert not any("no real label used" in text for text in without.texts["p"])


def test_names_are_text_wherever_they_stand() -> None:
    found = page()
    assert "script" not in found.tags
    assert NOT_MARKUP in found.texts["th"]
    assert NOT_MARKUP in found.texts["dd"]
