"""Results of a visual Turing test: metrics and a table.

Every share is of right answers, with its exact binomial interval, and a p-value against guessing.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from simgan_core.errors import InputError
from simgan_core.stats.turing import (
    Answers,
    Score,
    confusion,
    fooling,
    interval_over_subjects,
    reaction,
    score,
)
from storage.answers import AnswerRow, Part, Study, open_answers

CHANCE = 0.5


class Result(BaseModel):
    """Base of all results: frozen."""

    model_config = ConfigDict(frozen=True)


class Share(Result):
    """A share of answers with its exact 95% interval."""

    hits: int
    total: int
    share: float
    ci95: tuple[float, float]
    p_value: float
    """Two-sided, against guessing."""


class Confusion(Result):
    """Counts of what was shown and what was said."""

    real_said_real: int
    real_said_made: int
    made_said_real: int
    made_said_made: int


class ReactionTimes(Result):
    """Quartiles, in ms, of how long images were seen that were shown once."""

    num: int
    quarter_ms: float
    median_ms: float
    three_quarters_ms: float


class GroupResult(Result):
    """Statistics of a set of answers."""

    right: Share
    confusion: Confusion
    reaction: ReactionTimes | None


class SubjectResult(GroupResult):
    """Statistics of one subject."""

    code: str
    complete: bool
    """True where all trials of the part were answered."""


class ImageResult(Result):
    """Statistics of a made image: how often it was taken for real."""

    image: int
    sample: str
    fooled: Share


class PartResult(GroupResult):
    """All subjects on one question: refined or real, or synthetic or real."""

    made: str
    right_over_subjects_ci95: tuple[float, float] | None
    """Interval of the mean subject's share, Student's: of people who were not asked, too."""
    subjects: list[SubjectResult]
    images: list[ImageResult]
    """Every made image that was shown, those that fooled most surely first."""
    verdict: str


class TuringReport(Result):
    """Report of a study, as `turing report --json` prints it."""

    study: Study
    num_subjects: int
    num_answers: int
    parts: list[PartResult]


def make_report(results: Path) -> TuringReport:
    """Read a results file, which may be in use; raises InputError while there is no answer."""
    with closing(open_answers(results)) as book:
        study, rows = book.study, book.answers()
    if not rows:
        raise InputError(f"{results} holds no answers yet; they come from `simgan turing serve`")
    return TuringReport(
        study=study,
        num_subjects=len({row.subject for row in rows}),
        num_answers=len(rows),
        parts=[
            _part(asked, [row for row in rows if row.part == part])
            for part, asked in enumerate(study.parts)
            if any(row.part == part for row in rows)
        ],
    )


def table(report: TuringReport) -> str:
    """The report as Markdown: a table and a verdict for each question."""
    return "\n\n".join(_part_table(part) for part in report.parts)


def _part(asked: Part, rows: Sequence[AnswerRow]) -> PartResult:
    answers = _columns(rows)
    group = _group(answers)
    over_subjects = interval_over_subjects(answers)
    return PartResult(
        **dict(group),
        made=asked.made,
        right_over_subjects_ci95=over_subjects,
        subjects=_subjects(asked, rows, answers),
        images=_images(rows, answers),
        verdict=_verdict(asked.made, group.right, over_subjects),
    )


def _columns(rows: Sequence[AnswerRow]) -> Answers:
    return Answers(
        subject=np.array([row.subject for row in rows]),
        image=np.array([row.image for row in rows]),
        made=np.array([row.domain != "real" for row in rows]),
        said_made=np.array([row.said_made for row in rows], dtype=bool),
        # Shown again after a reload, an image has been seen for longer than the page knows.
        reaction_ms=np.array(
            [row.reaction_ms if row.times_shown == 1 else np.nan for row in rows], dtype=np.float64
        ),
    )


def _subjects(asked: Part, rows: Sequence[AnswerRow], answers: Answers) -> list[SubjectResult]:
    codes = {row.subject: row.code for row in rows}
    results = []
    for subject, code in codes.items():
        own = answers.where(answers.subject == subject)
        complete = len(own) == asked.num_trials
        results.append(SubjectResult(**dict(_group(own)), code=code, complete=complete))
    return results


def _images(rows: Sequence[AnswerRow], answers: Answers) -> list[ImageResult]:
    samples = {row.image: row.sample for row in rows}
    return [
        ImageResult(image=one.image, sample=samples[one.image], fooled=_share(one.score))
        for one in fooling(answers)
    ]


def _group(answers: Answers) -> GroupResult:
    (real_real, real_made), (made_real, made_made) = confusion(answers).tolist()
    times = reaction(answers)
    return GroupResult(
        right=_share(score(answers.right)),
        confusion=Confusion(
            real_said_real=real_real,
            real_said_made=real_made,
            made_said_real=made_real,
            made_said_made=made_made,
        ),
        reaction=None
        if times is None
        else ReactionTimes(
            num=times.num,
            quarter_ms=times.quarter,
            median_ms=times.median,
            three_quarters_ms=times.three_quarters,
        ),
    )


def _share(found: Score) -> Share:
    return Share(
        hits=found.hits,
        total=found.total,
        share=found.share,
        ci95=(found.low, found.high),
        p_value=found.p_value,
    )


def _verdict(made: str, right: Share, over_subjects: tuple[float, float] | None) -> str:
    """Return the verdict in words, by the wider of the two intervals."""
    low, high = right.ci95
    whose = "answers"
    if over_subjects is not None and over_subjects[1] - over_subjects[0] > high - low:
        (low, high), whose = over_subjects, "people"
    figures = (
        f"{right.hits} of {right.total} right, {right.share:.1%}; 95% interval "
        f"{right.ci95[0]:.1%}–{right.ci95[1]:.1%}, p {p_value(right)}"
    )
    if low > CHANCE:
        said = f"People tell {made} images from real ones"
    elif high < CHANCE:
        said = f"People see a difference but read it the wrong way round: they call {made} real"
    else:
        said = f"Not shown that people tell {made} images from real ones"
    return (
        f"{said} ({figures}). With 95% confidence, by the spread of {whose}, they are right "
        f"{low:.1%} to {high:.1%} of the time; guessing gives 50%."
    )


def p_value(right: Share) -> str:
    """Format the p-value of a share."""
    return "< 0.0001" if right.p_value < 1e-4 else f"{right.p_value:.2g}"


def _part_table(part: PartResult) -> str:
    lines = [
        f"| {part.made} or real | right | share | 95% interval | p (guessing) | median time |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            _row(one.code if one.complete else f"{one.code} (unfinished)", one)
            for one in part.subjects
        ),
        _row("all answers", part),
    ]
    return "\n".join([*lines, "", part.verdict])


def _row(name: str, group: GroupResult) -> str:
    right = group.right
    low, high = right.ci95
    return (
        f"| {name} | {right.hits} of {right.total} | {right.share:.1%} | {low:.1%}–{high:.1%} "
        f"| {p_value(right)} | {seconds(group.reaction)} |"
    )


def seconds(times: ReactionTimes | None) -> str:
    """Format the median of reaction times."""
    return "–" if times is None else f"{times.median_ms / 1000:.2f} s"
