"""A landmark training on a machine whose runs share GPU slots."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows import landmarks


def test_a_landmark_training_holds_a_gpu_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def slot() -> Iterator[None]:
        seen.append("held")
        yield
        seen.append("released")

    monkeypatch.setattr(landmarks, "gpu_slot", slot)
    monkeypatch.setattr(landmarks, "train_landmark_model", lambda *_: seen.append("trained"))
    landmarks.train_landmarks.fn("model.pt")
    assert seen == ["held", "trained", "released"]
