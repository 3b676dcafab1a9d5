"""Fast refiner inference: pixels in, refined pixels out."""

import copy
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from threading import Lock
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simgan_core.compute.array_api import Array
from simgan_core.compute.parallel import parallel_map
from simgan_core.compute.settings import (
    ComputeSettings,
    choose_inference_settings,
    to_channels_last,
)
from simgan_core.data.images import to_network, to_pixels
from simgan_core.errors import InputError
from simgan_core.models.refiner import Refiner

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
PixelName = Literal["uint8", "uint16"]

_BATCHES_IN_FLIGHT = 3
"""Batches on a GPU at once: one arrives, one is computed, one leaves."""


class RefinedImages(NamedTuple):
    """Images before and after refinement, uint8 or uint16 [N, H, W, C]."""

    images: Pixels
    """The refined images, in memory."""
    synthetic: Array
    """The images that were refined, where they were: tensors on a GPU, arrays on a CPU."""
    refined: Array
    """The refined images there; on a CPU `images` themselves."""


class StyledImages(NamedTuple):
    """Images, and the styles to refine them in."""

    images: Pixels
    """uint8 or uint16 [N, H, W, C]."""
    style: NDArray[np.float32] | None = None
    """[N, Z] for a refiner that takes styles of Z numbers, and for no other."""


class BulkRefiner:
    """Refiner prepared for inference on one device, in one precision, on images of one kind.

    Images are [H, W, C] of `image_shape`, their pixels of the type `pixels`. The constructor copies
    the weights to the device in that precision, and on a GPU captures the whole network as one CUDA
    graph. `refiner` itself is neither moved nor changed. Threads that share one on a GPU wait for
    each other.
    """

    def __init__(
        self,
        refiner: Refiner,
        compute: ComputeSettings,
        image_shape: tuple[int, int, int],
        pixels: PixelName = "uint8",
    ) -> None:
        self.compute = compute
        self._image_shape = image_shape
        self._pixels = pixels
        weights = torch.bfloat16 if compute.precision == "bf16" else torch.float32
        network = UInt8Refiner(copy.deepcopy(refiner.unmirrored()))
        self.network = to_channels_last(network.to(weights), compute.device)
        network.refiner.pack(compute.micro_batch_size, *image_shape[:2])
        self._slots: Sequence[Slot] = []
        self._slots_lock = Lock()
        if compute.device.type == "cuda":
            self._slots = [self._slot(self.network) for _ in range(_BATCHES_IN_FLIGHT)]

    @property
    def style_size(self) -> int:
        """Numbers of a style that each image takes; 0: none."""
        return self.network.refiner.style_size

    @property
    def device(self) -> torch.device:
        """Device with the GPU's index: plain `cuda` may be another GPU in another thread."""
        return next(self.network.parameters()).device

    def __call__(self, images: Pixels, style: NDArray[np.float32] | None = None) -> Pixels:
        """Refine every image of [N, H, W, C], row i to row i; N may be 0.

        `style` float32 [N, Z] is there for refiners that take one. Raises InputError for another
        type, size or number of channels.
        """
        (refined,) = self.refine_each([StyledImages(images, style)])
        return refined.images

    def refine_each(self, blocks: Iterable[StyledImages]) -> Generator[RefinedImages, None, None]:
        """Refine block after block; their numbers of images may differ or be 0.

        A GPU has begun the next block by the time that a block is yielded, and does not stand idle
        between them; a CPU takes the next one when it is asked for. Until the iterator is read to
        its end or closed, a GPU's refiner is taken: refine nothing else by it in this thread.
        Raises InputError as a call does.
        """
        if self._slots:
            with self._slots_lock:
                begun = (self._begin(*block) for block in blocks)
                size = self.compute.micro_batch_size
                with closing(stream_blocks(self._slots, begun, size)) as finished:
                    for done in finished:
                        yield done.refined_images()
        else:
            for block in blocks:
                yield self._refine_on_cpu(*block)

    def _require_fitting(self, images: Pixels, style: NDArray[np.float32] | None) -> None:
        if images.dtype != self._pixels or images.shape[1:] != self._image_shape:
            shape = ", ".join(map(str, self._image_shape))
            raise InputError(
                f"images: expected {self._pixels} [N, {shape}], found "
                f"{images.dtype} {list(images.shape)}; give the refiner images of the kind that it "
                "was trained on"
            )
        expected = (len(images), self.style_size) if self.style_size else None
        found = None if style is None else style.shape
        if found != expected:
            raise InputError(
                f"style: expected {_shown_shape(expected)}, found {_shown_shape(found)}; refiners "
                "of the bilateral family take standard normal numbers beside the images, others "
                "none"
            )

    def _refine_on_cpu(self, images: Pixels, style: NDArray[np.float32] | None) -> RefinedImages:
        self._require_fitting(images, style)
        refined = np.empty_like(images)
        styles = () if style is None else (torch.from_numpy(style),)
        batches = self.compute.micro_batches(_as_tensor(images), torch.from_numpy(refined), *styles)
        with torch.inference_mode():
            deque(parallel_map(self._refine_into, batches), maxlen=0)
        return RefinedImages(refined, images, refined)

    def _refine_into(self, source: Tensor, target: Tensor, *style: Tensor) -> None:
        target.copy_(self.network(source, *style))

    def _begin(self, images: Pixels, style: NDArray[np.float32] | None) -> "Block":
        self._require_fitting(images, style)
        return Block(images, self.device, style)

    def _slot(self, network: "UInt8Refiner") -> "_GpuSlot":
        shape = (self.compute.micro_batch_size, *self._image_shape)
        pixels = getattr(torch, self._pixels)
        return _GpuSlot(network, shape, self.compute.device, network.refiner.style_size, pixels)


