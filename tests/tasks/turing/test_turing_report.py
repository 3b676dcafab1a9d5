"""What the report says of known answers: the figures, the table, the page, the MLflow run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from simgan_core.errors import InputError
from simgan_core.stats.binomial import binomial_interval
from storage.answers import AnswerBook, GivenAnswer, NewTrial
from tasks.runtime.tracking.experiments import REFINERS
from tasks.runtime.tracking.runs import begin_run
from tasks.turing.page import write_page
from tasks.turing.report import make_report, table
from tasks.turing.tracking import track

Said = Callable[[str, int], bool]


def _take_part(book: AnswerBook, code: str, said_made: Said, num_answers: int = 12) -> None:
    """Answer as a function of the image's domain and number."""
    images = book.images()
    shown: list[int] = []
    for part, num_each in ((0, 5), (1, 1)):
        of_part = [image for image in images if image.part == part]
        for real in (True, False):
            shown += [i.image for i in of_part if (i.domain == "real") == real][:num_each]
    trials = [NewTrial(images[i].part, i, f"{code}-{i}") for i in shown]
    session = code.encode()
    book.add_subject(code, session, lambda _subject: trials)
    for trial in trials[:num_answers]:
        said = said_made(images[trial.image].domain, trial.image)
        book.resume(session)
        book.record([GivenAnswer(session, trial.trial, said, 1000.0)])


def _knows_all(domain: str, _image: int) -> bool:
    return domain != "real"


def _says_real(_domain: str, _image: int) -> bool:
    return False


def test_figures_are_those_of_the_answers(book: AnswerBook) -> None:
    _take_part(book, "Ann", _knows_all)
    _take_part(book, "Bob", _says_real, num_answers=10)
    report = make_report(book.path)
    assert (report.num_subjects, report.num_answers) == (2, 22)
    refined, synthetic = report.parts
    assert (refined.made, refined.right.hits, refined.right.total) == ("refined", 15, 20)
    assert refined.right.ci95 == binomial_interval(15, 20)
    assert refined.confusion.model_dump() == {
        "real_said_real": 10,
        "real_said_made": 0,
        "made_said_real": 5,
        "made_said_made": 5,
    }
    assert [(one.code, one.right.hits, one.complete) for one in refined.subjects] == [
        ("Ann", 10, True),
        ("Bob", 5, True),
    ]
    assert (synthetic.made, synthetic.right.hits, synthetic.right.total) == ("synthetic", 2, 2)


def test_unfinished_session_counts_and_is_marked(book: AnswerBook) -> None:
    _take_part(book, "Ann", _knows_all, num_answers=3)
    (refined,) = make_report(book.path).parts
    assert refined.subjects[0].right.total == 3
    assert "Ann (unfinished)" in table(make_report(book.path))


def test_images_are_ranked_by_whom_they_fooled(book: AnswerBook) -> None:
    for code in ("Ann", "Bob", "Cid"):
        _take_part(book, code, lambda domain, image: domain != "real" and image % 2 == 0)
    images = make_report(book.path).parts[0].images
    assert [one.image % 2 for one in images] == sorted((i.image % 2 for i in images), reverse=True)
    assert {one.fooled.hits for one in images} == {0, 3}


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (_knows_all, "People tell refined images from real ones (30 of 30 right"),
        (_says_real, "Not shown that people tell refined images from real ones (15 of 30 right"),
        (
            lambda domain, image: domain == "real",
            "People see a difference but read it the wrong way round",
        ),
    ],
)
def test_verdict_says_what_was_shown(book: AnswerBook, said: Said, verdict: str) -> None:
    for code in ("Ann", "Bob", "Cid"):
        _take_part(book, code, said)
    assert make_report(book.path).parts[0].verdict.startswith(verdict)


def test_verdict_goes_by_the_spread_of_people_where_they_differ(book: AnswerBook) -> None:
    for code in ("Ann", "Bob"):
        _take_part(book, code, _knows_all)
    _take_part(book, "Cid", _says_real)
    refined = make_report(book.path).parts[0]
    assert refined.right.ci95[0] > 0.5
    assert refined.verdict.startswith("Not shown that")
    assert "by the spread of people" in refined.verdict


def test_no_answers_are_no_report(book: AnswerBook) -> None:
    with pytest.raises(InputError, match="holds no answers yet"):
        make_report(book.path)


def test_report_is_plain_json(book: AnswerBook) -> None:
    _take_part(book, "Ann", _knows_all)
    found = json.loads(make_report(book.path).model_dump_json())
    assert found["parts"][0]["right"]["hits"] == 10


def test_page_stands_alone_and_escapes_names(book: AnswerBook) -> None:
    _take_part(book, "<b>Ann</b>", _knows_all)
    page = write_page(make_report(book.path), book.path).read_text("utf-8")
    assert "&lt;b&gt;Ann" in page
    assert "<b>Ann" not in page
    assert "http" not in page
    assert page.count("data:image/png") == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of SQLAlchemy
def test_report_is_put_on_the_refiners_run(
    book: AnswerBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    training = begin_run(REFINERS, "refiner-0123456789ab", "refiner-0123456789ab")
    _take_part(book, "Ann", _knows_all)
    report = make_report(book.path)
    run_id = track(report, write_page(report, book.path))
    assert run_id == training.run_id
    client: Any = MlflowClient(f"sqlite:///{tmp_path}/home/mlflow.db")
    run = client.get_run(run_id)
    assert run.data.metrics["turing.refined_vs_real.share_right"] == 1.0
    assert run.data.metrics["turing.synthetic_vs_real.num_answers"] == 2
    assert run.data.tags["turing.refined_vs_real"].startswith("People tell refined images")
    (kept,) = client.list_artifacts(run_id, f"turing/{report.study.id}")
    assert kept.path.endswith("answers.html")
