"""Bulk refinement without an orchestrator: what is written, and what is refused."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from simgan_core.compute.settings import choose_inference_settings
from simgan_core.errors import InputError
from simgan_core.inference import refine_images
from simgan_core.models.checkpoint import load_refiner
from storage.errors import CorruptDatasetError, DatasetExistsError
from storage.reader import open_dataset
from storage.schema import DatasetInfo
from storage.writer import DatasetWriter
from tasks.refinement.refine import Dtype, finish_refinement, plan_refinement, refine_shards
from tasks.runtime.devices import default_device
from tasks.runtime.recipes import recipe_version
from tasks.runtime.tracking.runs import begin_run
from tests.refinement_inputs import make_refiner, make_synthetic
from tests.s3_proxy import Fault, S3Proxy

NUM_ROWS, ROWS_PER_SHARD, BAD_ROW = 100, 16, 21


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic.zarr and refiner.pt."""
    folder = tmp_path_factory.mktemp("inputs")
    make_synthetic(str(folder / "synthetic.zarr"), NUM_ROWS, ROWS_PER_SHARD, (BAD_ROW,))
    make_refiner(folder / "refiner.pt")
    return folder


def refined(
    folder: Path,
    to: object,
    *,
    dataset: str | None = None,
    refiner: Path | None = None,
    dtype: Dtype = "fp32",
    gate: float | None = None,
    overwrite: bool = False,
    append: bool = False,
) -> DatasetInfo:
    """Refine as the flow does."""
    source, weights = (
        dataset or str(folder / "synthetic.zarr"),
        str(refiner or folder / "refiner.pt"),
    )
    plan = plan_refinement.fn(source, weights, str(to), overwrite, dtype, gate, append=append)
    for group in plan.groups:
        refine_shards.fn(group, source, weights, str(to))
    return finish_refinement.fn(str(to))


def test_every_valid_row_is_refined_in_its_place_and_all_else_is_copied(
    inputs: Path, tmp_path: Path
) -> None:
    info = refined(inputs, tmp_path / "r")
    before = open_dataset(str(inputs / "synthetic.zarr")).read(0, NUM_ROWS)
    after = open_dataset(str(tmp_path / "r")).read(0, NUM_ROWS)
    expected = refine_images(load_refiner(inputs / "refiner.pt").refiner, before.images)
    expected[BAD_ROW] = 0
    assert np.abs(after.images.astype(int) - expected).max() <= 4
    assert not np.array_equal(after.images, before.images)
    assert after.ids == before.ids
    assert after.rejections == before.rejections
    for name, label in before.labels.items():
        assert np.array_equal(after.labels[name], label, equal_nan=True)
    assert (info.num_valid, info.num_rejected) == (NUM_ROWS - 1, 1)


def test_a_shard_without_a_valid_row_is_passed_over(inputs: Path, tmp_path: Path) -> None:
    source = str(tmp_path / "s")
    make_synthetic(source, ROWS_PER_SHARD + 1, ROWS_PER_SHARD, (ROWS_PER_SHARD,))
    info = refined(inputs, tmp_path / "r", dataset=source, gate=3.0)
    assert info.num_rejected >= 1
    last = open_dataset(str(tmp_path / "r")).read(ROWS_PER_SHARD, ROWS_PER_SHARD + 1)
    assert [each.reason for each in last.rejections] == ["too dark"]


def test_the_same_work_gives_the_same_digest_wherever_it_was_interrupted(
    inputs: Path, tmp_path: Path
) -> None:
    whole = refined(inputs, tmp_path / "whole")
    source, weights, to = (str(inputs / "synthetic.zarr"), str(inputs / "refiner.pt"),
                           str(tmp_path / "parts"))  # fmt: skip
    plan_refinement.fn(source, weights, to, dtype="fp32")
    assert refine_shards.fn([3, 1], source, weights, to) == 2 * ROWS_PER_SHARD
    assert refine_shards.fn([1, 2], source, weights, to) == ROWS_PER_SHARD
    # As when a worker dies between its last shard and its answer.
    assert refine_shards.fn([1, 2], source, weights, to) == 0
    assert plan_refinement.fn(source, weights, to, dtype="fp32").groups == [[0, 4, 5, 6]]
    assert refined(inputs, to).digest == whole.digest