class Block:
    """Block of images to refine, with buffers for the results on the device and in memory."""

    def __init__(
        self,
        images: Pixels,
        device: torch.device,
        style: NDArray[np.float32] | None = None,
    ) -> None:
        """Make room for images [N, H, W, C] and their refinement."""
        self.images = _as_tensor(images)
        self.style = torch.empty(len(images), 0) if style is None else torch.from_numpy(style)
        self.refined = torch.empty_like(self.images)
        self.images_on_device = torch.empty_like(self.images, device=device)
        self.refined_on_device = torch.empty_like(self.images_on_device)

    def refined_images(self) -> RefinedImages:
        """Return the block once all its batches are finished."""
        return RefinedImages(self.refined.numpy(), self.images_on_device, self.refined_on_device)


class Slot(Protocol):
    """Buffers of one batch on a device, which computes it while others are copied."""

    def start(self, block: Block, rows: slice) -> None:
        """Start refining a block's rows; the slot must be new or finished."""

    def finish(self) -> None:
        """Wait until the rows are refined, in the block's places on the device and in memory."""


def stream_blocks(
    slots: Sequence[Slot], blocks: Iterable[Block], batch_size: int
) -> Generator[Block, None, None]:
    """Refine blocks in pipelined batches through the slots; yield each block when it is refined.

    All slots have been started again when a block is yielded, with the next one's first batches.
    However this ends, no slot is at work afterwards.
    """
    free, busy = deque(slots), deque[tuple[Slot, Block | None]]()

    def finish_first() -> Block | None:
        slot, finished = busy[0]
        slot.finish()
        busy.popleft()
        free.append(slot)
        return finished

    try:
        for block in blocks:
            count = len(block.images)
            starts = range(0, max(count, 1), batch_size)
            for start in starts:
                finished = None if free else finish_first()
                slot = free.popleft()
                # A block is refined with the last of its batches.
                busy.append((slot, block if start == starts[-1] else None))
                slot.start(block, slice(start, min(start + batch_size, count)))
                if finished is not None:
                    yield finished
        while busy:
            finished = finish_first()
            if finished is not None:
                yield finished
    finally:
        for slot, _ in busy:
            slot.finish()


