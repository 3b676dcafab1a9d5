"""Results file of a visual Turing test: trials and answers, in SQLite.

book = open_answers(path, study, images)          # creates, or resumes the same study
subject = book.add_subject("P01", session, draw)  # its trials are drawn and kept
sitting = book.resume(session)                    # the first trial without an answer
book.record([GivenAnswer(session, sitting.trial, said_made=True, reaction_ms=640.0)])

Every call is one transaction that is on the disk when the call returns: a process killed at any
moment loses nothing that was acknowledged. Several processes may hold the file. One object is used
by one thread at a time. The file is not for network drives, where SQLite's locks do not hold.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from storage.errors import StorageError
from storage.schema import Domain, Schema

APPLICATION_ID = 0x53474154  # "SGAT": what SQLite files of this kind bear in their header
LAYOUT_VERSION = 1
SECONDS_TO_WAIT_FOR_A_LOCK = 30

_TABLES = """
CREATE TABLE study (document TEXT NOT NULL);
CREATE TABLE images (
    image INTEGER PRIMARY KEY,
    domain TEXT NOT NULL CHECK (domain IN ('real', 'refined', 'synthetic')),
    part INTEGER NOT NULL,
    sample TEXT NOT NULL,
    pixels BLOB NOT NULL
);
CREATE TABLE subjects (
    subject INTEGER PRIMARY KEY,
    code TEXT NOT NULL UNIQUE,
    session BLOB NOT NULL UNIQUE,
    began_at REAL NOT NULL
);
CREATE TABLE trials (
    subject INTEGER NOT NULL REFERENCES subjects,
    position INTEGER NOT NULL,
    part INTEGER NOT NULL,
    image INTEGER NOT NULL REFERENCES images,
    trial TEXT NOT NULL UNIQUE,
    times_shown INTEGER NOT NULL DEFAULT 0,
    said_made INTEGER CHECK (said_made IN (0, 1)),
    reaction_ms REAL,
    answered_at REAL,
    PRIMARY KEY (subject, position)
) WITHOUT ROWID;
"""


class AnswersError(StorageError):
    """The results file cannot be used as it is."""


class CodeTakenError(StorageError):
    """Another session of this study has the code."""


class StudyDataset(Schema):
    """A dataset that took part."""

    url: str
    """Path or URL when the study began."""
    digest: str
    """Digest of its content."""
    refiner: str | None = None
    """Id of the refiner that made a refined dataset."""


class Part(Schema):
    """A run of trials, half of them real images."""

    made: Literal["refined", "synthetic"]
    """Domain of the other half."""
    num_trials: int = Field(ge=2, multiple_of=2)
    """Trials of a subject."""


class Study(Schema):
    """Design of a study: the same trials for equal `id`s."""

    id: str
    """Hash of the datasets' digests, the seed and the number of trials."""
    seed: int
    """Seed of the draw of images and of their order."""
    parts: tuple[Part, ...]
    """Parts in the order of their trials."""
    datasets: dict[Domain, StudyDataset]
    """Dataset of each domain."""
    height: int
    """Height of every image, in pixels."""
    width: int
    """Width of every image, in pixels."""
    channels: Literal[1, 3]
    """1: grey, 3: red, green, blue."""

    @property
    def num_trials(self) -> int:
        """Trials of a subject, over all parts."""
        return sum(part.num_trials for part in self.parts)


@dataclass(frozen=True)
class StudyImage:
    """Image of a study."""

    image: int
    """Number in this study, independent of the domain."""
    domain: Domain
    """Domain: the correct answer."""
    part: int
    """Part of the study, counted from 0."""
    sample: str
    """Id in its dataset."""
    pixels: NDArray[np.uint8]
    """uint8 [H, W, C]."""


@dataclass(frozen=True)
class NewTrial:
    """A trial drawn for a subject."""

    part: int
    image: int
    trial: str
    """Random, unguessable name, to which the answer refers."""


@dataclass(frozen=True)
class GivenAnswer:
    """Answer of a subject to one trial."""

    session: bytes
    trial: str
    said_made: bool
    reaction_ms: float


