"""Child processes end when their parent is gone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.runtime.processes.child_path import without_current_folder
from tasks.runtime.processes.parent import PARENT_PIPE

CHILD = """
import sys, signal
from tasks.runtime.processes.parent import end_with_parent
end_with_parent()
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("mark", "ended_by"), [(PARENT_PIPE, signal.SIGTERM), ({}, signal.SIGKILL)], ids=["ours", "not"]
)
def test_a_child_ends_with_its_stdin_only_where_that_is_its_parent(
    mark: dict[str, str], ended_by: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env={**without_current_folder(), "PYTHONPATH": str(Path(__file__).parents[4]), **mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.close()
        if not mark:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.2)
            child.kill()
        assert child.wait() == -ended_by


def test_no_empty_entry_of_the_path_stands_for_the_current_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":/more::")
    found = without_current_folder()
    assert found["PYTHONPATH"] == "/more"
    assert found["PYTHONSAFEPATH"] == "1"