class _GpuSlot:
    """A slot on a GPU for one batch: page-locked memory, a stream, and the captured network.

    The graph always computes a whole batch; of a shorter one the rest is computed and ignored.
    cuDNN's timing of algorithms stays off: it may choose others, and so other bits, each time.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        device: torch.device,
        style_size: int = 0,
        pixels: torch.dtype = torch.uint8,
    ) -> None:
        self._arriving_style = torch.empty(shape[0], style_size, pin_memory=True)
        self._style = torch.zeros(shape[0], style_size, device=device)
        inputs = (self._style,) if style_size else ()
        self._arriving = torch.empty(shape, dtype=pixels, pin_memory=True)
        self._leaving = torch.empty(shape, dtype=pixels, pin_memory=True)
        self._images = torch.zeros(shape, dtype=pixels, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._target = torch.empty(0, dtype=pixels)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            # What libraries set up at first use cannot be captured.
            with torch.cuda.stream(self._stream):
                network(self._images, *inputs)
            self._stream.synchronize()
            # Other threads may go on with calls that a capture forbids in its own.
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._refined = network(self._images, *inputs)

    @torch.inference_mode()
    def start(self, block: Block, rows: slice) -> None:
        """Send rows to the GPU, let it refine them, and keep both there."""
        count = rows.stop - rows.start
        self._target = block.refined[rows]
        self._arriving[:count].copy_(block.images[rows])
        self._arriving_style[:count].copy_(block.style[rows])
        with torch.cuda.stream(self._stream):
            self._style.copy_(self._arriving_style, non_blocking=True)
            self._images.copy_(self._arriving, non_blocking=True)
            block.images_on_device[rows].copy_(self._images[:count], non_blocking=True)
            self._graph.replay()
            block.refined_on_device[rows].copy_(self._refined[:count], non_blocking=True)
            self._leaving.copy_(self._refined, non_blocking=True)
            self._done.record(self._stream)

    @torch.inference_mode()
    def finish(self) -> None:
        """Wait for the rows, and copy them to their place in memory."""
        self._done.synchronize()
        self._target.copy_(self._leaving[: len(self._target)])


def _shown_shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"float32 {list(shape)}"


def _as_tensor(images: Pixels) -> Tensor:
    # A read-only array, such as a memory map, is copied: torch would warn, and never writes.
    return torch.from_numpy(images if images.flags.writeable else images.copy())


def refine_images(
    refiner: Refiner,
    images: Pixels,
    device: torch.device | str = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    micro_batch_size: int | None = None,
    style: NDArray[np.float32] | None = None,
) -> Pixels:
    """Refine uint8 or uint16 [N, H, W, C] once; for more than once, keep a `BulkRefiner`.

    `style` float32 [N, Z] is there for refiners that take one. Raises InputError for another type,
    shape or number of channels.
    """
    fits = images.ndim == 4 and images.shape[3] == refiner.channels
    if not fits or images.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"images: expected uint8 or uint16 [N, H, W, {refiner.channels}], found {images.dtype} "
            f"{list(images.shape)}; give the refiner images of the kind that it was trained on"
        )
    _, height, width, channels = images.shape
    compute = choose_inference_settings(device, precision, micro_batch_size, (height, width))
    pixels: PixelName = "uint16" if images.dtype == np.uint16 else "uint8"
    return BulkRefiner(refiner, compute, (height, width, channels), pixels)(images, style)


@torch.no_grad()
def refine_pixels(
    refiner: Refiner, images: Tensor, compute: ComputeSettings, style: Tensor | None = None
) -> Tensor:
    """Refine pixels [N, H, W, C] on the refiner's device, in micro-batches that fit its caches.

    `style` [N, Z] is there for refiners that take one. The result has the same type as `images` and
    carries no gradient.
    """
    refined = torch.empty_like(images)

    def refine_into(source: Tensor, target: Tensor, *style: Tensor) -> None:
        with compute.autocast():
            output = refiner(to_network(source), *style)
        target.copy_(to_pixels(output, images.dtype))

    styles = () if style is None else (style,)
    deque(parallel_map(refine_into, compute.micro_batches(images, refined, *styles)), maxlen=0)
    return refined


class UInt8Refiner(nn.Module):
    """Refiner of pixels uint8 [N, H, W, C], any N, for use without preprocessing.

    A refiner of 16-bit images takes and gives uint16; one that takes a style has it as its second
    input, standard normal numbers.

    `torch.export` takes it with a dynamic first axis; that is the form in which it is published.
    """

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, images: Tensor, style: Tensor | None = None) -> Tensor:
        """Refine uint8 [N, H, W, C] to the same type and shape; `style` float32 [N, Z]."""
        return to_pixels(self.refiner(to_network(images), style), images.dtype)
