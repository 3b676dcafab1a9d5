"""What a command says on the terminal, and where an error's traceback goes."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import terminal
from flows.cli.terminal import Verbosity, terminal_output, written_log
from tasks.runtime.stages import position

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


@pytest.mark.parametrize(("verbosity", "lines"), [("normal", 3), ("quiet", 0), ("verbose", 0)])
def test_own_messages_are_lines_in_a_pipe_and_no_other_handler_repeats_them(
    verbosity: Verbosity,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    with terminal_output(verbosity):
        LOGGER.info("refined %d of %d", 1, 2, extra=position("refining", 1, 2))
        LOGGER.info("[bold]names[/bold] are no markup")
        LOGGER.debug("a detail")
        LOGGER.warning("of ours")
    said = capsys.readouterr().err.splitlines()
    assert (
        said == ["refined 1 of 2", "[bold]names[/bold] are no markup", "warning: of ours"][:lines]
    )


def test_a_pipe_has_no_line_of_a_stage_that_is_soon_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with terminal_output("normal"):
        for done in range(10):
            LOGGER.info("refined %d of 9", done, extra=position("refining", done, 9))
        LOGGER.info("9 images refined")
    assert capsys.readouterr().err.splitlines() == ["9 images refined"]


def test_what_libraries_warn_of_shows_with_verbose_alone() -> None:
    missing = logging.makeLogRecord(
        {"msg": "Concurrency limits ['gpu'] do not exist - skipping acquisition."}
    )
    logger = logging.getLogger("prefect.flow_runs")
    with warnings.catch_warnings(record=True) as shown, terminal_output("verbose"):
        assert logger.filter(missing)
        warnings.simplefilter("always")
        warnings.warn("of a library", stacklevel=1)
    assert len(shown) == 1
    with warnings.catch_warnings(record=True) as shown, terminal_output("normal"):
        assert not logger.filter(missing)
        warnings.warn("of a library", stacklevel=1)
    assert shown == []
    assert os.environ["MLFLOW_LOGGING_LEVEL"] == "ERROR"


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
