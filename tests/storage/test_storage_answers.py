"""The results file of a visual Turing test: what it keeps, and what it never loses or mixes."""

import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from storage.answers import (
    AnswerBook,
    AnswersError,
    CodeTakenError,
    GivenAnswer,
    NewTrial,
    Part,
    Sitting,
    Study,
    StudyDataset,
    StudyImage,
    create_or_open_answers,
    open_answers,
)

STUDY = Study(
    id="turing-1",
    seed=0,
    parts=(Part(made="refined", num_trials=4), Part(made="synthetic", num_trials=2)),
    datasets={
        "real": StudyDataset(url="/real.zarr", digest="a"),
        "refined": StudyDataset(url="/refined.zarr", digest="b", refiner="refiner-1"),
    },
    height=2,
    width=3,
    channels=1,
)
IMAGES = [
    StudyImage(number, domain, part, f"eye/{number}", np.full((2, 3, 1), number, np.uint8))
    for number, (domain, part) in enumerate(
        [("real", 0), ("refined", 0), ("real", 0), ("refined", 0), ("synthetic", 1), ("real", 1)]
    )
]
ANN, BOB = b"session of Ann", b"session of Bob"


def _draw(subject: int) -> list[NewTrial]:
    return [NewTrial(image.part, image.image, f"{subject}-{image.image}") for image in IMAGES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


@pytest.fixture
def book(path: Path) -> Iterator[AnswerBook]:
    with closing(create_or_open_answers(path, STUDY, lambda: IMAGES)) as book:
        yield book


def _answer_all(book: AnswerBook, session: bytes, said_made: Callable[[int], bool]) -> None:
    sitting = book.resume(session)
    while sitting is not None and sitting.trial is not None and sitting.image is not None:
        given = GivenAnswer(session, sitting.trial, said_made(sitting.image), 500.0)
        (sitting,) = book.record([given])


def _at(book: AnswerBook, session: bytes) -> Sitting:
    sitting = book.resume(session)
    assert sitting is not None
    return sitting


def test_study_and_its_images_come_back_as_they_were(book: AnswerBook, path: Path) -> None:
    with closing(open_answers(path)) as again:
        study, found = again.study, again.images()
    assert study == STUDY
    assert [(i.domain, i.part, i.sample) for i in found] == [
        (i.domain, i.part, i.sample) for i in IMAGES
    ]
    np.testing.assert_array_equal(found[4].pixels, IMAGES[4].pixels)


def test_answer_is_kept_and_the_next_trial_comes(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    (after,) = book.record([GivenAnswer(ANN, "0-0", False, 640.0)])
    assert after == Sitting("Ann", 1, 6, 0, "0-1", 1)
    (row,) = book.answers()
    assert (row.code, row.sample, row.domain, row.said_made) == ("Ann", "eye/0", "real", 0)
    assert row.reaction_ms == 640.0


def test_second_answer_to_a_trial_changes_nothing(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    first, second = book.record(
        [GivenAnswer(ANN, "0-0", False, 1.0), GivenAnswer(ANN, "0-0", True, 2.0)]
    )
    assert first is not None
    assert second is not None
    assert first.trial == second.trial == "0-1"
    assert [row.said_made for row in book.answers()] == [0]


def test_trial_ahead_cannot_be_answered(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    book.record([GivenAnswer(ANN, "0-3", True, 1.0)])
    assert book.answers() == []


def test_subject_cannot_answer_for_another(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    book.add_subject("Bob", BOB, _draw)
    book.record([GivenAnswer(BOB, "0-0", True, 1.0)])
    assert book.answers() == []
    assert _at(book, BOB).trial == "1-0"


def test_unknown_session_is_told_nothing(book: AnswerBook) -> None:
    assert book.resume(ANN) is None
    assert book.record([GivenAnswer(ANN, "0-0", True, 1.0)]) == [None]


def test_code_is_one_subjects(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    with pytest.raises(CodeTakenError, match="“Ann” has taken part already"):
        book.add_subject("Ann", BOB, _draw)


def test_session_ends_with_its_score_a_part(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    _answer_all(book, ANN, lambda image: image in (1, 2, 4))
    assert _at(book, ANN) == Sitting("Ann", 6, 6, 1, None, None)
    assert book.score(ANN) == [(2, 4), (2, 2)]


def test_image_seen_again_after_a_reload_is_counted(book: AnswerBook) -> None:
    book.add_subject("Ann", ANN, _draw)
    book.resume(ANN)
    book.resume(ANN)
    book.record([GivenAnswer(ANN, "0-0", True, 9.0), GivenAnswer(ANN, "0-1", True, 9.0)])
    assert [row.times_shown for row in book.answers()] == [2, 1]


def test_study_goes_on_where_it_was(book: AnswerBook, path: Path) -> None:
    book.add_subject("Ann", ANN, _draw)
    book.record([GivenAnswer(ANN, "0-0", True, 1.0)])
    book.close()
    with closing(create_or_open_answers(path, STUDY, lambda: pytest.fail("drawn anew"))) as again:
        assert _at(again, ANN).trial == "0-1"


def test_another_study_is_refused_and_named(book: AnswerBook, path: Path) -> None:
    other = STUDY.model_copy(update={"id": "turing-2", "seed": 5})
    with pytest.raises(AnswersError, match="its seed is 0, not 5"):
        create_or_open_answers(path, other, lambda: IMAGES)


def test_file_of_something_else_is_refused(path: Path) -> None:
    path.write_text("not a database, and longer than the header of one " * 10)
    with pytest.raises(AnswersError, match="cannot be used as a results file"):
        open_answers(path)


def test_database_of_something_else_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    with pytest.raises(AnswersError, match="database of something else"):
        create_or_open_answers(path, STUDY, lambda: IMAGES)


def test_missing_file_is_named(path: Path) -> None:
    with pytest.raises(AnswersError, match="no results file"):
        open_answers(path)


def _take_part(path: Path, name: str) -> None:
    with closing(create_or_open_answers(path, STUDY, lambda: IMAGES)) as book:
        book.add_subject(name, name.encode(), _draw)
        _answer_all(book, name.encode(), lambda image: True)


def test_processes_share_a_file(path: Path) -> None:
    names = ["Ann", "Bob", "Cid"]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_take_part, args=(path, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    with closing(open_answers(path)) as book:
        rows = book.answers()
    assert sorted(row.code for row in rows) == sorted(names * 6)
    assert {row.subject for row in rows} == {0, 1, 2}
