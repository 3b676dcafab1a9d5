"""The script examples/train_cut.py on built-in domains, through to a refined dataset."""

import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from tasks.refinement.refine import finish_refinement, plan_refinement, refine_shards
from tests.flows.conftest import write_eyes

SCRIPT = Path(__file__).parents[2] / "examples" / "train_cut.py"
WORDS = ("synthetic.zarr", "real.zarr", "--out", "cut.pt2", "--batch-size", "2", "--width", "4")
LONG = (*WORDS, "--steps", "150", "--blocks", "2")


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    write_eyes(tmp_path / "synthetic.zarr", "synthetic", sample_scenes("synthetic", 20, seed=1))
    write_eyes(tmp_path / "real.zarr", "real", sample_scenes("real", 20, seed=2))
    return tmp_path


def start(domains: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.Popen(command, cwd=domains, stderr=subprocess.PIPE, text=True)


def run_to_end(domains: Path, *words: str) -> str:
    """Return what was written to stderr."""
    process = start(domains, *words)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    return errors


@pytest.fixture
def killed(domains: Path) -> Path:
    """The domains beside a training that was killed at its first checkpoint."""
    process = start(domains, *LONG)
    while not (domains / "cut.pt2.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return domains


def test_cut_is_trained_exported_and_refines_a_dataset(domains: Path) -> None:
    assert "step 3 of 3: NCE " in run_to_end(domains, *WORDS, "--steps", "3", "--blocks", "2")
    synthetic, model, to = (
        str(domains / name) for name in ("synthetic.zarr", "cut.pt2", "refined.zarr")
    )
    for group in plan_refinement.fn(synthetic, model, to).groups:
        refine_shards.fn(group, synthetic, model, to)
    assert finish_refinement.fn(to).num_valid == 20
    before, after = (open_dataset(url).load() for url in (synthetic, to))
    assert before.ids == after.ids
    assert (before.images != after.images).mean() > 0.5


def test_killed_and_resumed_it_gives_the_same_weights(killed: Path) -> None:
    assert not (killed / "cut.pt2").exists()
    assert "resumed after step " in run_to_end(killed, *LONG)
    assert "resumed" not in run_to_end(killed, *LONG, "--out", "whole.pt2")
    resumed, whole = (
        torch.export.load(killed / name).state_dict for name in ("cut.pt2", "whole.pt2")
    )
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not list(killed.glob("*.ckpt*"))


def test_a_checkpoint_of_other_options_or_datasets_is_refused_by_name(
    killed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(killed)
    write_eyes(killed / "other.zarr", "real", sample_scenes("real", 20, seed=3))
    words = ("synthetic.zarr", "other.zarr", *LONG[2:], "--steps", "300", "--batch-size", "3")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    assert runpy.run_path(str(SCRIPT))["main"]() == 2
    said = capsys.readouterr().err
    for changed in ("real was ", "steps was 150, is 300", "batch_size was 2, is 3"):
        assert changed in said
    assert "synthetic was" not in said
    assert (killed / "cut.pt2.ckpt").exists()


def test_patches_are_told_apart_by_their_own_place() -> None:
    """PatchNCE is small where translated features are the source's, and large where moved."""
    torch.manual_seed(0)
    nce = runpy.run_path(str(SCRIPT))["PatchNCE"]([8], 32)
    source = torch.randn(2, 8, 9, 9)
    own, moved = nce([source], [source]), nce([source.roll(3, dims=2)], [source])
    assert own < 0.5 * moved


def test_a_missing_dataset_is_refused_in_a_sentence(
    domains: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(domains)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "synthetic.zarr", "missing.zarr", *WORDS[2:]])
    assert runpy.run_path(str(SCRIPT))["main"]() == 2
    assert "missing.zarr" in capsys.readouterr().err
