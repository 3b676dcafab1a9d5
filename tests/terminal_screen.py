"""A terminal for commands under test: all that they write to it, and what stays on its screen."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path
from typing import NamedTuple

import pyte

COLUMNS, ROWS = 100, 50
MAX_LINES = 1000


class Shown(NamedTuple):
    """What a command wrote to the terminal."""

    returncode: int
    written: str
    """Everything, control characters included."""

    @property
    def lines(self) -> list[str]:
        """The lines that stay, scrolled ones included, without empty ones at the end."""
        screen = pyte.Screen(COLUMNS, MAX_LINES)
        pyte.Stream(screen).feed(self.written)
        lines = [line.rstrip() for line in screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def run_on_terminal(command: list[str], environment: dict[str, str], folder: Path) -> Shown:
    """Run a command to its end with the terminal as its stdin, stdout and stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command,
        env={**environment, "TERM": "xterm-256color"},
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the last process that had the terminal open has ended
            break
    os.close(ours)
    return Shown(process.wait(), written.decode())
