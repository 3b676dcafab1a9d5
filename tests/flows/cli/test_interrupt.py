"""Ctrl-C at any command."""

import logging
import sys
from typing import NoReturn

import pytest

from flows.cli import main, terminal


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_command_in_one_line_that_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "prepare", interrupt)
    monkeypatch.setattr(sys, "argv", ["simgan", "verify", "synthetic.zarr"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped; the same command goes on where it was\n"


def test_the_crash_that_prefect_reports_of_ctrl_c_is_not_shown() -> None:
    said = "Crash detected! Execution was aborted by an interrupt signal."
    record = logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, said, (), None)
    assert not terminal._is_for_people(record)
