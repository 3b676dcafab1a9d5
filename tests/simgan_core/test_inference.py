from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.compute.settings import choose_inference_settings
from simgan_core.config import RefinerConfig
from simgan_core.data.images import to_network, to_pixels
from simgan_core.errors import InputError
from simgan_core.inference import BulkRefiner, UInt8Refiner, refine_images
from simgan_core.models.refiner import Refiner

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 12, 16, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(0)
    refiner = Refiner(RefinerConfig(num_features=8, num_blocks=2), channels=1)
    torch.nn.init.normal_(refiner.last.weight, std=0.3)
    return refiner


def plainly_refined(refiner: Refiner, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        rows = [to_pixels(refiner(to_network(torch.from_numpy(row[None])))) for row in images]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("micro_batch_size", [1, 5, 23, 64])
def test_every_row_is_refined_in_its_place_tail_included(
    refiner: Refiner, micro_batch_size: int
) -> None:
    refined = refine_images(refiner, IMAGES, precision="fp32", micro_batch_size=micro_batch_size)
    expected = plainly_refined(refiner, IMAGES)
    assert not np.array_equal(expected, IMAGES)
    # Another batch may be summed in another order: a value on the edge of two levels may tip.
    assert np.abs(refined.astype(int) - expected).max() <= 1


def test_no_images_give_no_images(refiner: Refiner) -> None:
    assert refine_images(refiner, IMAGES[:0]).shape == (0, 12, 16, 1)


def test_bf16_stays_near_fp32(refiner: Refiner) -> None:
    exact = refine_images(refiner, IMAGES, precision="fp32").astype(int)
    difference = np.abs(refine_images(refiner, IMAGES, precision="bf16") - exact)
    assert difference.mean() <= 0.5
    assert difference.max() <= 4


def test_bf16_stays_near_fp32_with_the_papers_refiner() -> None:
    torch.manual_seed(1)
    paper = Refiner(RefinerConfig(num_features=64, num_blocks=4, residual=False), channels=1)
    torch.nn.init.normal_(paper.last.weight, std=0.1)
    images = np.random.default_rng(1).integers(0, 256, (24, 35, 55, 1), dtype=np.uint8)
    exact = refine_images(paper, images, precision="fp32").astype(int)
    assert exact.std() > 10
    difference = np.abs(refine_images(paper, images, precision="bf16") - exact)
    assert difference.mean() <= 0.5
    assert difference.max() <= 4


@pytest.mark.gpu("batches go through page-locked memory, streams and CUDA graphs")
@pytest.mark.parametrize("count", [1, 64, 200, 1000])
def test_a_gpu_refines_as_the_cpu_does(refiner: Refiner, count: int) -> None:
    images = np.random.default_rng(2).integers(0, 256, (count, 12, 16, 1), dtype=np.uint8)
    compute = choose_inference_settings("cuda", "bf16", micro_batch_size=64)
    on_gpu = BulkRefiner(refiner, compute, (12, 16, 1))
    exact = refine_images(refiner, images, precision="fp32").astype(int)
    for _ in range(2):
        difference = np.abs(on_gpu(images) - exact)
        assert difference.mean() <= 0.5
        assert difference.max() <= 4


def test_refined_twice_is_the_same_bits(refiner: Refiner) -> None:
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu"), (12, 16, 1))
    assert np.array_equal(bulk(IMAGES), bulk(IMAGES))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_threads_refine_side_by_side_to_the_bits_of_one(
    refiner: Refiner, precision: str, request: pytest.FixtureRequest
) -> None:
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu", precision, 4), (12, 16, 1))
    alone = bulk(IMAGES)
    request.getfixturevalue("two_threads")
    assert np.array_equal(bulk(IMAGES), alone)


def test_the_callers_refiner_and_images_stay_as_they_are(refiner: Refiner) -> None:
    weights = {name: value.clone() for name, value in refiner.state_dict().items()}
    images = IMAGES.copy()
    images.flags.writeable = False
    refine_images(refiner, images)
    assert np.array_equal(images, IMAGES)
    torch.testing.assert_close(refiner.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    "images",
    [IMAGES.repeat(3, axis=3), IMAGES.astype(np.uint16), IMAGES[..., 0], IMAGES / 255.0],
    ids=["three channels", "16 bits", "no channel axis", "floats"],
)
def test_images_of_another_kind_are_refused(refiner: Refiner, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected uint8 \[N, .*1\], found"):
        refine_images(refiner, images)


def test_an_exported_refiner_takes_any_number_of_images(refiner: Refiner, tmp_path: Path) -> None:
    example = torch.from_numpy(IMAGES[:2])
    program = torch.export.export(
        UInt8Refiner(refiner), (example,), dynamic_shapes=({0: torch.export.Dim("images")},)
    )
    torch.export.save(program, tmp_path / "refiner.pt2")
    exported = torch.export.load(tmp_path / "refiner.pt2").module()
    for count in (1, 2, 7, 23):
        refined = exported(torch.from_numpy(IMAGES[:count])).numpy()
        assert refined.dtype == np.uint8
        expected = plainly_refined(refiner, IMAGES[:count])
        assert np.abs(refined.astype(int) - expected).max() <= 1
