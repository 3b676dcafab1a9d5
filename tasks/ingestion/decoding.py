"""Decoding process: holds one source open and reads the rows it is sent.

The processes of `multiprocessing` load the program that starts them once more, a Prefect worker or
PyTorch with it, which takes each of them longer than a thousand images do. This one loads what it
needs, so this module is kept free of Prefect. It ends with the process that asks, a killed one too,
whose end of the pipe is closed then.
"""

import multiprocessing
import pickle
import signal
import subprocess
import sys
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from simgan_core.data.preprocess import Preprocess, preprocess
from storage.samples import SampleBlock
from storage.sources.selection import Selection
from storage.sources.source import Source
from tasks.runtime.processes.child_path import without_current_folder

# The process also searches folders that this program added to sys.path, after all others.
_START = """
import runpy, sys
module, sys.argv[1:], path = sys.argv[1], sys.argv[2:3], sys.argv[3:]
sys.path += [entry for entry in path if entry not in sys.path]
runpy.run_module(module, run_name="__main__")
"""

Rows = Selection | Source
"""A source whose rows are a dataset's, or a selection of one."""


class DecodingProcess:
    """Client of a decoding process, which it starts; for one thread at a time."""

    def __init__(self, rows: Rows, kind: Preprocess) -> None:
        self._rows: Rows | None = rows
        self._kind = kind
        self._pipe, there = multiprocessing.Pipe()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, __name__, str(there.fileno()), *_more_path()],
                stdin=subprocess.PIPE,
                # One process a core: a network in each would start a thread for every core.
                env={**without_current_folder(), "OMP_NUM_THREADS": "1"},
                pass_fds=[there.fileno()],
            )

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return rows start to stop − 1; raises the errors of reading them there."""
        try:
            if self._rows is not None:
                # Not through the pipe, whose other end would hold a long listing three times.
                assert self._process.stdin is not None
                with self._process.stdin as stdin:
                    pickle.dump((self._rows, self._kind), stdin, pickle.HIGHEST_PROTOCOL)
                self._rows = None
            self._pipe.send((start, stop))
            answer: SampleBlock | Exception = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise RuntimeError(
                f"a decoding process ended in rows {start} to {stop - 1}, with exit code "
                f"{self._process.wait()} (-9: killed, as for want of memory); run the same command "
                "again: it resumes with the shards that are not done"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process after its current request."""
        self._pipe.close()
        self._process.communicate()


def _more_path() -> list[str]:
    """This program's path without the current folder, which holds other people's files."""
    here = Path.cwd()
    ours = Path(__file__).parents[2]
    return [
        entry
        for entry in sys.path
        if entry and (Path(entry).resolve() != here or Path(entry).resolve() == ours)
    ]


def read_preprocessed(rows: Rows, kind: Preprocess, start: int, stop: int) -> SampleBlock:
    """Read rows and apply the dataset's preprocessing, unless the source has applied it."""
    block = rows.read(start, stop)
    source = rows.source if isinstance(rows, Selection) else rows
    if kind in ("none", source.preprocess):
        return block
    images = preprocess(block.images, kind)
    images[~block.valid] = 0
    return replace(block, images=images)


def answer_all(asking: Connection) -> None:
    """Serve requests for rows until the pipe is closed."""
    rows, kind = pickle.load(sys.stdin.buffer)  # noqa: S301  from the process that asks
    while True:
        start, stop = asking.recv()
        answer: SampleBlock | Exception
        try:
            answer = read_preprocessed(rows, kind, start, stop)
        except Exception as error:  # noqa: BLE001  it is raised where the rows are wanted
            error.add_note(traceback.format_exc())
            answer = error
        asking.send(answer)


def main() -> None:
    """Serve the process at the other end of the pipe whose number is given."""
    # Ctrl-C reaches both processes; the parent handles it, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer_all(Connection(int(sys.argv[1])))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main()
