"""Web application of the visual Turing test, on one results file.

The browser gets one JSON document a step: how far the session is, and the pixels of the next image
as they are, so that their size never differs. Nothing in it follows from what the image is: its
domain is not read while a session lasts. An answer names its trial by a random name and counts
once.
"""

import base64
import hashlib
import hmac
import itertools
import re
import secrets
import socket
import sqlite3
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import uvicorn
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simgan_core.errors import InputError
from simgan_core.stats.turing import Numbers, draw_trials
from storage.answers import (
    AnswerBook,
    CodeTakenError,
    GivenAnswer,
    NewTrial,
    Sitting,
    Study,
    StudyImage,
)
from tasks.turing.security import Guard
from tasks.turing.study import entropy_of
from tasks.turing.write_queue import WriteQueue

SECONDS_OF_A_SESSION = 30 * 24 * 3600
TRIALS_BETWEEN_RESTS = 50
LONGEST_REACTION_MS = 3_600_000.0
PAGES = {
    "/": ("turing.html", "text/html"),
    "/turing.css": ("turing.css", "text/css"),
    "/turing.js": ("turing.js", "text/javascript"),
}


def _tidied(code: str) -> str:
    """Return a subject's code in one spelling; raises ValueError where it is none."""
    tidy = " ".join(unicodedata.normalize("NFC", code).split())
    if not re.fullmatch(r"\w[\w .'-]{0,39}", tidy):
        raise ValueError("a name or code is 1 to 40 letters, digits, spaces and . ' - _")
    return tidy


class Body(BaseModel):
    """Base of request bodies: no unknown fields, no type conversion."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Registration(Body):
    """Request of a subject to begin."""

    code: Annotated[str, Field(max_length=200), AfterValidator(_tidied)]


class AnswerBody(Body):
    """Answer of a subject to a trial."""

    trial: str = Field(max_length=64)
    said: Literal["real", "made"]
    reaction_ms: float = Field(ge=0, le=LONGEST_REACTION_MS, allow_inf_nan=False)


class Session(NamedTuple):
    """A browser's session: the secret in its cookie and what follows from it."""

    secret: str

    @classmethod
    def new(cls) -> "Session":
        """Begin a session with a random secret."""
        return cls(secrets.token_urlsafe(32))

    @property
    def key(self) -> bytes:
        """Hash of the secret, stored in the results file; it gives no access to the session."""
        return hashlib.sha256(self.secret.encode()).digest()

    @property
    def csrf(self) -> str:
        """CSRF token, sent with every write by our page; other sites' pages cannot read it."""
        return hmac.digest(self.secret.encode(), b"csrf", "sha256").hex()


def create_app(book: AnswerBook, own_host: str) -> Starlette:
    """Return the application; `own_host` is the name under which it is reached beside localhost.

    Plain Starlette, which FastAPI is made of: with FastAPI's own layer an answer took half as long
    again, 0.60 ms of CPU instead of 0.44.
    """
    test = TuringTest(book)
    return Starlette(
        routes=[
            *(Route(path, _page(name, media_type)) for path, (name, media_type) in PAGES.items()),
            Route("/api/session", test.show),
            Route("/api/subjects", test.register, methods=["POST"]),
            Route("/api/answers", test.answer, methods=["POST"]),
            Route("/api/leave", test.leave, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, own_host=own_host)],
        exception_handlers={
            HTTPException: _refused,
            ValidationError: _invalid,
            sqlite3.OperationalError: _not_kept,
        },
    )


def _page(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("tasks") / "pages" / name).read_bytes()

    async def page(_request: Request) -> Response:
        return Response(content, media_type=media_type)

    return page


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    said = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
    return JSONResponse({"detail": "; ".join(said)}, 422)


async def _not_kept(_request: Request, error: Exception) -> Response:
    """Return the error of an answer that could not be written (a full disk); the page retries."""
    return JSONResponse({"detail": f"the results file cannot be written: {error}"}, 503)


