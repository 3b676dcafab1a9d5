from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.compute.settings import choose_inference_settings
from simgan_core.config import RefinerConfig
from simgan_core.data.images import to_network, to_pixels
from simgan_core.errors import InputError
from simgan_core.inference import (
    Block,
    BulkRefiner,
    StyledImages,
    UInt8Refiner,
    refine_images,
    stream_blocks,
)
from simgan_core.models.refiner import ConvolutionalRefiner

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 12, 16, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def refiner() -> ConvolutionalRefiner:
    torch.manual_seed(0)
    refiner = ConvolutionalRefiner(RefinerConfig(num_features=8, num_blocks=2), channels=1)
    torch.nn.init.normal_(refiner.last.weight, std=0.3)
    return refiner


def plainly_refined(refiner: ConvolutionalRefiner, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        rows = [to_pixels(refiner(to_network(torch.from_numpy(row[None])))) for row in images]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("micro_batch_size", [1, 5, 23, 64])
def test_every_row_is_refined_in_its_place_tail_included(
    refiner: ConvolutionalRefiner, micro_batch_size: int
) -> None:
    refined = refine_images(refiner, IMAGES, precision="fp32", micro_batch_size=micro_batch_size)
    expected = plainly_refined(refiner, IMAGES)
    assert not np.array_equal(expected, IMAGES)
    # Another batch may be summed in another order: a value on the edge of two levels may tip.
    assert np.abs(refined.astype(int) - expected).max() <= 1


def test_no_images_give_no_images(refiner: ConvolutionalRefiner) -> None:
    assert refine_images(refiner, IMAGES[:0]).shape == (0, 12, 16, 1)


def test_bf16_stays_near_fp32(refiner: ConvolutionalRefiner) -> None:
    exact = refine_images(refiner, IMAGES, precision="fp32").astype(int)
    difference = np.abs(refine_images(refiner, IMAGES, precision="bf16") - exact)
    assert difference.mean() <= 0.5
    assert difference.max() <= 4


def test_bf16_stays_near_fp32_with_the_papers_refiner() -> None:
    torch.manual_seed(1)
    paper = ConvolutionalRefiner(
        RefinerConfig(num_features=64, num_blocks=4, residual=False), channels=1
    )
    torch.nn.init.normal_(paper.last.weight, std=0.1)
    images = np.random.default_rng(1).integers(0, 256, (24, 35, 55, 1), dtype=np.uint8)
    exact = refine_images(paper, images, precision="fp32").astype(int)
    assert exact.std() > 10
    difference = np.abs(refine_images(paper, images, precision="bf16") - exact)
    assert difference.mean() <= 0.5
    assert difference.max() <= 4


@pytest.mark.gpu("batches go through page-locked memory, streams and CUDA graphs")
@pytest.mark.parametrize("count", [1, 64, 200, 1000])
def test_a_gpu_refines_as_the_cpu_does(refiner: ConvolutionalRefiner, count: int) -> None:
    images = np.random.default_rng(2).integers(0, 256, (count, 12, 16, 1), dtype=np.uint8)
    compute = choose_inference_settings("cuda", "bf16", micro_batch_size=64)
    on_gpu = BulkRefiner(refiner, compute, (12, 16, 1))
    exact = refine_images(refiner, images, precision="fp32").astype(int)
    for _ in range(2):
        difference = np.abs(on_gpu(images) - exact)
        assert difference.mean() <= 0.5
        assert difference.max() <= 4


class LateSlot:
    """A slot that inverts its rows, on a CPU and only when it is finished."""

    def __init__(self) -> None:
        self.block: Block | None = None
        self._rows = slice(0)

    def start(self, block: Block, rows: slice) -> None:
        assert self.block is None, "started again before it was finished"
        self.block, self._rows = block, rows
        block.images_on_device[rows] = block.images[rows]

    def finish(self) -> None:
        assert self.block is not None
        refined = 255 - self.block.images_on_device[self._rows]
        self.block.refined_on_device[self._rows] = refined
        self.block.refined[self._rows] = refined
        self.block = None


def blocks_of(*sizes: int) -> list[Block]:
    rng = np.random.default_rng(4)
    return [
        Block(rng.integers(0, 256, (size, 3, 2, 1), dtype=np.uint8), torch.device("cpu"))
        for size in sizes
    ]


@pytest.mark.parametrize("num_slots", [1, 3])
@pytest.mark.parametrize("sizes", [(), (0,), (4,), (5, 0, 3, 9, 1), (1, 1, 1, 1, 1)])
def test_streamed_blocks_are_refined_whole_and_in_order(
    num_slots: int, sizes: tuple[int, ...]
) -> None:
    blocks, slots = blocks_of(*sizes), [LateSlot() for _ in range(num_slots)]
    refined = []
    for block in stream_blocks(slots, iter(blocks), batch_size=4):
        for place in (block.refined, block.refined_on_device):
            assert torch.equal(place, 255 - block.images)
        refined.append(block)
    assert refined == blocks
    assert [slot.block for slot in slots] == [None] * num_slots


def test_a_device_is_at_the_next_block_when_one_is_yielded() -> None:
    blocks, slots = blocks_of(20, 20, 20), [LateSlot() for _ in range(3)]
    stream = stream_blocks(slots, iter(blocks), batch_size=4)
    for following in blocks[1:]:
        next(stream)
        assert [slot.block for slot in slots] == [following] * 3


def test_no_slot_is_at_work_after_a_stream_was_left_or_its_source_failed() -> None:
    slots = [LateSlot() for _ in range(3)]
    left = stream_blocks(slots, iter(blocks_of(20, 20)), batch_size=4)
    next(left)
    left.close()
    assert [slot.block for slot in slots] == [None] * 3

    def failing() -> Iterator[Block]:
        yield from blocks_of(20)
        raise OSError("the next shard cannot be read")

    with pytest.raises(OSError, match="the next shard"):
        list(stream_blocks(slots, failing(), batch_size=4))
    assert [slot.block for slot in slots] == [None] * 3


def test_threads_that_share_slots_take_turns(refiner: ConvolutionalRefiner) -> None:
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu", "fp32", 4), (12, 16, 1))
    bulk._slots = [LateSlot() for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        for refined in pool.map(bulk, [IMAGES] * 8):
            assert np.array_equal(refined, 255 - IMAGES)


def test_each_block_is_refined_as_by_a_call_and_says_where_it_was(
    refiner: ConvolutionalRefiner,
) -> None:
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu", "fp32", 4), (12, 16, 1))
    blocks = [IMAGES[:9], IMAGES[9:9], IMAGES[9:]]
    for block, refined in zip(blocks, bulk.refine_each(map(StyledImages, blocks)), strict=True):
        assert np.array_equal(refined.images, bulk(block))
        assert refined.synthetic is block
        assert refined.refined is refined.images


@pytest.mark.gpu("batches go through page-locked memory, streams and CUDA graphs")
def test_a_gpu_refines_blocks_one_after_another_as_it_refines_each(
    refiner: ConvolutionalRefiner,
) -> None:
    compute = choose_inference_settings("cuda", "bf16", micro_batch_size=4)
    bulk = BulkRefiner(refiner, compute, (12, 16, 1))
    blocks = [IMAGES, IMAGES[:0], IMAGES[5:], IMAGES[:2]] * 3
    expected = [bulk(block) for block in blocks]
    for block, once, refined in zip(
        blocks, expected, bulk.refine_each(map(StyledImages, blocks)), strict=True
    ):
        assert np.array_equal(refined.images, once)
        assert np.array_equal(refined.synthetic.cpu().numpy(), block)
        assert np.array_equal(refined.refined.cpu().numpy(), once)


def test_refined_twice_is_the_same_bits(refiner: ConvolutionalRefiner) -> None:
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu"), (12, 16, 1))
    assert np.array_equal(bulk(IMAGES), bulk(IMAGES))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_threads_refine_side_by_side_to_the_bits_of_one(
    refiner: ConvolutionalRefiner, precision: str, request: pytest.FixtureRequest
) -> None:
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu", precision, 4), (12, 16, 1))
    alone = bulk(IMAGES)
    request.getfixturevalue("two_threads")
    assert np.array_equal(bulk(IMAGES), alone)


def test_the_callers_refiner_and_images_stay_as_they_are(refiner: ConvolutionalRefiner) -> None:
    weights = {name: value.clone() for name, value in refiner.state_dict().items()}
    images = IMAGES.copy()
    images.flags.writeable = False
    refine_images(refiner, images)
    assert np.array_equal(images, IMAGES)
    torch.testing.assert_close(refiner.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    "images",
    [IMAGES.repeat(3, axis=3), IMAGES[..., 0], IMAGES / 255.0],
    ids=["three channels", "no channel axis", "floats"],
)
def test_images_of_another_kind_are_refused(
    refiner: ConvolutionalRefiner, images: np.ndarray
) -> None:
    with pytest.raises(InputError, match=r"expected uint8 or uint16 \[N, .*1\], found"):
        refine_images(refiner, images)


def test_sixteen_bits_stay_sixteen_and_are_refined_alike(refiner: ConvolutionalRefiner) -> None:
    refined = refine_images(refiner, IMAGES.astype(np.uint16) * 257, precision="fp32")
    assert refined.dtype == np.uint16
    assert np.abs(refined / 257 - plainly_refined(refiner, IMAGES)).max() <= 0.51
    assert len(np.unique(refined)) > 1000
    bulk = BulkRefiner(refiner, choose_inference_settings("cpu"), (12, 16, 1))
    with pytest.raises(InputError, match=r"expected uint8 \[N, 12, 16, 1\], found uint16"):
        bulk(IMAGES.astype(np.uint16))


def test_an_exported_refiner_takes_any_number_of_images(
    refiner: ConvolutionalRefiner, tmp_path: Path
) -> None:
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
