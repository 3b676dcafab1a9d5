"""Datasets refined by models of other programs: .pt2, .onnx."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from simgan_core.errors import InputError
from storage.reader import open_dataset
from storage.schema import DatasetInfo
from tasks.refinement.refine import Dtype, finish_refinement, plan_refinement, refine_shards
from tests.foreign_models import Darker, export_pt2, write_onnx
from tests.refinement_inputs import make_refiner, make_synthetic

NUM_ROWS, ROWS_PER_SHARD, BAD_ROW = 50, 16, 21


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("inputs") / "synthetic.zarr")
    make_synthetic(url, NUM_ROWS, ROWS_PER_SHARD, (BAD_ROW,))
    return url


def refined(
    synthetic: str, model: Path, to: Path, *, dtype: Dtype = "auto", gate: float | None = None
) -> DatasetInfo:
    """Refine as the flow does."""
    plan = plan_refinement.fn(synthetic, str(model), str(to), dtype=dtype, gate_shift_px=gate)
    for group in plan.groups:
        refine_shards.fn(group, synthetic, str(model), str(to))
    return finish_refinement.fn(str(to))


def pixels_of(module: Callable[[Tensor], Tensor], images: NDArray[np.uint8]) -> NDArray[Any]:
    """Compute what a module makes of pixels, by its own definition of the range."""
    network = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    output = module(network).permute(0, 2, 3, 1).numpy()
    return np.clip(np.rint((output + 1) * 127.5), 0, 255)


@pytest.mark.parametrize("free_batch", [True, False])
def test_an_exported_program_refines_every_valid_row_in_its_place(
    synthetic: str, tmp_path: Path, free_batch: bool
) -> None:
    shape = (2, 1, 35, 55) if free_batch else (7, 1, 35, 55)
    model = export_pt2(tmp_path / "theirs.pt2", shape=shape, free_batch=free_batch)
    info = refined(synthetic, model, tmp_path / "r")
    before = open_dataset(synthetic).read(0, NUM_ROWS)
    after = open_dataset(str(tmp_path / "r")).read(0, NUM_ROWS)
    expected = pixels_of(Darker(), before.images)
    expected[BAD_ROW] = 0
    assert np.abs(after.images - expected).max() <= 1
    assert after.ids == before.ids
    assert (info.spec.domain, info.num_valid) == ("refined", NUM_ROWS - 1)


@pytest.mark.parametrize("shape", [("N", 1, "H", "W"), (5, 1, 35, 55), (1, 1, 35, 55)])
def test_an_onnx_model_refines_every_valid_row_in_its_place(
    synthetic: str, tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    refined(synthetic, write_onnx(tmp_path / "theirs.onnx", shape), tmp_path / "r")
    before, after = (open_dataset(url).load().images for url in (synthetic, str(tmp_path / "r")))
    assert np.abs(after - pixels_of(lambda images: 0.9 * images - 0.1, before)).max() <= 1


def test_grey_images_pass_a_model_of_three_channels(synthetic: str, tmp_path: Path) -> None:
    refined(synthetic, write_onnx(tmp_path / "rgb.onnx", ("N", 3, 35, 55)), tmp_path / "r")
    before, after = (open_dataset(url).load().images for url in (synthetic, str(tmp_path / "r")))
    assert np.abs(after - pixels_of(lambda images: 0.9 * images - 0.1, before)).max() <= 1


def test_our_own_onnx_file_refines_as_its_checkpoint_does(synthetic: str, tmp_path: Path) -> None:
    from simgan_core.models.checkpoint import load_refiner  # noqa: PLC0415
    from tasks.training.onnx_export import save_onnx  # noqa: PLC0415

    ours = make_refiner(tmp_path / "refiner.pt", strength=0.1)
    save_onnx(tmp_path / "refiner.onnx", load_refiner(ours))
    refined(synthetic, ours, tmp_path / "ours", dtype="fp32")
    refined(synthetic, tmp_path / "refiner.onnx", tmp_path / "theirs")
    a, b = (open_dataset(str(tmp_path / name)).load().images for name in ("ours", "theirs"))
    assert np.abs(a.astype(int) - b).max() <= 1


def test_provenance_and_id_follow_from_the_models_content_not_its_name(
    synthetic: str, tmp_path: Path
) -> None:
    first = write_onnx(tmp_path / "first.onnx")
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(first.read_bytes())
    other = write_onnx(tmp_path / "other.onnx", scale=0.8)
    a, b, c = (refined(synthetic, model, tmp_path / f"{model.stem}.zarr")
               for model in (first, renamed, other))  # fmt: skip
    made = a.spec.provenance
    assert a.digest == b.digest != c.digest
    assert made["refiner"] == f"onnx-{str(made['weights_digest'])[:12]}"
    assert (made["real_digest"], made["dtype"]) == (None, "fp32")


def test_weights_in_a_second_file_are_part_of_the_id(synthetic: str, tmp_path: Path) -> None:
    made = []
    for scale in (0.9, 0.8):
        model = write_onnx(tmp_path / "theirs.onnx", scale=scale, weights_beside=True)
        made.append(refined(synthetic, model, tmp_path / f"{scale}.zarr").spec.provenance)
    assert made[0]["refiner"] != made[1]["refiner"]
    (tmp_path / "theirs.onnx.data").unlink()
    with pytest.raises(InputError, match=r"keeps weights in theirs.onnx.data, which is not beside"):
        refined(synthetic, model, tmp_path / "r")


def test_an_interrupted_refinement_ends_with_the_same_digest(
    synthetic: str, tmp_path: Path
) -> None:
    model, to = export_pt2(tmp_path / "theirs.pt2"), str(tmp_path / "parts")
    whole = refined(synthetic, model, tmp_path / "whole")
    plan_refinement.fn(synthetic, str(model), to)
    refine_shards.fn([2], synthetic, str(model), to)
    assert plan_refinement.fn(synthetic, str(model), to).groups == [[0, 1, 3]]
    assert refined(synthetic, model, Path(to)).digest == whole.digest


def test_the_gate_rejects_rows_of_a_model_that_moves_pupils(synthetic: str, tmp_path: Path) -> None:
    class Shifted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.roll(2, dims=3)  # as far as the pupil fit surely follows

    info = refined(synthetic, export_pt2(tmp_path / "m.pt2", Shifted()), tmp_path / "r", gate=1.5)
    assert info.num_rejected > NUM_ROWS / 2


class RandomNoise(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images + 0.1 * torch.randn_like(images)


class BatchStatistics(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images - images.mean()


class NotFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images / (images - images)


class Half(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, ::2]


class ToHalfPrecision(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.half()


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images + 1) * 127.5


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images + 1


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (RandomNoise(), r"two results for the same images: expected the same one; export it in"),
        (BatchStatistics(), r"depends on the other images of its batch .* eval mode"),
        (NotFinite(), r"expected finite values, found NaN or infinity"),
        (Half(), r"expected float32 \[16, 1, 35, 55\] .*found float32 \[16, 1, 18, 55\]"),
        (ToHalfPrecision(), r"found float16 \[16, 1, 35, 55\]; export a module that returns"),
        (Pixels(), r"expected values in \[−1, 1\], found .* to \d\d"),
        (Pair(), r"expected one tensor as its output, found tuple"),
    ],
)
def test_what_is_no_deterministic_image_to_image_model_is_refused_by_name(
    synthetic: str, tmp_path: Path, module: nn.Module, said: str
) -> None:
    model = export_pt2(tmp_path / "theirs.pt2", module)
    with pytest.raises(InputError, match=said) as refusal:
        refined(synthetic, model, tmp_path / "r")
    assert f"model {model}" in str(refusal.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: export_pt2(path / "m.pt2", shape=(2, 1, 36, 60)),
         "takes images with height 36, dataset .* has height 35; export it for images of"),
        (lambda path: export_pt2(path / "m.pt2", shape=(2, 4, 35, 55)),
         "takes images with channels 4, dataset .* has channels 1"),
        (lambda path: export_pt2(path / "m.pt2", dtype=torch.float64),
         r"expected one input, float32 .* found float64 \[.*, 1, 35, 55\]; export a module"),
        (lambda path: write_onnx(path / "m.onnx", num_inputs=2), "found 2 inputs and 1 outputs"),
        (lambda path: write_onnx(path / "m.onnx", kind=TensorProto.DOUBLE),
         r"found tensor\(double\)"),
        (lambda path: write_onnx(path / "m.onnx", ("N", 1, 35, 64)), "takes images with width 64"),
        (lambda path: path / "m.onnx", "there is no file .*m.onnx"),
        (lambda path: path / "m.pt2", "there is no file .*m.pt2"),
        (lambda path: damaged(path / "m.onnx"), "m.onnx is not a whole ONNX model: "),
        (lambda path: damaged(path / "m.pt2"), "m.pt2 is not a whole exported program: "),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_in_a_sentence(
    synthetic: str, tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        refined(synthetic, make(tmp_path), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def damaged(path: Path) -> Path:
    path.write_bytes(b"no model")
    return path


def test_a_model_of_zero_to_one_is_warned_of(
    synthetic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ZeroToOne(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (images + 1) / 2

    refined(synthetic, export_pt2(tmp_path / "m.pt2", ZeroToOne()), tmp_path / "r")
    assert "it may compute in [0, 1]; expected [−1, 1]" in caplog.text


def test_another_number_format_and_styles_are_refused(synthetic: str, tmp_path: Path) -> None:
    model = str(write_onnx(tmp_path / "theirs.onnx"))
    with pytest.raises(InputError, match="--dtype bf16: expected fp32 for models of other"):
        plan_refinement.fn(synthetic, model, str(tmp_path / "r"), dtype="bf16")
    with pytest.raises(InputError, match="takes no style"):
        plan_refinement.fn(synthetic, model, str(tmp_path / "r"), styles=3)


def test_values_that_become_infinite_in_a_later_shard_are_named(
    synthetic: str, tmp_path: Path
) -> None:
    """The first images pass, so that the plan lets the model begin."""

    class InfiniteWhereDark(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            dark = images.amin(dim=(1, 2, 3), keepdim=True)
            return torch.where(dark < threshold, images / 0.0, images)

    darkest = np.sort(open_dataset(synthetic).load().images.min(axis=(1, 2, 3)))
    first = open_dataset(synthetic).load(max_rows=8).images.min()
    assert darkest[0] < first
    threshold = float(first) / 127.5 - 1 - 1e-3
    model = export_pt2(tmp_path / "m.pt2", InfiniteWhereDark())
    with pytest.raises(InputError, match="found NaN or infinity"):
        refined(synthetic, model, tmp_path / "r")


def test_a_model_replaced_after_the_start_is_refused(synthetic: str, tmp_path: Path) -> None:
    model, to = write_onnx(tmp_path / "theirs.onnx"), str(tmp_path / "r")
    plan_refinement.fn(synthetic, str(model), to)
    write_onnx(model, scale=0.5)
    with pytest.raises(InputError, match="names other weights"):
        refine_shards.fn([0], synthetic, str(model), to)


def test_without_onnx_runtime_the_extra_is_named(
    synthetic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_onnx(tmp_path / "theirs.onnx")
    onnx.checker.check_model(model)
    found = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"install the extra: pip install 'simgan\[onnx\]'"):
        refined(synthetic, model, tmp_path / "r")