class TuringTest:
    """The requests that a page makes."""

    def __init__(self, book: AnswerBook) -> None:
        self._book = book
        self._desk = WriteQueue(book)
        self._study = book.study
        images = book.images()
        self._pools = _pools(self._study, images)
        self._pixels = [base64.b64encode(image.pixels.tobytes()).decode() for image in images]
        self._rests = _rests(self._study)
        self._cookie = f"simgan-{self._study.id}"  # ports of one host share their cookies

    async def show(self, request: Request) -> Response:
        """Return the progress of a session, for a page that is opened or reloaded."""
        session = self._session(request)
        if session is None:
            session = Session.new()
            return self._with_cookie(self._document(session, None), session)
        sitting = self._book.resume(session.key)
        return self._document(session, sitting)

    async def register(self, request: Request) -> Response:
        """Begin a subject's session, under a new secret."""
        session = self._own_session(request)
        body = Registration.model_validate_json(await request.body())
        sitting = self._book.resume(session.key)
        if sitting is not None:
            return self._document(session, sitting)
        session = Session.new()
        try:
            self._book.add_subject(body.code, session.key, self._draw)
        except CodeTakenError as error:
            raise HTTPException(409, str(error)) from None
        sitting = self._book.resume(session.key)
        return self._with_cookie(self._document(session, sitting), session)

    async def answer(self, request: Request) -> Response:
        """Store an answer and return the next trial."""
        session = self._own_session(request)
        body = AnswerBody.model_validate_json(await request.body())
        given = GivenAnswer(session.key, body.trial, body.said == "made", body.reaction_ms)
        return self._document(session, await self._desk.record(given))

    async def leave(self, request: Request) -> Response:
        """Make way for another subject in this browser, once the session is over."""
        sitting = self._book.resume(self._own_session(request).key)
        if sitting is not None and sitting.trial is not None:
            raise HTTPException(409, "this session is not over")
        session = Session.new()
        return self._with_cookie(self._document(session, None), session)

    def _session(self, request: Request) -> Session | None:
        secret = request.cookies.get(self._cookie)
        return None if secret is None else Session(secret)

    def _own_session(self, request: Request) -> Session:
        """Return the session of a request that writes, and require the page's token."""
        session = self._session(request)
        token = request.headers.get("x-csrf-token", "")
        if session is None or not hmac.compare_digest(session.csrf.encode(), token.encode()):
            raise HTTPException(403, "the session is not this page's; reload the page")
        return session

    def _with_cookie(self, response: Response, session: Session) -> Response:
        response.set_cookie(
            self._cookie,
            session.secret,
            max_age=SECONDS_OF_A_SESSION,
            httponly=True,
            samesite="strict",
        )
        return response

    def _document(self, session: Session, sitting: Sitting | None) -> Response:
        document: dict[str, Any] = {"csrf": session.csrf, "total": self._study.num_trials}
        if sitting is None:
            document |= {"phase": "welcome"}
        elif sitting.trial is None or sitting.image is None:
            scores = self._book.score(session.key)
            document |= {"phase": "done", "code": sitting.code, "scores": scores}
        else:
            document |= {
                "phase": "trial",
                "code": sitting.code,
                "answered": sitting.num_answered,
                "rest": sitting.num_answered in self._rests,
                "part": sitting.part,
                "trial": sitting.trial,
                "height": self._study.height,
                "width": self._study.width,
                "channels": self._study.channels,
                "pixels": self._pixels[sitting.image],
            }
        return JSONResponse(document)

    def _draw(self, subject: int) -> list[NewTrial]:
        """Draw a subject's trials, part by part."""
        entropy = entropy_of(self._study)
        return [
            NewTrial(part, int(image), secrets.token_urlsafe(16))
            for part, (asked, (real, made)) in enumerate(
                zip(self._study.parts, self._pools, strict=True)
            )
            for image in draw_trials(entropy, subject, part, real, made, asked.num_trials)
        ]


def _pools(study: Study, images: Sequence[StudyImage]) -> list[tuple[Numbers, Numbers]]:
    """Return the numbers of the real and of the made images of every part."""

    def numbers(part: int, real: bool) -> Numbers:
        chosen = [i.image for i in images if i.part == part and (i.domain == "real") == real]
        return np.array(chosen, dtype=np.int64)

    return [(numbers(part, True), numbers(part, False)) for part in range(len(study.parts))]


def _rests(study: Study) -> set[int]:
    """Return after how many answers a rest is offered: every 50, and between two parts."""
    between_parts = itertools.accumulate(part.num_trials for part in study.parts)
    return {*range(TRIALS_BETWEEN_RESTS, study.num_trials, TRIALS_BETWEEN_RESTS), *between_parts}


def serve(book: AnswerBook, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve the test until the process is interrupted; `announce` gets the address first.

    Raises InputError where the address cannot be listened on.
    """
    listener = _listener(host, port)
    name = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        create_app(book, host),
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    announce(f"http://{name}:{listener.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        raise InputError(
            f"cannot listen on {host} port {port}: {why}; choose another --port, or an address of "
            "this machine as --host"
        ) from None
    # asyncio does this for sockets of its own making only. Without it a response, which goes out in
    # two pieces, head and body, now and then waits 40 ms for the other side's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
