"""A SIMGAN_HOME of each test's own."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_mlflow: Path) -> Path:
    """SIMGAN_HOME of this test, with MLflow on SQLite in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(empty_mlflow, folder)
    monkeypatch.setenv("SIMGAN_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder
