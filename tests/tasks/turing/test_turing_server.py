"""What the server of a visual Turing test gives, keeps and refuses, over real HTTP."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simgan_core.errors import InputError
from storage.answers import AnswerBook, AnswersError
from tasks.turing.server import serve as serve_book
from tasks.turing.study import open_study

Serve = Callable[[AnswerBook], str]
Visit = Callable[[str], Any]


@pytest.fixture
def ann(book: AnswerBook, serve: Serve, visit: Visit) -> Any:
    """A visitor who has begun."""
    visitor = visit(serve(book))
    visitor.begin("Ann")
    return visitor


def test_session_goes_from_welcome_to_score(book: AnswerBook, serve: Serve, visit: Visit) -> None:
    visitor = visit(serve(book))
    visitor.send("GET", "/api/session")
    assert visitor.state["phase"] == "welcome"
    visitor.begin("Ann")
    for answered in range(12):
        assert visitor.state["answered"] == answered
        assert visitor.answer("made") == 200
    assert visitor.state["phase"] == "done"
    assert visitor.state["scores"] == [[5, 10], [1, 2]]


def test_trials_of_a_part_are_half_real(ann: Any, book: AnswerBook) -> None:
    while ann.state["phase"] == "trial":
        ann.answer()
    domains = [(row.part, row.domain) for row in book.answers()]
    assert domains.count((0, "real")) == domains.count((0, "refined")) == 5
    assert domains.count((1, "real")) == domains.count((1, "synthetic")) == 1


def test_rest_is_offered_between_the_parts(ann: Any) -> None:
    rests = []
    while ann.state["phase"] == "trial":
        rests.append(ann.state["rest"])
        ann.answer()
    assert [answered for answered, rest in enumerate(rests) if rest] == [10]


def test_reload_shows_the_same_trial(ann: Any) -> None:
    ann.answer()
    trial = ann.state["trial"]
    ann.send("GET", "/api/session")
    assert ann.state["trial"] == trial


def test_double_click_counts_once(ann: Any, book: AnswerBook) -> None:
    body = {"trial": ann.state["trial"], "said": "real", "reaction_ms": 1}
    ann.send("POST", "/api/answers", body)
    following = ann.state["trial"]
    ann.send("POST", "/api/answers", body | {"said": "made"})
    assert ann.state["trial"] == following
    assert [row.said_made for row in book.answers()] == [0]


def test_two_subjects_do_not_mix(ann: Any, book: AnswerBook, visit: Visit) -> None:
    bob = visit(f"http://{ann.host}")
    bob.begin("Bob")
    for _ in range(5):
        ann.answer("real")
        bob.answer("made")
    said = {(row.code, row.said_made) for row in book.answers()}
    assert said == {("Ann", 0), ("Bob", 1)}


def test_answer_for_another_subjects_trial_changes_nothing(
    ann: Any, book: AnswerBook, visit: Visit
) -> None:
    bob = visit(f"http://{ann.host}")
    bob.begin("Bob")
    bob.state["trial"] = ann.state["trial"]
    bob.answer()
    assert book.answers() == []


def test_finished_browser_makes_way_for_another_subject(ann: Any) -> None:
    assert ann.send("POST", "/api/leave", {}) == 409
    while ann.state["phase"] == "trial":
        ann.answer()
    assert ann.send("POST", "/api/leave", {}) == 200
    assert ann.state["phase"] == "welcome"
    ann.begin("Bob")
    assert ann.state["code"] == "Bob"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"X_CSRF_Token": "0" * 64},
        {"X_CSRF_Token": None},
        {"Content_Type": "text/plain"},
        {"Cookie": None},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_answer_that_another_site_could_send_is_refused(
    ann: Any, book: AnswerBook, headers: dict[str, str | None]
) -> None:
    assert ann.answer(**headers) in (403, 415, 421)
    assert book.answers() == []


def test_another_site_cannot_register_a_subject(
    book: AnswerBook, serve: Serve, visit: Visit
) -> None:
    visitor = visit(serve(book))
    visitor.send("GET", "/api/session")
    body = {"code": "Eve"}
    assert visitor.send("POST", "/api/subjects", body, X_CSRF_Token="") == 403
    assert visitor.send("POST", "/api/subjects", body, Origin="http://evil.example") == 403


def test_pages_forbid_framing_and_caching_and_the_cookie_is_out_of_reach(
    book: AnswerBook, serve: Serve, visit: Visit
) -> None:
    visitor = visit(serve(book))
    visitor.send("GET", "/api/session")
    cookie = dict(visitor.headers)["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    for path in ("/", "/turing.js", "/api/session"):
        visitor.send("GET", path)
        headers = dict(visitor.headers)
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    "code", ["", "   ", "x" * 41, "<script>", "a\u0000b", "../etc", '"; DROP TABLE', "-rf"]
)
def test_odd_code_is_refused(book: AnswerBook, serve: Serve, visit: Visit, code: str) -> None:
    visitor = visit(serve(book))
    visitor.send("GET", "/api/session")
    assert visitor.send("POST", "/api/subjects", {"code": code}) == 422


@pytest.mark.parametrize("code", ["P01", "Ann-Marie O'Neil", "Ørsted", "王"])
def test_names_are_welcome(book: AnswerBook, serve: Serve, visit: Visit, code: str) -> None:
    visitor = visit(serve(book))
    visitor.begin(f"  {code} ")
    assert visitor.state["code"] == code


def test_code_that_is_taken_is_refused(ann: Any, visit: Visit) -> None:
    other = visit(f"http://{ann.host}")
    other.send("GET", "/api/session")
    assert other.send("POST", "/api/subjects", {"code": "Ann"}) == 409


@pytest.mark.parametrize(
    "change",
    [
        {"said": "perhaps"},
        {"said": None},
        {"reaction_ms": -1},
        {"reaction_ms": 1e300},
        {"reaction_ms": "500"},
        {"trial": 3},
        {"trial": "x" * 65},
        {"image": 7},
    ],
)
def test_malformed_answer_is_refused(ann: Any, book: AnswerBook, change: dict[str, Any]) -> None:
    body = {"trial": ann.state["trial"], "said": "real", "reaction_ms": 1.0} | change
    assert ann.send("POST", "/api/answers", body) == 422
    assert book.answers() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"trial": NaN}', b"\xff"])
def test_body_that_is_no_answer_is_refused(ann: Any, body: bytes) -> None:
    assert ann.send("POST", "/api/answers", body) == 422


def test_large_body_is_refused(ann: Any) -> None:
    assert ann.send("POST", "/api/answers", b" " * 5000) == 413


def test_images_are_of_valid_rows_and_of_one_scene_once(
    book: AnswerBook, eyes: dict[str, str]
) -> None:
    made = [image.sample for image in book.images() if image.domain != "real"]
    assert len(made) == len(set(made)) == 12


def test_results_file_is_named_by_what_is_asked(
    eyes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    names = set()
    for trials, seed in ((10, 0), (10, 0), (12, 0), (10, 1)):
        found = open_study(eyes["real"], eyes["refined"], None, trials, seed, None)
        names.add(found.path)
        found.close()
    assert len(names) == 3
    assert {name.parent for name in names} == {tmp_path / "turing"}


def test_more_trials_than_images_are_refused(eyes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 120 images left to draw from, the study shows 150"):
        open_study(eyes["real"], eyes["refined"], None, 300, 0, tmp_path / "a.sqlite")


def test_port_that_is_taken_is_named(book: AnswerBook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another"
        with pytest.raises(InputError, match=expected):
            serve_book(book, "127.0.0.1", port, pytest.fail)


def test_odd_number_of_trials_is_refused(eyes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--trials 7: expected an even number"):
        open_study(eyes["real"], eyes["refined"], None, 7, 0, tmp_path / "a.sqlite")


def test_dataset_under_the_wrong_name_is_refused(eyes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a dataset of refined images, found one of real"):
        open_study(eyes["real"], eyes["real"], None, 4, 0, tmp_path / "a.sqlite")


def test_results_of_other_options_are_not_mixed_in(book: AnswerBook, eyes: dict[str, str]) -> None:
    with pytest.raises(AnswersError, match="10 trials of refined images"):
        open_study(eyes["real"], eyes["refined"], eyes["synthetic"], 20, 0, book.path)
