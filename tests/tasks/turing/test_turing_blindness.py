"""A subject that looks at everything but the pixels guesses: bytes, headers, sizes and timings.

Fifteen sessions of 100 trials are recorded over real HTTP. Classifiers that are told the truth
about the first five, which no subject is, then judge the ten others by what was observed besides
the pixels. (Judging each session by all the others would not do: a chance excess in one session is
a lack in the others taken together, so that guesses come out right less often than by chance.)
"""

import time
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from simgan_core.stats.binomial import binomial_p_value
from storage.answers import AnswerBook
from tasks.turing.study import open_study

NUM_SUBJECTS, NUM_TRIALS = 15, 100
NUM_LEARNED_FROM = 5 * NUM_TRIALS
Table = NDArray[np.float64]
Classifier = Callable[[Table, NDArray[np.bool_], Table], NDArray[np.bool_]]


class Observed(NamedTuple):
    """What 1,500 trials looked like, in the order of sessions and trials."""

    besides_pixels: Table
    """float64 [trials, F]."""
    png_like_size: Table
    """float64 [trials, 1]: how far the pixels compress: a leak, if it were to be seen."""
    headers: list[set[tuple[str, str]]]
    """Of each response that brought an image."""
    sizes: NDArray[np.int64]
    """int64 [sessions, trials]: bytes of those responses."""
    told: list[str]
    """The documents without the pixels, as text."""
    made: NDArray[np.bool_]
    """bool [trials]: the truth."""


@pytest.fixture(scope="module")
def study(eyes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnswerBook]:
    path = tmp_path_factory.mktemp("study") / "answers.sqlite"
    with closing(open_study(eyes["real"], eyes["refined"], None, NUM_TRIALS, 0, path)) as book:
        yield book


@pytest.fixture(scope="module")
def observed(
    study: AnswerBook, serve: Callable[[AnswerBook], str], visit: Callable[[str], Any]
) -> Observed:
    url = serve(study)
    rows, sizes, headers, told, pixels = [], [], [], [], []
    for number in range(NUM_SUBJECTS):
        visitor = visit(url)
        visitor.begin(f"S{number:02}")
        brought_in = 0.0
        for _ in range(NUM_TRIALS):
            pixels.append(visitor.state.pop("pixels"))
            trial = visitor.state["trial"]
            headers.append(set(visitor.headers))
            sizes.append(visitor.size)
            told.append(str({**visitor.state, "trial": None, "csrf": None}))
            reload_s = _seconds(visitor.send, "GET", "/api/session")
            answer_s = _seconds(visitor.answer)
            size_of_headers = sum(len(value) for _, value in headers[-1])
            row = [brought_in, reload_s, answer_s, sizes[-1], size_of_headers, len(told[-1])]
            rows.append([*row, *trial.encode()])
            brought_in = answer_s
    # Only now: work that takes longer for one kind, between two timings, would itself be a leak.
    compressed = np.array([[len(zlib.compress(b64decode(one)))] for one in pixels], np.float64)
    made = np.array([row.domain != "real" for row in study.answers()])
    by_session = np.array(sizes).reshape(NUM_SUBJECTS, NUM_TRIALS)
    return Observed(np.array(rows), compressed, headers, by_session, told, made)


def _seconds(call: Callable[..., Any], *words: Any) -> float:
    started = time.perf_counter()
    call(*words)
    return time.perf_counter() - started


def _linear(seen: Table, made: NDArray[np.bool_], asked: Table) -> NDArray[np.bool_]:
    """Fisher's discriminant on the features and their squares."""
    seen, asked = np.hstack([seen, seen**2]), np.hstack([asked, asked**2])
    centres = seen[~made].mean(0), seen[made].mean(0)
    spread = np.cov(seen - np.where(made[:, None], centres[1], centres[0]), rowvar=False)
    direction = np.linalg.solve(spread + 1e-3 * np.eye(len(spread)), centres[1] - centres[0])
    return np.asarray((asked - (centres[0] + centres[1]) / 2) @ direction > 0)


def _neighbours(seen: Table, made: NDArray[np.bool_], asked: Table) -> NDArray[np.bool_]:
    """Follow what most of the 15 most alike trials were."""
    distance = ((asked[:, None] - seen[None]) ** 2).sum(-1)
    return np.asarray(made[np.argsort(distance, axis=1)[:, :15]].mean(1) > 0.5)


def _one_feature(seen: Table, made: NDArray[np.bool_], asked: Table) -> NDArray[np.bool_]:
    """Cut at the median of the one feature that told most."""
    above = seen > np.median(seen, axis=0)
    told = (above == made[:, None]).mean(0) - 0.5
    best = int(np.argmax(np.abs(told)))
    return np.asarray((asked[:, best] > np.median(seen[:, best])) == (told[best] > 0))


def _num_right(classifier: Classifier, features: Table, made: NDArray[np.bool_]) -> int:
    """Learn from the first sessions and judge the 1,000 trials of the others."""
    # Ranks, so that one slow answer among a thousand does not hide the others.
    ranks = features.argsort(0, kind="stable").argsort(0) / len(features) - 0.5
    seen, asked = np.split(ranks, [NUM_LEARNED_FROM])
    said = classifier(seen, made[:NUM_LEARNED_FROM], asked)
    return int((said == made[NUM_LEARNED_FROM:]).sum())


@pytest.mark.parametrize("classifier", [_linear, _neighbours, _one_feature])
def test_subject_without_eyes_guesses(observed: Observed, classifier: Classifier) -> None:
    right = _num_right(classifier, observed.besides_pixels, observed.made)
    assert binomial_p_value(right, 1000) > 1e-4, f"{right} of 1000 right"


def test_same_subject_would_find_a_leak(observed: Observed) -> None:
    leaking = np.hstack([observed.besides_pixels, observed.png_like_size])
    assert _num_right(_linear, leaking, observed.made) > 900


def test_headers_are_the_same_for_every_image(observed: Observed) -> None:
    changing = ("date", "content-length", "set-cookie")
    fixed = [{(k, v) for k, v in headers if k not in changing} for headers in observed.headers]
    assert all(one == fixed[0] for one in fixed)


def test_size_follows_from_the_progress_alone(observed: Observed) -> None:
    assert all(len(set(sizes)) == 1 for sizes in observed.sizes.T)


def test_nothing_told_names_a_kind_a_file_or_a_sample(observed: Observed) -> None:
    words = ("real", "refined", "made", "synthetic", "p00", "f01", "png", "zarr")
    assert not [word for word in words for told in observed.told if word in told]
