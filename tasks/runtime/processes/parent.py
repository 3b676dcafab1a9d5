"""Child processes that end when their parent ends, `kill -9` included.

The parent starts them with `stdin=subprocess.PIPE` and PARENT_PIPE in their environment, and writes
nothing. The operating system closes the parent's end of the pipe when it ends, and the child reads
end of file.
"""

import os
import signal
import sys
import threading

PARENT_PIPE = {"SIMGAN_STDIN_IS_PARENT": "1"}
"""Environment variable that marks a child whose stdin is its parent's pipe."""

SECONDS_TO_END = 30.0


def end_with_parent() -> None:
    """Send this process SIGTERM when its stdin ends, and SIGKILL where that changes nothing.

    Does nothing in a process that was not started with PARENT_PIPE.
    """
    if not PARENT_PIPE.items() <= os.environ.items():
        return
    threading.Thread(target=_wait_for_end, args=(sys.stdin.fileno(),), daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    last_resort = threading.Timer(SECONDS_TO_END, os.kill, [os.getpid(), signal.SIGKILL])
    last_resort.daemon = True
    last_resort.start()
    os.kill(os.getpid(), signal.SIGTERM)
