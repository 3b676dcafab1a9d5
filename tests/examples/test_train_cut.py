"""The script examples/train_cut.py on built-in domains, through to a refined dataset."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simgan_core.simulator.eyes import sample_scenes
from storage.reader import open_dataset
from tasks.refinement.refine import finish_refinement, plan_refinement, refine_shards
from tests.flows.conftest import write_eyes

SCRIPT = Path(__file__).parents[2] / "examples" / "train_cut.py"
WORDS = ("synthetic.zarr", "real.zarr", "--out", "cut.pt2", "--batch-size", "2", "--width", "4")


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    write_eyes(tmp_path / "synthetic.zarr", "synthetic", sample_scenes("synthetic", 20, seed=1))
    write_eyes(tmp_path / "real.zarr", "real", sample_scenes("real", 20, seed=2))
    return tmp_path


def test_cut_is_trained_exported_and_refines_a_dataset(domains: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *WORDS, "--steps", "3", "--blocks", "2"],
        cwd=domains,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "step 3 of 3: NCE " in done.stderr
    synthetic, model, to = (
        str(domains / name) for name in ("synthetic.zarr", "cut.pt2", "refined.zarr")
    )
    for group in plan_refinement.fn(synthetic, model, to).groups:
        refine_shards.fn(group, synthetic, model, to)
    assert finish_refinement.fn(to).num_valid == 20
    before, after = (open_dataset(url).load() for url in (synthetic, to))
    assert before.ids == after.ids
    assert (before.images != after.images).mean() > 0.5


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
