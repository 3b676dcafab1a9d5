"""Progress counts what is finished, whoever does it, and never fails the work."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storage.reader import open_dataset
from storage.writer import DatasetWriter
from tasks.runtime import progress
from tasks.runtime.progress import ProgressBar, reported_progress
from tests.refinement_inputs import make_synthetic


@pytest.fixture
def begun(tmp_path: Path) -> DatasetWriter:
    """A dataset of two shards, none of them written."""
    url = make_synthetic(str(tmp_path / "eyes.zarr"), 32, 16).url
    return DatasetWriter.open(str(tmp_path / "begun.zarr"), open_dataset(url).info.spec)


def write(writer: DatasetWriter, tmp_path: Path, shard: int) -> None:
    rows = writer.shard_rows(shard)
    block = open_dataset(str(tmp_path / "eyes.zarr")).read(rows.start, rows.stop)
    writer.write_shard(shard, block)


def test_shards_that_others_finish_are_counted(
    begun: DatasetWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[tuple[float, str]] = []
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_: uuid4())
    monkeypatch.setattr(progress, "update_progress_artifact", lambda _, *shown: bars.append(shown))
    write(begun, tmp_path, 0)
    with reported_progress(str(tmp_path / "begun.zarr")):
        write(DatasetWriter.attach(str(tmp_path / "begun.zarr")), tmp_path, 1)
    percent, words = bars[-1]
    assert percent == 100
    assert words.startswith("32 of 32 images, ")
    assert words.endswith("0:00:00 left")


def test_a_server_that_does_not_answer_costs_a_report_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(progress, "update_progress_artifact", refuse)
    ProgressBar(uuid4()).update(50.0, "half")
    assert "progress could not be reported, the work continues: no answer" in caplog.text
