"""Flow run names for the Prefect UI."""

from collections.abc import Callable
from typing import Any

from prefect import runtime


def named(words: str) -> Callable[[], str]:
    """Return a function that names a flow's runs: `words` with the flow's parameters filled in.

    Of paths and URLs the last part is shown; `{date}` is the day for which the run was scheduled.
    """

    def name() -> str:
        run = runtime.flow_run
        shown = {key: _short(value) for key, value in run.parameters.items()}
        return words.format(date=f"{run.scheduled_start_time:%Y-%m-%d}", **shown)

    return name


def _short(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.rstrip("/").rsplit("/", 1)[-1].removesuffix(".zarr")