def refine_in_a_process(shards: list[int], source: str, weights: str, to: str) -> int:
    return refine_shards.fn(shards, source, weights, to)


@pytest.mark.gpu("several processes share one GPU and its memory")
def test_processes_that_share_a_gpu_write_the_dataset_that_one_writes(
    inputs: Path, tmp_path: Path
) -> None:
    alone = refined(inputs, tmp_path / "alone", dtype="bf16")
    source, weights, to = (str(inputs / "synthetic.zarr"), str(inputs / "refiner.pt"),
                           str(tmp_path / "shared"))  # fmt: skip
    (shards,) = plan_refinement.fn(source, weights, to, dtype="bf16").groups
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(refine_in_a_process, shards[first::4], source, weights, to)
                 for first in range(4)]  # fmt: skip
        assert sum(part.result() for part in parts) == NUM_ROWS
    assert finish_refinement.fn(to).digest == alone.digest
    on_gpu = open_dataset(to).read(0, NUM_ROWS)
    images = open_dataset(source).read(0, NUM_ROWS).images
    expected = refine_images(load_refiner(inputs / "refiner.pt").refiner, images, precision="fp32")
    difference = np.abs(on_gpu.images.astype(int) - expected)[on_gpu.valid]
    assert difference.mean() <= 0.5
    assert difference.max() <= 4


def test_a_finished_dataset_leaves_nothing_to_do(inputs: Path, tmp_path: Path) -> None:
    info = refined(inputs, tmp_path / "r")
    plan = plan_refinement.fn(
        str(inputs / "synthetic.zarr"), str(inputs / "refiner.pt"), str(tmp_path / "r"),
        dtype="fp32",
    )  # fmt: skip
    assert (plan.groups, plan.num_rows) == ([], 0)
    assert refined(inputs, tmp_path / "r") == info


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_number_format_left_open_is_that_of_what_is_there(
    inputs: Path, tmp_path: Path, dtype: Dtype
) -> None:
    info = refined(inputs, tmp_path / "r", dtype=dtype)
    assert info.spec.provenance["dtype"] == dtype
    assert refined(inputs, tmp_path / "r", dtype="auto") == info


def test_two_number_formats_differ_by_less_than_the_bound(inputs: Path, tmp_path: Path) -> None:
    images = []
    for dtype in ("fp32", "bf16"):
        refined(inputs, tmp_path / dtype, dtype=dtype)
        images.append(open_dataset(str(tmp_path / dtype)).load().images.astype(int))
    difference = np.abs(images[0] - images[1])
    assert difference.mean() <= 0.5
    assert difference.max() <= 4


