"""What a training says reaches the run, and is not said too often."""

import logging
from typing import Any

import pytest
import torch

from tasks.training import sink
from tasks.training.sink import TrackedSink


class Run:
    """Keeps what an MLflow run would be given."""

    def __init__(self) -> None:
        self.images: list[tuple[str, int]] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def image(self, name: str, _pixels: Any, step: int) -> None:
        self.images.append((name, step))

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.points.append((step, values))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, as the sink reads them."""
    now = [0.0]
    monkeypatch.setattr("tasks.training.sink.time.monotonic", lambda: now[0])
    return now


def test_metrics_and_samples_reach_the_run() -> None:
    run = Run()
    tracked = TrackedSink(run)  # type: ignore[arg-type]
    tracked.metrics(3, {"loss": 1.0})
    for step in (20, 10):
        tracked.samples(step, torch.full((4, 3, 5, 1), step, dtype=torch.uint8))
    assert run.points == [(3, {"loss": 1.0})]
    assert run.images == [("refined", 20), ("refined", 10)]
    picture = tracked.progress_picture()
    assert (picture[0, 0], picture[-1, 0]) == (10, 20)


def test_progress_is_said_every_few_seconds_with_rate_and_time_left(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    tracked = TrackedSink(Run())  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, sink.logger.name):
        for step in range(0, 101, 10):
            clock[0] += 4.0
            tracked.progress(step, 100)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "training: step 20 of 100, 2.5 a second, 32 s left"
    assert said[-1].startswith("training: step 100 of 100")
    assert len(said) == 4
