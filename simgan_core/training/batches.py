"""Mini-batches of a training: synthetic images, real images, and refined ones with history."""

from dataclasses import dataclass

import torch
from torch import Tensor

from simgan_core.compute.distributed import DistributedContext
from simgan_core.compute.settings import ComputeSettings
from simgan_core.config import TrainingConfig
from simgan_core.errors import InputError
from simgan_core.inference import refine_pixels
from simgan_core.training.self_regularization import emphasis_on_iris
from simgan_core.training.state import TrainingState


@dataclass(frozen=True)
class MiniBatches:
    """Samples this process's part of every mini-batch: N pixels [N, H, W, C] on the device."""

    config: TrainingConfig
    state: TrainingState
    compute: ComputeSettings
    pupil_px: Tensor | None
    """Pupil centres x, y [number of synthetic images, 2] in pixels, where they are known."""

    def synthetic(self) -> tuple[Tensor, Tensor | None]:
        """Return synthetic images, and the emphasis of self-regularization on their irises."""
        distributed = self.compute.distributed
        images, rows = self.state.synthetic.next_batch_with_rows(self.config.batch_size)
        times = self.config.regularization.label_region
        images, rows = distributed.part_of(images), distributed.part_of(rows)
        if self.pupil_px is None or times == 1:
            return images, None
        _, height, width, _ = images.shape
        pupil_px = self.pupil_px[rows].to(images.device, non_blocking=True)
        return images, emphasis_on_iris(pupil_px, height, width, times)

    def real(self) -> Tensor:
        """Return real images."""
        return self.compute.distributed.part_of(self.state.real.next_batch(self.config.batch_size))

    def refined(self, use_history: bool) -> Tensor:
        """Return refined images: half of them new and half from the history buffer.

        Half a batch of the new ones then enters the buffer. All of the batch is new until the
        buffer holds half a batch, and without `use_history`: in pretraining the refiner stands
        still.
        """
        state, distributed = self.state, self.compute.distributed
        batch_size = batch_size_of_rank(self.config.batch_size, distributed)
        half = batch_size // 2
        num_old = half if use_history and len(state.history) >= half else 0
        num_new = batch_size - num_old
        synthetic = distributed.part_of(state.synthetic.next_batch(num_new * distributed.size))
        style = state.draw_style(len(synthetic))
        refined = refine_pixels(state.refiner, synthetic, self.compute, style)
        batch = torch.cat([refined, state.history.draw(num_old)]) if num_old else refined
        if use_history:
            state.history.add(refined[:half])
        return batch


def batch_size_of_rank(batch_size: int, distributed: DistributedContext) -> int:
    """Return each process's part of a batch; `InputError` where it is not an even number."""
    part, rest = divmod(batch_size, distributed.size)
    if rest or part % 2:
        raise InputError(
            f"batch_size {batch_size} should be an even number of images for each of "
            f"{distributed.size} processes; give a multiple of {2 * distributed.size}"
        )
    return part
