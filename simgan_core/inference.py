"""Fast refiner inference: pixels in, refined pixels out."""

import copy
from collections import deque
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simgan_core.compute.parallel import parallel_map
from simgan_core.compute.settings import (
    ComputeSettings,
    choose_inference_settings,
    to_channels_last,
)
from simgan_core.data.images import to_network, to_pixels
from simgan_core.errors import InputError
from simgan_core.models.refiner import Refiner

_BATCHES_IN_FLIGHT = 3
"""Batches on a GPU at once: one arrives, one is computed, one leaves."""


class BulkRefiner:
    """A refiner made ready for a device, number format and size of images; then it only computes.

    Making one copies the weights to the device in the number format, and on a GPU records the whole
    network as one CUDA graph. `refiner` itself is neither moved nor changed. One thread at a time.
    """

    def __init__(
        self, refiner: Refiner, compute: ComputeSettings, image_shape: tuple[int, int, int]
    ) -> None:
        self.compute = compute
        self._image_shape = image_shape
        weights = torch.bfloat16 if compute.precision == "bf16" else torch.float32
        network = UInt8Refiner(copy.deepcopy(refiner.unmirrored()))
        self.network = to_channels_last(network.to(weights), compute.device)
        network.refiner.pack(compute.micro_batch_size, *image_shape[:2])
        self._slots: list[_Slot] = []
        if compute.device.type == "cuda":
            self._slots = [self._slot(self.network) for _ in range(_BATCHES_IN_FLIGHT)]

    @property
    def device(self) -> torch.device:
        """Where it computes, a GPU by its number: `cuda` alone may be another in another thread."""
        return next(self.network.parameters()).device

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Refine every image of uint8 [N, H, W, C], row i to row i; N may be 0.

        Raises InputError for another type, size or number of channels.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._image_shape:
            raise InputError(
                f"images: expected uint8 [N, {', '.join(map(str, self._image_shape))}], found "
                f"{images.dtype} {list(images.shape)}; give the refiner images of the kind that it "
                "was trained on"
            )
        refined = np.empty_like(images)
        # A read-only array, such as a memory map, is copied: torch would warn, and never writes.
        pixels = torch.from_numpy(images if images.flags.writeable else images.copy())
        batches = self.compute.micro_batches(pixels, torch.from_numpy(refined))
        with torch.inference_mode():
            if self._slots:
                self._stream_through_gpu(batches)
            else:
                deque(parallel_map(self._refine_into, batches), maxlen=0)
        return refined

    def _refine_into(self, source: Tensor, target: Tensor) -> None:
        target.copy_(self.network(source))

    def _stream_through_gpu(self, batches: Iterable[tuple[Tensor, ...]]) -> None:
        """Let copies to and from the GPU overlap with computing, in batches that follow closely."""
        free, busy = deque(self._slots), deque[_Slot]()
        for source, target in batches:
            if not free:
                busy[0].finish()
                free.append(busy.popleft())
            slot = free.popleft()
            slot.start(source, target)
            busy.append(slot)
        for slot in busy:
            slot.finish()

    def _slot(self, network: nn.Module) -> "_Slot":
        shape = (self.compute.micro_batch_size, *self._image_shape)
        return _Slot(network, shape, self.compute.device)


class _Slot:
    """A place for one batch on a GPU: page-locked memory, a stream, and the captured network.

    The graph always computes a whole batch; of a shorter one the rest is computed and ignored.
    cuDNN's timing of algorithms stays off: it may choose others, and so other bits, each time.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
        self._arriving = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._leaving = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._images = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._target = torch.empty(0, dtype=torch.uint8)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            # What libraries set up at first use cannot be captured.
            with torch.cuda.stream(self._stream):
                network(self._images)
            self._stream.synchronize()
            # Other threads may go on with what a recording forbids its own.
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._refined = network(self._images)

    def start(self, source: Tensor, target: Tensor) -> None:
        """Send a batch on its way; `finish` puts the result into `target`."""
        self._target = target
        self._arriving[: len(source)].copy_(source)
        with torch.cuda.stream(self._stream):
            self._images.copy_(self._arriving, non_blocking=True)
            self._graph.replay()
            self._leaving.copy_(self._refined, non_blocking=True)
            self._done.record(self._stream)

    def finish(self) -> None:
        """Wait for the batch and hand it over."""
        self._done.synchronize()
        self._target.copy_(self._leaving[: len(self._target)])


def refine_images(
    refiner: Refiner,
    images: NDArray[np.uint8],
    device: torch.device | str = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    micro_batch_size: int | None = None,
) -> NDArray[np.uint8]:
    """Refine uint8 [N, H, W, C] once; who refines more than once keeps a `BulkRefiner`.

    Raises InputError for another type, shape or number of channels.
    """
    if images.ndim != 4 or images.shape[3] != refiner.channels:
        raise InputError(
            f"images: expected uint8 [N, H, W, {refiner.channels}], found {images.dtype} "
            f"{list(images.shape)}; give the refiner images of the kind that it was trained on"
        )
    compute = choose_inference_settings(device, precision, micro_batch_size)
    _, height, width, channels = images.shape
    return BulkRefiner(refiner, compute, (height, width, channels))(images)


@torch.no_grad()
def refine_pixels(refiner: Refiner, images: Tensor, compute: ComputeSettings) -> Tensor:
    """Refine pixels [N, H, W, C] on the refiner's device, in micro-batches that fit its caches.

    The result has the same type and carries no gradient.
    """
    refined = torch.empty_like(images)

    def refine_into(source: Tensor, target: Tensor) -> None:
        with compute.autocast():
            output = refiner(to_network(source))
        target.copy_(to_pixels(output, images.dtype))

    deque(parallel_map(refine_into, compute.micro_batches(images, refined)), maxlen=0)
    return refined


class UInt8Refiner(nn.Module):
    """A refiner for others to use: uint8 [N, H, W, C] in and out, any N, nothing to prepare.

    A refiner of 16-bit images takes and gives uint16.

    `torch.export` takes it with a dynamic first axis; that is the form in which it is published.
    """

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, images: Tensor) -> Tensor:
        """Refine uint8 [N, H, W, C] to the same type and shape."""
        return to_pixels(self.refiner(to_network(images)), images.dtype)
