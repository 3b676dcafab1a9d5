"""The write queue: answers that come together are written together."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from storage.answers import AnswerBook, GivenAnswer, Sitting
from tasks.turing.write_queue import WriteQueue


class Book:
    """Keeps the batches that it is given; every session but `unknown` is known."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    def record(self, answers: Sequence[GivenAnswer]) -> list[Sitting | None]:
        """Answer each with its own trial."""
        self.batches.append(len(answers))
        if self.fails:
            raise OSError("disk full")
        return [
            None if answer.session == b"unknown" else Sitting("ann", 1, 50, 0, answer.trial, 0)
            for answer in answers
        ]


def given(trial: str, session: bytes = b"ann") -> GivenAnswer:
    return GivenAnswer(session, trial, True, 500.0)


def test_answers_that_come_at_once_are_one_transaction_and_find_their_own() -> None:
    async def answer_all() -> list[str | None]:
        queue = WriteQueue(cast("AnswerBook", book))
        sittings = await asyncio.gather(*(queue.record(given(str(n))) for n in range(50)))
        assert await queue.record(given("later", b"unknown")) is None
        return [sitting and sitting.trial for sitting in sittings]

    book = Book()
    assert asyncio.run(answer_all()) == [str(n) for n in range(50)]
    assert book.batches == [50, 1]


def test_a_write_that_fails_is_everyones_error_and_the_next_goes_on() -> None:
    async def answer_twice() -> None:
        queue = WriteQueue(cast("AnswerBook", book))
        book.fails = True
        both = await asyncio.gather(
            queue.record(given("1")), queue.record(given("2")), return_exceptions=True
        )
        assert [type(each) for each in both] == [OSError, OSError]
        book.fails = False
        sitting = await queue.record(given("3"))
        assert sitting is not None
        assert sitting.trial == "3"

    book = Book()
    asyncio.run(answer_twice())
    assert book.batches == [2, 1]


def test_an_answer_whose_reader_left_harms_no_other() -> None:
    async def one_leaves() -> None:
        queue = WriteQueue(cast("AnswerBook", book))
        left = asyncio.ensure_future(queue.record(given("1")))
        stays = asyncio.ensure_future(queue.record(given("2")))
        await asyncio.sleep(0)
        left.cancel()
        sitting = await stays
        assert sitting is not None
        with pytest.raises(asyncio.CancelledError):
            await left

    book = Book()
    asyncio.run(one_leaves())
    assert book.batches == [2]
