"""Bulk inference by another program's image-to-image model, with checks of what it returns."""

import logging
from collections import deque
from collections.abc import Generator, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.compute.parallel import parallel_map
from simgan_core.data.images import to_network, to_pixels
from simgan_core.errors import InputError
from simgan_core.inference import RefinedImages
from simgan_core.models.exported_model import ImageModel

logger = logging.getLogger(__name__)

NUM_TRIED = 8
"""Images on which a model is tried before a dataset is refined by it."""
_MAX_LEVELS_APART = 1
"""Grey levels by which an image's result may depend on the images beside it: rounding."""
_MAX_OUTPUT = 2.0
"""Largest magnitude that a model of [−1, 1] overshoots to; pixels of 0…255 are far beyond."""
_DARK, _LIGHT = 64, 192


class ModelRefiner:
    """Another program's model as a refiner of pixels.

    Every batch has the same size, short ones are filled up: neither a fixed batch size nor the
    number of images changes an image's result. Grey images reach a model of three channels as
    three equal ones, and the mean of its three is kept.
    """

    def __init__(self, model: ImageModel, micro_batch_size: int) -> None:
        self._model = model
        found = model.input
        bounds = (micro_batch_size, found.max_batch_size or micro_batch_size)
        self._batch_size = found.batch_size or min(bounds)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Refine every image of uint8 [N, H, W, C], row i to row i; N may be 0."""
        (refined,) = self.refine_each([images])
        return np.asarray(refined.images, np.uint8)

    def refine_each(
        self, blocks: Iterable[NDArray[np.uint8]]
    ) -> Generator[RefinedImages, None, None]:
        """Refine block after block of uint8 [N, H, W, C]; raises InputError for what is no image.

        That is another number format or shape than the input's, and values that are not finite.
        """
        for images in blocks:
            refined = np.empty_like(images)
            writable = images if images.flags.writeable else images.copy()
            batches = zip(
                torch.split(torch.from_numpy(writable), self._batch_size),
                torch.split(torch.from_numpy(refined), self._batch_size),
                strict=True,
            )
            with torch.inference_mode():
                if self._model.device.type == "cpu":
                    deque(parallel_map(self._refine_into, batches), maxlen=0)
                else:
                    for batch in batches:
                        self._refine_into(*batch)
            yield RefinedImages(refined, images, refined)

    def require_usable(self, images: NDArray[np.uint8]) -> None:
        """Try the model on a few images [N, H, W, C]; `InputError` where refinement would be wrong.

        Refused are outputs that are no images (as in `refine_each`) or in another range, results
        that differ when computed again, and results that depend on the other images of the batch.
        """
        images = images[:NUM_TRIED]
        if not len(images):
            return
        self._require_range(images)
        first, again = self(images), self(images)
        among_others = self(np.concatenate([images[:1], 255 - images]))
        if not np.array_equal(first, again):
            raise InputError(
                f"model {self._model.name} gives two results for the same images: expected the "
                "same one; export it in eval mode, without dropout or random numbers"
            )
        apart = np.abs(among_others[0].astype(int) - first[0]).max()
        if apart > _MAX_LEVELS_APART:
            raise InputError(
                f"model {self._model.name}: an image's result depends on the other images of its "
                f"batch (by {apart} grey levels of 255): expected none; export it in eval mode, so "
                "that batch normalisation uses its running statistics"
            )

    def _require_range(self, images: NDArray[np.uint8]) -> None:
        if self._model.input.layout == "pixels":
            return
        with torch.inference_mode():
            output = self._output(torch.from_numpy(images[: self._batch_size].copy()))
        low, high = output.min().item(), output.max().item()
        if max(-low, high) > _MAX_OUTPUT:
            raise InputError(
                f"model {self._model.name}: expected values in [−1, 1], found {low:.3g} to "
                f"{high:.3g}; export a module that maps [−1, 1] to [−1, 1]"
            )
        if low >= 0 and images.min() < _DARK and images.max() > _LIGHT:
            logger.warning(
                "model %s: values from %.2f to %.2f for images with dark and light pixels, so it "
                "may compute in [0, 1]; expected [−1, 1]",
                *(self._model.name, low, high),
            )

    def _refine_into(self, source: Tensor, target: Tensor) -> None:
        output = self._output(source)[: len(source)]
        target.copy_(output if self._model.input.layout == "pixels" else to_pixels(output))

    def _output(self, images: Tensor) -> Tensor:
        """Return the checked output for at most a batch of pixels, which is filled up."""
        missing = self._batch_size - len(images)
        batch = images.to(self._model.device)
        if missing > 0:
            batch = torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)])
        pixels = self._model.input.layout == "pixels"
        batch = batch if pixels else to_network(batch).contiguous()
        channel_axis = 3 if pixels else 1
        widened = self._model.input.channels == 3 and batch.shape[channel_axis] == 1
        if widened:
            batch = batch.repeat_interleave(3, dim=channel_axis)
        output = self._model(batch)
        self._require_images(output, batch)
        if widened:
            output = output.to(torch.float32).mean(channel_axis, keepdim=True)
            output = output.round().to(torch.uint8) if pixels else output
        return output

    def _require_images(self, output: Tensor, batch: Tensor) -> None:
        if output.dtype != batch.dtype or output.shape != batch.shape:
            raise InputError(
                f"model {self._model.name}: expected {_described(batch)} for images "
                f"{list(batch.shape)}, found {_described(output)}; export a module that returns "
                "images of its input's size and number format"
            )
        if not output.isfinite().all():
            raise InputError(
                f"model {self._model.name}: expected finite values, found NaN or infinity; the "
                "model overflows on some images (float16 weights?): export another one"
            )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
