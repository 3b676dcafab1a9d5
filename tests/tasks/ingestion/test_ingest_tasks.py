"""Ingestion without an orchestrator: as the flow does it, task by task."""

import gc
import os
import pickle
import threading
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from source_samples import SAMPLES

from storage.errors import DatasetBusyError, SourceError
from storage.location import RETRIES
from storage.manifest import block_digest
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import DatasetInfo
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.nyu_hand import NyuHandOptions
from storage.sources.formats.unityeyes import UnityEyesOptions
from storage.sources.options import SourceOptions
from storage.writer import DatasetWriter
from tasks.ingestion import reading
from tasks.ingestion.ingest import (
    MAX_SHARD_BYTES,
    finish_ingestion,
    ingest_shards,
    plan_ingestion,
)
from tasks.ingestion.reading import Reader
from tasks.ingestion.session import IngestionSession, sole_ingestion
from tasks.runtime.policies import StoppedError, tasks_stop_too
from tests.s3_proxy import Fault, S3Proxy

T = TypeVar("T")


def ingested(
    source: SourceOptions, to: object, rows_per_shard: int = 2, **how: bool
) -> DatasetInfo:
    """Ingest as the flow does, but for the threads."""
    with sole_ingestion(source, str(to)) as session:
        plan = plan_ingestion.fn(session, rows_per_shard=rows_per_shard, **how)
        for group in plan.groups:
            ingest_shards.fn(group, session, plan.listing_digest, num_kept=plan.num_kept)
        return finish_ingestion.fn(session, 0.01, plan.num_kept)


def retried(step: Callable[..., T], *words: object, **named: object) -> T:
    """Run a task as its retries do."""
    for _ in range(5):
        try:
            return step(*words, **named)
        except OSError:
            continue
    raise AssertionError("five times in vain")


@pytest.fixture
def pairs(tmp_path: Path) -> UnityEyesOptions:
    """Five pairs of files."""
    (tmp_path / "pairs").mkdir()
    SAMPLES["unityeyes"].write(tmp_path / "pairs")
    return UnityEyesOptions(folder=str(tmp_path / "pairs"))


@pytest.fixture
def images(tmp_path: Path) -> ArraysOptions:
    """Five images without labels: few requests."""
    np.save(tmp_path / "image.npy", np.arange(120, dtype=np.uint8).reshape(5, 4, 6))
    return ArraysOptions(file=str(tmp_path), images="image")


@pytest.fixture
def s3_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses, fewer retries below the tasks' own, and leases that soon end."""
    soon = timedelta(milliseconds=10)
    backoff = {"init_backoff": soon, "max_backoff": soon, "base": 2}
    monkeypatch.setitem(RETRIES, "max_retries", 2)
    monkeypatch.setitem(RETRIES, "backoff", backoff)
    monkeypatch.setattr("storage.location.s3_objects.RESEND_AFTER_S", (0.01, 0.01))
    monkeypatch.setattr("storage.location.s3_claim.LEASE_S", 1.0)