def test_a_refinement_stays_with_the_version_that_an_alias_named_at_its_start(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    synthetic, to = str(inputs / "synthetic.zarr"), str(tmp_path / "r")

    def register(seed: int) -> str:
        weights = tmp_path / str(seed) / "refiner.pt"
        weights.parent.mkdir()
        make_refiner(weights, seed=seed)
        run = begin_run("refiners", str(seed), str(seed))
        run.artifact(weights, "checkpoint")
        run.register_model("refiner", "model", {}, alias="champion")
        return load_refiner(weights).weights_digest

    first = register(0)
    plan = plan_refinement.fn(synthetic, "models:/refiner@champion", to, dtype="fp32")
    assert register(1) != first
    for group in plan.groups:
        refine_shards.fn(group, synthetic, plan.refiner, to)
    assert finish_refinement.fn(to).spec.provenance["weights_digest"] == first
    with pytest.raises(InputError, match="no refiner for models:/refiner@nobody"):
        plan_refinement.fn(synthetic, "models:/refiner@nobody", to)


def test_the_provenance_says_by_what_it_was_made(inputs: Path, tmp_path: Path) -> None:
    made = refined(inputs, tmp_path / "r", gate=2.5).spec.provenance
    weights = load_refiner(inputs / "refiner.pt")
    assert made["refiner"] == "refiner-000000000000"
    assert made["weights_digest"] == weights.weights_digest
    assert made["gate_shift_px"] == 2.5
    assert made["dtype"] == "fp32"
    assert made["recipe"] == recipe_version("refine")


def test_rows_beyond_the_gate_stay_as_not_valid_with_the_reason(
    inputs: Path, tmp_path: Path
) -> None:
    make_refiner(tmp_path / "strong.pt", strength=0.5, seed=3)
    info = refined(inputs, tmp_path / "r", refiner=tmp_path / "strong.pt", gate=0.3)
    block = open_dataset(str(tmp_path / "r")).read(0, NUM_ROWS)
    assert len(block) == info.spec.num_rows == NUM_ROWS
    assert 1 < info.num_rejected < NUM_ROWS
    reasons = {rejection.row: rejection.reason for rejection in block.rejections}
    assert set(reasons) == set(np.flatnonzero(~block.valid).tolist())
    assert reasons.pop(BAD_ROW) == "too dark"
    assert "refinement moved the pupil by more than 0.3 px" in set(reasons.values())
    ungated = refined(inputs, tmp_path / "u", refiner=tmp_path / "strong.pt")
    assert ungated.num_rejected == 1
    assert np.array_equal(block.images, open_dataset(str(tmp_path / "u")).read(0, NUM_ROWS).images)


def test_a_shard_of_zero_bytes_is_named_and_not_refined_as_black_images(tmp_path: Path) -> None:
    """As a power cut or a full disk leaves it."""
    make_synthetic(str(tmp_path / "synthetic.zarr"), 3 * ROWS_PER_SHARD, ROWS_PER_SHARD)
    make_refiner(tmp_path / "refiner.pt")
    shard = tmp_path / "synthetic.zarr/images/c/1/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(b"")
    with pytest.raises(CorruptDatasetError, match="shard 1 of dataset"):
        refined(tmp_path, tmp_path / "r")
    assert 1 in DatasetWriter.attach(str(tmp_path / "r")).pending_shards()
    shard.write_bytes(whole)
    assert refined(tmp_path, tmp_path / "r").num_valid == 3 * ROWS_PER_SHARD


def test_a_gate_needs_pupils(inputs: Path, tmp_path: Path) -> None:
    whole = open_dataset(str(inputs / "synthetic.zarr"))
    gaze = [label for label in whole.info.spec.labels if label.name == "gaze"]
    spec = whole.info.spec.model_copy(update={"labels": tuple(gaze)})
    writer = DatasetWriter.open(str(tmp_path / "gaze"), spec)
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        block = whole.read(rows.start, rows.stop)
        block.labels.pop("pupil_px")
        writer.write_shard(shard, block)
    writer.finish()
    with pytest.raises(InputError, match="--gate-shift needs the label 'pupil_px'"):
        refined(inputs, tmp_path / "r", dataset=str(tmp_path / "gaze"), gate=1.0)
    assert refined(inputs, tmp_path / "r", dataset=str(tmp_path / "gaze")).num_rejected == 1


def test_another_refiners_dataset_is_kept_unless_it_shall_be_overwritten(
    inputs: Path, tmp_path: Path
) -> None:
    first = refined(inputs, tmp_path / "r")
    make_refiner(tmp_path / "other.pt", seed=1)
    with pytest.raises(
        DatasetExistsError,
        match=r'refiner is "refiner-000000000000", not "refiner-000000000001".*--overwrite',
    ):
        refined(inputs, tmp_path / "r", refiner=tmp_path / "other.pt")
    plan_refinement.fn(str(inputs / "synthetic.zarr"), str(tmp_path / "other.pt"),
                       str(tmp_path / "r"), overwrite=True)  # fmt: skip
    assert open_dataset(str(tmp_path / "r")).info == first
    second = refined(inputs, tmp_path / "r", refiner=tmp_path / "other.pt", overwrite=True)
    assert open_dataset(str(tmp_path / "r")).info == second != first


def test_weights_that_changed_under_the_same_name_are_refused(inputs: Path, tmp_path: Path) -> None:
    weights = make_refiner(tmp_path / "changing.pt")
    source, to = str(inputs / "synthetic.zarr"), str(tmp_path / "r")
    plan_refinement.fn(source, str(weights), to)
    make_refiner(weights, seed=1)
    with pytest.raises(InputError, match="names other weights"):
        refine_shards.fn([0], source, str(weights), to)


def test_two_attempts_at_the_same_shards_at_once_give_one_dataset(
    inputs: Path, tmp_path: Path
) -> None:
    """As when Prefect retries a task whose first attempt still runs."""
    whole = refined(inputs, tmp_path / "whole")
    source, weights, to = (str(inputs / "synthetic.zarr"), str(inputs / "refiner.pt"),
                           str(tmp_path / "raced"))  # fmt: skip
    plan = plan_refinement.fn(source, weights, to, dtype="fp32")
    with ThreadPoolExecutor(2) as pool:
        attempts = [pool.submit(refine_shards.fn, plan.groups[0], source, weights, to)
                    for _ in range(2)]  # fmt: skip
    assert all(attempt.result() > 0 for attempt in attempts)
    assert finish_refinement.fn(to).digest == whole.digest


def test_from_s3_to_s3_through_a_storm_of_faults(
    inputs: Path, tmp_path: Path, s3_bucket: str, s3_proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    faults: tuple[Fault, ...] = ("error 500", "slow", "reset", "lost answer")
    source, to = f"{s3_bucket}/storm/synthetic.zarr", f"{s3_bucket}/storm/refined.zarr"
    for url in (source, str(tmp_path / "synthetic.zarr")):
        make_synthetic(url, 60, 30)
    weights = str(inputs / "refiner.pt")
    plan = plan_refinement.fn(source, weights, to, dtype="fp32")
    calm = os.environ["AWS_ENDPOINT_URL"]
    s3_proxy.faults = lambda sent: None if sent.number % 8 else faults[sent.number // 8 % 4]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    for _ in range(5):  # as the task's retries do
        try:
            refine_shards.fn(plan.groups[0], source, weights, to)
            break
        except OSError:
            continue
    monkeypatch.setenv("AWS_ENDPOINT_URL", calm)
    assert set(s3_proxy.met) == set(faults)
    undisturbed = refined(inputs, tmp_path / "r", dataset=str(tmp_path / "synthetic.zarr"))
    assert finish_refinement.fn(to).digest == undisturbed.digest


@pytest.fixture
def growing(tmp_path: Path) -> Callable[[int], str]:
    """A synthetic dataset to which its source adds: call it with the rows that there are now."""

    def grow(num_rows: int) -> str:
        url, source = str(tmp_path / "growing.zarr"), str(tmp_path / f"{num_rows}.zarr")
        make_synthetic(source, num_rows, ROWS_PER_SHARD)
        if not Path(url).exists():
            Path(source).rename(url)
            return url
        before = open_dataset(url).info.spec
        added = {"first_row": before.num_rows, "listing": "more"}
        changes = {"num_rows": num_rows, "source": {"name": "test", "appended": [added]}}
        writer = DatasetWriter.extend(url, before.model_copy(update=changes))
        for shard in writer.pending_shards():
            rows = writer.shard_rows(shard)
            writer.write_shard(shard, open_dataset(source).read(rows.start, rows.stop))
        writer.finish()
        return url

    return grow


def test_of_a_dataset_that_grew_only_what_follows_the_full_shards_is_refined(
    inputs: Path, tmp_path: Path, growing: Callable[[int], str]
) -> None:
    to = tmp_path / "r"
    dataset = growing(40)
    refined(inputs, to, dataset=dataset)
    kept = [path.stat().st_ino for path in sorted((to / "records").glob("*/zarr.json"))[:2]]
    growing(64)
    plan = plan_refinement.fn(
        dataset, str(inputs / "refiner.pt"), str(to), dtype="fp32", append=True
    )
    assert plan.groups == [[2, 3]]
    info = refined(inputs, to, dataset=dataset, append=True)
    anew = refined(inputs, tmp_path / "anew", dataset=dataset)
    assert info.digest == anew.digest
    assert [p.stat().st_ino for p in sorted((to / "records").glob("*/zarr.json"))[:2]] == kept


def test_an_addition_killed_before_it_took_its_place_is_found_whole(
    inputs: Path, tmp_path: Path, growing: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to, dataset = tmp_path / "r", growing(40)
    refined(inputs, to, dataset=dataset)
    growing(64)
    with monkeypatch.context() as patch:
        patch.setattr("storage.location.local.LocalLocation.take_over", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            refined(inputs, to, dataset=dataset, append=True)
    assert len(open_dataset(str(to))) == 40
    assert refined(inputs, to, dataset=dataset, append=True).spec.num_rows == 64


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_rows_are_added_in_the_number_format_of_those_that_are_there(
    inputs: Path, tmp_path: Path, growing: Callable[[int], str]
) -> None:
    to, dataset = tmp_path / "r", growing(40)
    fastest_here = choose_inference_settings(default_device()).precision
    elsewhere: Dtype = "fp32" if fastest_here == "bf16" else "bf16"
    refined(inputs, to, dataset=dataset, dtype=elsewhere)
    growing(64)
    info = refined(inputs, to, dataset=dataset, dtype="auto", append=True)
    assert info.spec.provenance["dtype"] == elsewhere
    assert info.spec.num_rows == 64


def test_what_another_refiner_made_is_refined_anew(
    inputs: Path, tmp_path: Path, growing: Callable[[int], str]
) -> None:
    to, other = tmp_path / "r", make_refiner(tmp_path / "other.pt", seed=1)
    dataset = growing(40)
    refined(inputs, to, dataset=dataset)
    growing(64)
    plan = plan_refinement.fn(dataset, str(other), str(to), True, "fp32", append=True)
    assert plan.groups == [[0, 1, 2, 3]]


def test_rows_added_while_a_dataset_is_refined_change_nothing(
    inputs: Path, tmp_path: Path, growing: Callable[[int], str]
) -> None:
    dataset, weights, to = growing(40), str(inputs / "refiner.pt"), str(tmp_path / "r")
    undisturbed = refined(inputs, tmp_path / "undisturbed", dataset=dataset)
    plan = plan_refinement.fn(dataset, weights, to, dtype="fp32")
    opened = open_dataset(dataset)
    growing(64)
    for group in plan.groups:
        refine_shards.fn(group, dataset, weights, to)
    assert finish_refinement.fn(to).digest == undisturbed.digest
    # A reader from before sees the rows that it knows.
    assert opened.read(32, 40).ids == open_dataset(dataset).read(32, 40).ids


def test_a_dataset_replaced_while_it_is_refined_is_named(inputs: Path, tmp_path: Path) -> None:
    dataset, weights, to = str(tmp_path / "d"), str(inputs / "refiner.pt"), str(tmp_path / "r")
    make_synthetic(dataset, 40, ROWS_PER_SHARD)
    plan = plan_refinement.fn(dataset, weights, to, dtype="fp32")
    shutil.rmtree(dataset)
    make_synthetic(dataset, 40, ROWS_PER_SHARD, bad_rows=(3,))
    with pytest.raises(InputError, match="was replaced by another dataset"):
        refine_shards.fn(plan.groups[0], dataset, weights, to)
    assert DatasetWriter.attach(to).num_rows_done() == 0
