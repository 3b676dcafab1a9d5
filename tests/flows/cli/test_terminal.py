"""Wrong inputs are named without a traceback; faults of the program keep theirs."""

import logging
import sys

import pytest

from flows.cli.terminal import show_logs
from simgan_core.errors import InputError
from storage.errors import DatasetNotFoundError


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [(InputError("a"), False), (DatasetNotFoundError("b"), False), (ZeroDivisionError("c"), True)],
)
def test_a_traceback_is_for_faults_alone(
    error: Exception, has_traceback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    monkeypatch.setattr(logger, "filters", [])
    show_logs()
    try:
        raise error
    except type(error):
        record = logger.makeRecord(
            logger.name, logging.ERROR, "f.py", 1, "failed", (), sys.exc_info()
        )
    assert logger.filter(record)
    assert (record.exc_info is not None) is has_traceback
