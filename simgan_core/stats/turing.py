"""Visual Turing test statistics: trial order, scores, confusion, intervals over subjects.

A subject is shown real and made images in equal numbers, says of each whether it is real or made,
and is never told meanwhile. Images are numbers here; what they show does not matter.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgan_core.stats.binomial import binomial_interval, binomial_p_value, mean_interval

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def draw_pool(entropy: int, purpose: str, num_available: int, num_drawn: int) -> Numbers:
    """Draw rows for a study without replacement: int64 [num_drawn], at most what is available."""
    order = _generator(entropy, purpose).permutation(num_available)
    return order[:num_drawn].astype(np.int64)


def draw_trials(
    entropy: int, subject: int, part: int, real: Numbers, made: Numbers, num: int
) -> Numbers:
    """Draw a subject's images, half from each pool without replacement, in random order.

    The order is a function of `entropy` and of the numbers of subject and part, from 0. Returns
    int64 [num], `num` even.
    """
    rng = _generator(entropy, f"subject {subject} part {part}")
    half = num // 2
    shown = np.concatenate(
        [rng.choice(real, half, replace=False), rng.choice(made, half, replace=False)]
    )
    return rng.permutation(shown)


@dataclass(frozen=True)
class Answers:
    """A answers of a Turing test, as columns of one length."""

    subject: Numbers
    """int64 [A]: who answered."""
    image: Numbers
    """int64 [A]: what was shown."""
    made: Flags
    """bool [A]: the image was made, by a simulator or a refiner."""
    said_made: Flags
    """bool [A]: the subject said so."""
    reaction_ms: NDArray[np.float64]
    """float64 [A]: for how long the image was seen, in ms; NaN where that is not known."""

    def __len__(self) -> int:
        return len(self.subject)

    @property
    def right(self) -> Flags:
        """True where the subject was right, bool [A]."""
        return np.equal(self.made, self.said_made)

    def where(self, chosen: Flags) -> "Answers":
        """Return the answers that are marked, bool [A]."""
        return Answers(
            self.subject[chosen],
            self.image[chosen],
            self.made[chosen],
            self.said_made[chosen],
            self.reaction_ms[chosen],
        )


@dataclass(frozen=True)
class Score:
    """Share of answers, its exact 95% confidence interval and the p-value of guessing."""

    hits: int
    total: int
    share: float
    low: float
    high: float
    p_value: float


def score(hits: Flags) -> Score:
    """Return the share of true entries of bool [A], A ≥ 1; two-sided p-value against 1/2."""
    count, total = int(hits.sum()), len(hits)
    low, high = binomial_interval(count, total)
    return Score(count, total, count / total, low, high, binomial_p_value(count, total))


def confusion(answers: Answers) -> NDArray[np.int64]:
    """Count answers, int64 [2, 2]: axes (was made, was said to be made), real first."""
    table = np.zeros((2, 2), dtype=np.int64)
    np.add.at(table, (answers.made.astype(int), answers.said_made.astype(int)), 1)
    return table


def interval_over_subjects(answers: Answers) -> tuple[float, float] | None:
    """Return the 95% interval of the mean share right of further people; None of fewer than 3.

    The binomial interval takes all answers as one person's. Where people differ in skill, this one
    is wider, and it is the one that speaks of people who were not asked.
    """
    subjects = np.unique(answers.subject)
    if len(subjects) < 3:
        return None
    low, high = mean_interval([float(answers.right[answers.subject == s].mean()) for s in subjects])
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Fooling:
    """Share of made images that were taken for real."""

    image: int
    score: Score


def fooling(answers: Answers) -> list[Fooling]:
    """Return every made image's score, those first that fooled most surely.

    Surely: by the lower end of the interval, then by the share, so that 9 of 10 comes before 1 of 1
    and 0 of 10 after 0 of 1.
    """
    made = answers.where(answers.made)
    found = [
        Fooling(int(image), score(~made.said_made[made.image == image]))
        for image in np.unique(made.image)
    ]
    return sorted(found, key=lambda one: (-one.score.low, -one.score.high, one.image))


@dataclass(frozen=True)
class Reaction:
    """Reaction times in ms: quartiles over `num` answers."""

    num: int
    quarter: float
    median: float
    three_quarters: float


def reaction(answers: Answers) -> Reaction | None:
    """Return the quartiles of the known reaction times; None where none is known."""
    known = answers.reaction_ms[np.isfinite(answers.reaction_ms)]
    if len(known) == 0:
        return None
    quarter, median, three_quarters = np.percentile(known, [25, 50, 75])
    return Reaction(len(known), float(quarter), float(median), float(three_quarters))


def num_trials_of_control(num_trials: int) -> int:
    """Return how many synthetic-or-real trials follow: a fifth, as in the article, and even."""
    return 2 * max(1, math.ceil(num_trials / 10))


def _generator(entropy: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([entropy, *purpose.encode()])
