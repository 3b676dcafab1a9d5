import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from simgan_core.landmarks.gaze import gaze_from_landmarks
from simgan_core.landmarks.model import LandmarkModel, Landmarks
from storage.reader import open_dataset
from tasks.comparison import landmark_gaze

CHUNK = 16
"""The 80 real eyes are five chunks."""


def find(url: str) -> np.ndarray:
    dataset = open_dataset(url)
    return landmark_gaze.landmark_gaze_deg(dataset.info, dataset.load().images)


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "pseudo_labels").rglob("*.npz"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that landmarks are computed of from now on, chunk by chunk."""
    seen: list[int] = []
    predict = LandmarkModel.predict

    def counted(self: LandmarkModel, images: np.ndarray) -> Landmarks:
        seen.append(len(images))
        return predict(self, images)

    monkeypatch.setattr(LandmarkModel, "predict", counted)
    monkeypatch.setattr(landmark_gaze, "_CHUNK", CHUNK)
    return seen


def test_killed_and_resumed_only_missing_chunks_are_computed_and_all_are_the_same_bits(
    eyes: dict[str, str], home: Path, computed: list[int]
) -> None:
    images = open_dataset(eyes["real"]).load().images
    whole = gaze_from_landmarks(LandmarkModel.load().predict(images))
    computed.clear()
    killed = subprocess.run(
        [sys.executable, __file__, eyes["real"]],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert killed.returncode == -signal.SIGKILL
    assert files(home) == ["rows-0-16.npz", "rows-16-32.npz"]
    assert np.array_equal(find(eyes["real"]), whole, equal_nan=True)
    assert sum(computed) == len(images) - 2 * CHUNK
    (kept,) = files(home)
    assert kept.startswith("landmark-gaze-")
    find(eyes["real"])
    assert sum(computed) == len(images) - 2 * CHUNK


def test_what_another_process_is_finding_is_awaited_and_taken(
    eyes: dict[str, str],
    home: Path,
    computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tasks.comparison.landmark_gaze")
    find(eyes["real"])
    (path,) = (home / "pseudo_labels").glob("*.npz")
    content = path.read_bytes()
    path.unlink()
    computed.clear()
    monkeypatch.setattr(landmark_gaze, "_WAIT_S", 0.01)
    with ThreadPoolExecutor() as pool:
        with FileLock(path.with_suffix(".lock")):
            found = pool.submit(find, eyes["real"])
            while "waiting for another process" not in caplog.text:
                assert not found.done()
                time.sleep(0.01)
            path.write_bytes(content)
        assert found.result().shape == (80, 2)
    assert computed == []


if __name__ == "__main__":
    landmark_gaze._CHUNK = CHUNK
    chunks, predict_chunk = itertools.count(), LandmarkModel.predict

    def predict(self: LandmarkModel, images: np.ndarray) -> Landmarks:
        if next(chunks) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return predict_chunk(self, images)

    LandmarkModel.predict = predict  # type: ignore[method-assign]
    find(sys.argv[1])