@dataclass(frozen=True)
class Sitting:
    """Progress of a subject and its next trial; independent of the images' domains."""

    code: str
    num_answered: int
    num_trials: int
    part: int
    """Part of the next trial, or the last part."""
    trial: str | None
    """Name of the next trial; None at the end."""
    image: int | None
    """Number of the image to show next; None at the end."""


@dataclass(frozen=True)
class AnswerRow:
    """Answer with its subject, image and times."""

    subject: int
    code: str
    part: int
    image: int
    sample: str
    domain: Domain
    reaction_ms: float
    times_shown: int
    said_made: int
    """1: made, 0: real."""


def create_or_open_answers(
    path: Path, study: Study, make_images: Callable[[], Sequence[StudyImage]]
) -> "AnswerBook":
    """Resume the study in a results file, or begin it there with the images that are made.

    Raises AnswersError where the file holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    book = AnswerBook(_connect(path, "rwc"), path)
    if book.is_empty():
        book.begin(study, make_images())
    elif book.study.id != study.id:
        raise AnswersError(
            f"{path} holds another study: {'; '.join(_differences(study, book.study))}. Give the "
            "same datasets and options to go on with it, or another --results to begin a new one"
        )
    return book


def open_answers(path: Path) -> "AnswerBook":
    """Open an existing results file; raises AnswersError."""
    if not path.is_file():
        raise AnswersError(
            f"there is no results file {path}; `simgan turing serve` prints the path of its own"
        )
    book = AnswerBook(_connect(path, "rw"), path)
    if book.is_empty():
        raise AnswersError(f"{path} holds no study; `simgan turing serve` begins one")
    return book


class AnswerBook:
    """An open results file; get one from `create_or_open_answers` or `open_answers`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def is_empty(self) -> bool:
        """True before a study has begun."""
        (num_tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return bool(num_tables == 0)

    def begin(self, study: Study, images: Sequence[StudyImage]) -> None:
        """Store the study and its images in one transaction; another process may do so first."""
        with self._transaction():
            if not self.is_empty():
                return
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {LAYOUT_VERSION}")
            self._db.execute("INSERT INTO study VALUES (?)", (study.model_dump_json(),))
            self._db.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?)",
                [(i.image, i.domain, i.part, i.sample, i.pixels.tobytes()) for i in images],
            )

    @property
    def study(self) -> Study:
        """Design of the study in the file."""
        (document,) = self._db.execute("SELECT document FROM study").fetchone()
        return Study.model_validate_json(document)

    def images(self) -> list[StudyImage]:
        """Return the images, in the order of their numbers."""
        study = self.study
        shape = (study.height, study.width, study.channels)
        rows = self._db.execute(
            "SELECT image, domain, part, sample, pixels FROM images ORDER BY image"
        )
        return [
            StudyImage(image, domain, part, sample, np.frombuffer(pixels, np.uint8).reshape(shape))
            for image, domain, part, sample, pixels in rows
        ]

    def add_subject(
        self, code: str, session: bytes, draw: Callable[[int], Sequence[NewTrial]]
    ) -> int:
        """Register a subject with the trials that are drawn for its number, counted from 0.

        Raises CodeTakenError.
        """
        with self._transaction():
            if self._db.execute("SELECT 1 FROM subjects WHERE code = ?", (code,)).fetchone():
                raise CodeTakenError(
                    f"“{code}” has taken part already: go on in the browser in which it began, "
                    "or take another code"
                )
            (subject,) = self._db.execute("SELECT count(*) FROM subjects").fetchone()
            self._db.execute(
                "INSERT INTO subjects VALUES (?, ?, ?, ?)", (subject, code, session, time.time())
            )
            self._db.executemany(
                "INSERT INTO trials (subject, position, part, image, trial) VALUES (?, ?, ?, ?, ?)",
                [
                    (subject, position, trial.part, trial.image, trial.trial)
                    for position, trial in enumerate(draw(subject))
                ],
            )
        return int(subject)

    def resume(self, session: bytes) -> Sitting | None:
        """Return a session's progress and count its next image as shown; None if unknown.

        A trial that was shown more than once has no reaction time that means anything.
        """
        with self._transaction():
            return self._show_next(session)

    def record(self, answers: Sequence[GivenAnswer]) -> list[Sitting | None]:
        """Store answers in one transaction and return each session's progress.

        An answer counts once, for the trial that the session is at: a second one for the same
        trial, or one for somebody else's, changes nothing.
        """
        with self._transaction():
            return [self._record(answer) for answer in answers]

    def score(self, session: bytes) -> list[tuple[int, int]]:
        """Return (correct, answered) of each part; for the end of a session only."""
        rows = self._db.execute(
            "SELECT sum(said_made = (domain != 'real')), count(*) "
            "FROM trials JOIN subjects USING (subject) JOIN images USING (image) "
            "WHERE session = ? AND said_made IS NOT NULL GROUP BY trials.part ORDER BY trials.part",
            (session,),
        )
        return [(int(right), int(answered)) for right, answered in rows]

    def answers(self) -> list[AnswerRow]:
        """Return every answer, by subject and in the order in which it was asked."""
        rows = self._db.execute(
            "SELECT subject, code, trials.part, image, sample, domain, reaction_ms, times_shown, "
            "said_made FROM trials JOIN subjects USING (subject) JOIN images USING (image) "
            "WHERE said_made IS NOT NULL ORDER BY subject, position"
        )
        return [AnswerRow(*row) for row in rows]

    def _record(self, answer: GivenAnswer) -> Sitting | None:
        sitting = self._sitting(answer.session)
        if sitting is None or sitting.trial != answer.trial:
            # A double click, a second tab or a repeated request: return the session's progress.
            return self._show_next(answer.session)
        self._db.execute(
            "UPDATE trials SET said_made = ?, reaction_ms = ?, answered_at = ? WHERE trial = ?",
            (answer.said_made, answer.reaction_ms, time.time(), answer.trial),
        )
        return self._show_next(answer.session)

    def _show_next(self, session: bytes) -> Sitting | None:
        sitting = self._sitting(session)
        if sitting is not None and sitting.trial is not None:
            self._db.execute(
                "UPDATE trials SET times_shown = times_shown + 1 WHERE trial = ?", (sitting.trial,)
            )
        return sitting

    def _sitting(self, session: bytes) -> Sitting | None:
        found = self._db.execute(
            "SELECT subject, code FROM subjects WHERE session = ?", (session,)
        ).fetchone()
        if found is None:
            return None
        subject, code = found
        num_trials, num_answered, last_part = self._db.execute(
            "SELECT count(*), count(said_made), max(part) FROM trials WHERE subject = ?", (subject,)
        ).fetchone()
        trial, image, part = self._db.execute(
            "SELECT trial, image, part FROM trials WHERE subject = ? AND position = ?",
            (subject, num_answered),
        ).fetchone() or (None, None, last_part)
        return Sitting(code, num_answered, num_trials, part, trial, image)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run the block in one exclusive transaction, rolled back on an error."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    try:
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=SECONDS_TO_WAIT_FOR_A_LOCK,
            isolation_level=None,
            check_same_thread=False,
        )
        _require_ours(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # With the write-ahead log, FULL is what makes a commit survive a power cut too.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        raise AnswersError(f"{path} cannot be used as a results file: {error}") from error
    return connection


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if num_tables and application != APPLICATION_ID:
        raise AnswersError(f"{path} is a database of something else; give another --results")
    if num_tables and version != LAYOUT_VERSION:
        raise AnswersError(
            f"{path} was written in layout {version}, this program reads {LAYOUT_VERSION}; "
            "use the version of the program that wrote it"
        )


def _differences(asked: Study, found: Study) -> list[str]:
    """Return the differences of two studies, one phrase each."""
    differences = []
    if asked.seed != found.seed:
        differences.append(f"its seed is {found.seed}, not {asked.seed}")
    if asked.parts != found.parts:
        differences.append(f"it has {_in_words(found)}, not {_in_words(asked)}")
    for domain, dataset in found.datasets.items():
        other = asked.datasets.get(domain)
        if other is not None and other.digest != dataset.digest:
            differences.append(f"its {domain} images are another dataset's, {dataset.url}")
    return differences


def _in_words(study: Study) -> str:
    return " and ".join(f"{part.num_trials} trials of {part.made} images" for part in study.parts)