def test_a_storm_of_faults_on_s3_changes_nothing(
    images: ArraysOptions, tmp_path: Path, s3_bucket: str, s3_proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch, s3_in_a_hurry: None,
) -> None:  # fmt: skip
    faults: tuple[Fault, ...] = ("error 500", "slow", "reset", "lost answer")
    to = f"{s3_bucket}/ingested-in-a-storm/d.zarr"
    s3_proxy.faults = lambda sent: None if sent.number % 8 else faults[sent.number // 8 % 4]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
        session = IngestionSession(images, to)
        plan = retried(plan_ingestion.fn, session, rows_per_shard=2)
        for group in plan.groups:
            retried(ingest_shards.fn, group, session, plan.listing_digest)
        found = retried(finish_ingestion.fn, session, 0.01)
    assert set(s3_proxy.met) == set(faults)
    assert found.digest == ingested(images, tmp_path / "d.zarr").digest


def test_a_server_that_dies_in_the_middle_is_gone_on_with(
    images: ArraysOptions, tmp_path: Path, s3_bucket: str, s3_proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch, s3_in_a_hurry: None,
) -> None:  # fmt: skip
    to = f"{s3_bucket}/ingested-from-the-dead/d.zarr"
    session = IngestionSession(images, to)
    plan = plan_ingestion.fn(session, rows_per_shard=2)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
        ingest_shards.fn([0], session, plan.listing_digest)
        died = s3_proxy.counted + 5
        s3_proxy.faults = lambda sent: "reset" if sent.number >= died else None
        with pytest.raises(OSError, match="s3://"):
            ingest_shards.fn([1, 2], session, plan.listing_digest)
    assert DatasetWriter.attach(to).pending_shards() == [1, 2]
    assert ingested(images, to).digest == ingested(images, tmp_path / "d.zarr").digest


def test_the_second_into_one_place_is_told_who_holds_it(
    pairs: UnityEyesOptions, tmp_path: Path
) -> None:
    to, refused = str(tmp_path / "d.zarr"), []

    def second() -> None:
        with pytest.raises(DatasetBusyError, match=rf"process {os.getpid()} on .* is ingesting"):
            ingested(pairs, to)
        refused.append(True)

    with sole_ingestion(pairs, to):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused


def test_two_ingestions_in_one_process_keep_their_own_listing_and_reader(
    pairs: UnityEyesOptions, images: ArraysOptions, tmp_path: Path
) -> None:
    with (
        sole_ingestion(pairs, str(tmp_path / "a.zarr")) as first,
        sole_ingestion(images, str(tmp_path / "b.zarr")) as second,
    ):
        plan = plan_ingestion.fn(first, rows_per_shard=2)
        opened = first.open(plan.listing_digest, "none", 0)
        ingest_shards.fn([0], second, plan_ingestion.fn(second, rows_per_shard=2).listing_digest)
        assert first.open(plan.listing_digest, "none", 0) == opened
        ingest_shards.fn([0, 1, 2], first, plan.listing_digest)
        assert finish_ingestion.fn(first, 0.01).num_valid == 5


def test_tasks_of_another_process_share_the_session_they_are_sent(
    images: ArraysOptions, tmp_path: Path
) -> None:
    session = IngestionSession(images, str(tmp_path / "d.zarr"))
    plan = plan_ingestion.fn(session, rows_per_shard=2)
    sent = pickle.dumps(session)
    first, second = pickle.loads(sent), pickle.loads(sent)  # noqa: S301
    ingest_shards.fn([0, 1], first, plan.listing_digest)
    assert second.open(plan.listing_digest, "none", 0) == first.open(plan.listing_digest, "none", 0)
    ingest_shards.fn([2], second, plan.listing_digest)
    assert finish_ingestion.fn(session, 0.01).num_valid == 5


def test_processes_read_what_this_one_reads(
    pairs: UnityEyesOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(reading, "PIECE_BYTES", 2 * 35 * 55)  # two rows a piece, then one
    source = UnityEyesOptions(folder=pairs.folder).open()
    reader = Reader(source, "none")
    try:
        assert block_digest(reader.read(0, 5)) == block_digest(source.read(0, 5))
        assert block_digest(reader.read(3, 5)) == block_digest(source.read(3, 5))
    finally:
        reader.close()


def test_a_run_that_is_cancelled_reads_its_shard_no_further(
    pairs: UnityEyesOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(reading, "PIECE_BYTES", 35 * 55)
    reader = Reader(UnityEyesOptions(folder=pairs.folder).open(), "none")
    read_piece = reader._read_piece

    def cancelled_meanwhile(start: int, stop: int) -> SampleBlock:
        with pytest.raises(KeyboardInterrupt), tasks_stop_too():
            raise KeyboardInterrupt
        return read_piece(start, stop)

    monkeypatch.setattr(reader, "_read_piece", cancelled_meanwhile)
    with pytest.raises(StoppedError):
        reader.read(0, 5)
    reader.close()
    with tasks_stop_too():
        assert len(Reader(UnityEyesOptions(folder=pairs.folder).open(), "none").read(0, 5).ids) == 5


def test_memory_is_that_of_the_shards_under_way(tmp_path: Path) -> None:
    def peak(num_shards: int) -> int:
        folder, num_rows = tmp_path / f"{num_shards}", num_shards * 1024
        folder.mkdir()
        np.save(folder / "image.npy", np.zeros((num_rows, 35, 55), np.uint8))
        source = ArraysOptions(file=str(folder), images="image")
        tracemalloc.start()
        ingested(source, folder / "d.zarr", rows_per_shard=1024)
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found

    peak(1)  # what is loaded once
    images_of_a_shard = 1024 * 35 * 55
    # Garbage that zarr leaves of each shard is no growth: it is collected at once, and the objects
    # of earlier tests, among which the collector would come to it rarely, are put aside.
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100, 1, 1)
    try:
        assert peak(12) < peak(3) + 0.1 * images_of_a_shard
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def test_large_images_make_shorter_shards(tmp_path: Path) -> None:
    SAMPLES["nyu-hand"].write(tmp_path)
    source = NyuHandOptions(folder=str(tmp_path), height=1024, width=1024)
    plan_ingestion.fn(IngestionSession(source, str(tmp_path / "d.zarr")))
    spec = DatasetWriter.attach(str(tmp_path / "d.zarr")).spec
    assert spec.rows_per_shard * 1024 * 1024 * 2 == MAX_SHARD_BYTES


def test_eyes_left_out_by_choice_are_not_bad(pairs: UnityEyesOptions, tmp_path: Path) -> None:
    """The heads are turned by 0.1 and 0.2 radians: 5.7° and 11.5°."""
    within = ingested(pairs.model_copy(update={"head_limit_deg": 12.0}), tmp_path / "within.zarr")
    assert within.num_valid == 5
    beyond = ingested(pairs.model_copy(update={"head_limit_deg": 11.0}), tmp_path / "beyond.zarr")
    assert (beyond.num_valid, beyond.num_rejected) == (0, 5)
    (reason,) = {r.reason for record in open_dataset(beyond.url).records()
                 for r in record.rejections}  # fmt: skip
    assert reason == "the head is turned by more than 11°"


def test_too_many_bad_ones_are_told_by_what_most_had(tmp_path: Path) -> None:
    gaze = np.tile(np.array([0.0, 0.0, -1.0]), (200, 1))
    gaze[[3, 50, 120]] = 0
    np.save(tmp_path / "image.npy", np.zeros((200, 4, 6), np.uint8))
    np.save(tmp_path / "gaze.npy", gaze)
    source = ArraysOptions(file=str(tmp_path), images="image", gaze="gaze")
    said = r"3 of 200 samples are bad \(1.5%\).*3 × the gaze is no direction \(first: 3, 50, 120\)"
    with pytest.raises(SourceError, match=said):
        ingested(source, tmp_path / "d.zarr", rows_per_shard=64)
    assert not (tmp_path / "d.zarr").exists()


def test_a_finished_dataset_with_more_bad_samples_than_allowed_by_now_is_named_and_stays(
    tmp_path: Path,
) -> None:
    gaze = np.array([[0.0, 0, -1], [0, 0, 0], [0, 0, -1]])
    np.savez(tmp_path / "eyes.npz", image=np.zeros((3, 4, 6), np.uint8), gaze=gaze)
    source = ArraysOptions(file=str(tmp_path / "eyes.npz"), images="image", gaze="gaze")
    to = str(tmp_path / "eyes.zarr")

    def ingest(max_bad: float) -> DatasetInfo:
        with sole_ingestion(source, to) as session:
            plan = plan_ingestion.fn(session)
            for group in plan.groups:
                ingest_shards.fn(group, session, plan.listing_digest)
            return finish_ingestion.fn(session, max_bad)

    info = ingest(0.5)
    with pytest.raises(SourceError, match=r"1 of 3 samples are bad .* the dataset stays as it was"):
        ingest(0.01)
    assert open_dataset(to).info == info
