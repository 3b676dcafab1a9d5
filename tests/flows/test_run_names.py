"""Runs are named by what they are about."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from flows import run_names
from flows.run_names import named


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("data/eyes.zarr", "refine eyes of 2026-03-01 by 3"),
        ("s3://bucket/sets/eyes.zarr/", "refine eyes of 2026-03-01 by 3"),
        ("eyes", "refine eyes of 2026-03-01 by 3"),
    ],
)
def test_places_are_shown_by_their_last_part(
    to: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(
        parameters={"to": to, "seeds": 3},
        scheduled_start_time=datetime(2026, 3, 1, 23, tzinfo=UTC),
    )
    monkeypatch.setattr(run_names, "runtime", SimpleNamespace(flow_run=run))
    assert named("refine {to} of {date} by {seeds}")() == name
