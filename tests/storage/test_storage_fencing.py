"""Of two attempts at a shard one counts, whatever the other was doing when it was thought dead."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from storage.errors import ClaimLostError, DatasetNotFoundError
from storage.location import LEASE_S, locate
from storage.manifest import block_digest
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import DatasetInfo, DatasetSpec
from storage.writer import DatasetWriter
from tests.s3_proxy import Fault, S3Proxy, S3Request

Blocks = Callable[..., SampleBlock]


class Pause:
    """Holds the first PUT of one object in flight until it is let go."""

    def __init__(self, ends_with: str) -> None:
        self._ends_with = ends_with
        self.reached, self.let_go = threading.Event(), threading.Event()

    def __call__(self, request: S3Request) -> Fault | None:
        if request.method == "PUT" and request.path.endswith(self._ends_with):
            self.reached.set()
            assert self.let_go.wait(60)
        return None


class PausingProxy(S3Proxy):
    """Asks for faults outside the lock, so that one request can wait while others pass."""

    def fault_of(self, method: str, path: str) -> Fault | None:
        return self.faults(S3Request(0, method, path))


@pytest.fixture
def pausing(s3_bucket: str) -> Iterator[PausingProxy]:
    with PausingProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "moment", ["images/c/0/0/0/0", "id/c/0", "gaze/c/0/0", "records/00000/zarr.json"]
)
def test_what_a_paused_writer_sends_late_changes_nothing(
    pausing: PausingProxy,
    s3_bucket: str,
    spec: DatasetSpec,
    make_block: Blocks,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    url = f"{s3_bucket}/{moment.replace('/', '-')}/eyes.zarr"
    winners, losers = (make_block(spec, range(10), seed) for seed in (0, 1))
    DatasetWriter.open(url, spec)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", pausing.url)
        paused = DatasetWriter.attach(url)
    pausing.faults = pause = Pause(moment)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(paused.write_shard, 0, losers)
        assert pause.reached.wait(60)
        # Hours later, as far as the other one can tell.
        monkeypatch.setattr("storage.location.s3_claim.time.time", lambda: 4e9)
        winner = DatasetWriter.attach(url)
        record = winner.write_shard(0, winners)
        monkeypatch.undo()
        pause.let_go.set()
        assert late.result() == record
    for shard in (1, 2):
        winner.write_shard(shard, make_block(spec, spec.shard_rows(shard)))
    winner.finish()
    assert block_digest(open_dataset(url).read(0, 10)) == record.digest == block_digest(winners)


def test_a_stopped_process_that_wakes_up_after_its_lease_takes_the_winners_record(
    s3_bucket: str, spec: DatasetSpec, make_block: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3_bucket}/stopped/eyes.zarr"
    writer = DatasetWriter.open(url, spec)
    context = multiprocessing.get_context("spawn")
    held, told = context.Event(), context.Queue()
    block = make_block(spec, range(10), seed=1)
    process = context.Process(target=_write_when_woken, args=(url, block, held, told))
    process.start()
    assert held.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    later = time.time() + LEASE_S + 1
    monkeypatch.setattr("storage.location.s3_claim.time.time", lambda: later)
    record = writer.write_shard(0, make_block(spec, range(10)))
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert told.get(timeout=60) == "lost"
    assert writer.records() == [record]


def _write_when_woken(
    url: str,
    block: SampleBlock,
    held: "multiprocessing.synchronize.Event",
    told: "multiprocessing.Queue[str]",
) -> None:
    """Hold the claim, be stopped, and go on as if nothing had happened."""
    writer = DatasetWriter.attach(url)
    with locate(url).claim("records/00000/claim") as claim:
        held.set()
        time.sleep(0.5)
        while locate(url).read("records/00000/zarr.json") is None:
            time.sleep(0.05)
        try:
            writer._write_arrays(claim, 0, block)
        except ClaimLostError:
            told.put("lost")


def test_a_replacement_that_outlasts_its_lease_loses_no_object(
    s3_bucket: str,
    spec: DatasetSpec,
    make_block: Blocks,
    write_dataset: Callable[..., DatasetInfo],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, upstream = f"{s3_bucket}/replaced/eyes.zarr", os.environ["AWS_ENDPOINT_URL"]
    write_dataset(url, spec)
    other = spec.model_copy(update={"domain": "real"})
    writer = DatasetWriter.open(url, other, overwrite=True)
    for shard in range(3):
        writer.write_shard(shard, make_block(other, writer.shard_rows(shard)))
    # The first one copies for longer than its lease, as it takes for thousands of objects.
    monkeypatch.setattr("storage.location.s3_claim.RENEWAL_S", 0.0)
    pauses = Pause("eyes.zarr/id/c/1"), Pause("eyes.zarr/id/c/0")
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        replacing = []
        for pause, lease_s in zip(pauses, (0.0, LEASE_S), strict=True):
            monkeypatch.setattr("storage.location.s3_claim.LEASE_S", lease_s)
            proxy = stack.enter_context(PausingProxy(upstream))
            proxy.faults = pause
            with monkeypatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", proxy.url)
                replacing.append(pool.submit(DatasetWriter.attach(url).finish))
                assert pause.reached.wait(60)
        # The first one goes on while the second has deleted what it copied.
        pauses[0].let_go.set()
        wait(replacing, timeout=2, return_when=FIRST_COMPLETED)
        pauses[1].let_go.set()
        assert len({each.result().digest for each in replacing}) == 1
    dataset = open_dataset(url)
    assert dataset.info.spec == other
    assert [dataset.fault_of(shard) for shard in range(3)] == ["", "", ""]


def test_shards_get_through_a_storm_of_faults(
    s3_proxy: S3Proxy,
    s3_bucket: str,
    spec: DatasetSpec,
    make_block: Blocks,
    write_dataset: Callable[..., DatasetInfo],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed = write_dataset(f"{s3_bucket}/calm/eyes.zarr", spec)
    faults: tuple[Fault, ...] = ("lost answer", "error 500", "reset", "slow")
    s3_proxy.faults = lambda sent: None if sent.number % 12 else faults[sent.number // 12 % 4]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    # Created in calm: zarr's own writes of metadata are not sent again, but the task is.
    url = f"{s3_bucket}/storm/eyes.zarr"
    with monkeypatch.context() as calm:
        calm.setenv("AWS_ENDPOINT_URL", f"http://{s3_proxy.upstream}")
        DatasetWriter.open(url, spec)
    writer = DatasetWriter.attach(url)
    for shard in range(3):
        writer.write_shard(shard, make_block(spec, writer.shard_rows(shard)))
    assert writer.finish().digest == undisturbed.digest
    assert set(s3_proxy.met) == set(faults)


def test_a_writer_never_writes_into_the_dataset_that_replaced_its_own(
    tmp_path: Path, spec: DatasetSpec, make_block: Blocks
) -> None:
    url = str(tmp_path / "eyes.zarr")
    writer = DatasetWriter.open(url, spec)
    with locate(url).claim("records/00000/claim") as claim:
        shutil.move(url, tmp_path / "replaced")
        DatasetWriter.open(url, spec.model_copy(update={"domain": "real"}))
        with pytest.raises(ClaimLostError, match="replaced"):
            writer._write_arrays(claim, 0, make_block(spec, range(10)))
    with pytest.raises(DatasetNotFoundError, match="replaced"):
        writer.write_shard(0, make_block(spec, range(10)))
    assert not np.any([path.name == "0" for path in tmp_path.rglob("eyes.zarr/**/*")])
