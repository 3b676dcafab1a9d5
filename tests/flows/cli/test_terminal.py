"""What a command says on the terminal, and where an error's traceback goes."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.terminal import Verbosity, terminal_output, written_log

LOGGER = logging.getLogger("tasks.anything")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path))
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).filters.clear()


@pytest.mark.parametrize(("verbosity", "lines"), [("normal", 2), ("quiet", 0), ("verbose", 0)])
def test_own_messages_are_lines_in_a_pipe_and_no_other_handler_repeats_them(
    verbosity: Verbosity, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal_output(verbosity):
        LOGGER.info("refined %d of %d", 1, 2, extra={"done": 1, "total": 2})
        LOGGER.info("[bold]names[/bold] are no markup")
        LOGGER.warning("Prefect shows this")
    said = capsys.readouterr().err.splitlines()
    assert said == ["refined 1 of 2", "[bold]names[/bold] are no markup"][:lines]


def test_a_traceback_is_in_a_file_and_not_on_the_terminal() -> None:
    with terminal_output("quiet"):
        pass
    logger = logging.getLogger("prefect.flow_runs")
    try:
        int("c")
    except ValueError as error:
        record = logger.makeRecord(
            logger.name, logging.ERROR, "f.py", 1, "failed", (), sys.exc_info()
        )
        where = written_log(error)
    assert logger.filter(record)
    assert record.exc_info is None
    path = Path(where.removeprefix("where it happened is in "))
    assert "ValueError: invalid literal" in path.read_text("utf-8")


def test_a_log_that_cannot_be_written_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "file"))
    assert "could not be written" in written_log(ValueError("x"))
