"""SIGTERM is noticed, and what it did before comes back."""

import os
import signal
import threading

from tasks.runtime.processes.cancellation import termination_noticed


def test_a_termination_is_noticed_and_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with termination_noticed() as asked_to_go:
        assert not asked_to_go()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked_to_go()
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_never_hears_of_it_and_changes_no_handler() -> None:
    before, answers = signal.getsignal(signal.SIGTERM), []

    def ask() -> None:
        with termination_noticed() as asked_to_go:
            answers.append((asked_to_go(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [(False, before)]
