"""Cancellation by SIGTERM, as spot machines, schedulers and `docker stop` send it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""Exit code that a shell reports for a process that SIGTERM ended."""


@contextmanager
def termination_noticed() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns true once SIGTERM has come; in the body it ends nothing else.

    Python handles signals in the main thread only. In another thread the function always returns
    false, and the handling of SIGTERM is unchanged.
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
