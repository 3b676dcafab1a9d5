"""Cancellation by SIGTERM, as spot machines, schedulers and `docker stop` send it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell says of a process that SIGTERM ended."""


@contextmanager
def termination_noticed() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether SIGTERM has come; within the body it ends nothing else.

    Python lets only the main thread handle signals: in another one the answer is always no, and
    SIGTERM does what it did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def notice(_signal: int, _frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, notice)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
