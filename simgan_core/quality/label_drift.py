"""Label drift and realism of refined images: pupil shift, gaze consistency, classifier."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from simgan_core.compute.array_api import Array
from simgan_core.compute.settings import to_channels_last
from simgan_core.data.images import to_network
from simgan_core.data.sampler import ImageSampler, seeded_generator
from simgan_core.errors import InputError
from simgan_core.estimation.gaze_training import predict_gaze
from simgan_core.gaze import angular_error_deg
from simgan_core.models.estimator import Estimator
from simgan_core.quality.pupil import locate_pupil
from simgan_core.quality.registration import displacement_px

_CLASSIFIER_STEPS = 200
_CLASSIFIER_BATCH = 32
"""Images of either kind in a batch."""


@dataclass(frozen=True)
class PupilShift:
    """Shifts of the pupil centres of N images by refinement."""

    displacement_px: NDArray[np.float32]
    """Refined minus synthetic centre [N, 2] as x, y in pixels; NaN where not found."""
    found: NDArray[np.bool_]
    """True where the pupil was located in both images [N]."""
    lost: NDArray[np.bool_]
    """True where the pupil was located in the synthetic image and not in the refined one [N]."""

    @property
    def shift_px(self) -> NDArray[np.float32]:
        """Distances [N] in pixels; NaN where not found."""
        return np.asarray(np.linalg.norm(self.displacement_px, axis=1))

    def summary(self) -> dict[str, float]:
        """Return mean, sd and median of the distances, and the share found; NaN if none was."""
        shift_px = self.shift_px[self.found]
        if len(shift_px) == 0:
            return dict.fromkeys(("mean", "sd", "median"), float("nan")) | {"share_found": 0.0}
        return {
            "mean": float(shift_px.mean()),
            "sd": float(shift_px.std()),
            "median": float(np.median(shift_px)),
            "share_found": float(self.found.mean()),
        }


def pupil_shift_px(synthetic: Array, refined: Array, start_px: ArrayLike) -> PupilShift:
    """Measure how far the pupils of refined images are from those of the same synthetic ones.

    Both are [N, H, W, C], row i refined from row i: arrays, or tensors on one GPU; `start_px`
    [N, 2] is the synthetic label. Both centres are located anew, so that what the fit gets wrong in
    both images is no shift. The refined one's is searched for from where registration says that the
    eye went, since the fit alone reaches 2 px: so shifts of up to 6 px at a width of 55 are
    measured. On the built-in simulator the same scenes with light and with dark irises, where
    nothing moved, give 0.3 ± 0.4 px, median 0.15: less than that means nothing.

    Raises InputError where the shapes disagree.
    """
    if synthetic.shape != refined.shape:
        raise InputError(
            "refined images should have the shape of the synthetic ones, "
            f"found {tuple(refined.shape)} and {tuple(synthetic.shape)}"
        )
    start = np.asarray(start_px, np.float32)
    before_px, found_before = locate_pupil(synthetic, start)
    went_px = displacement_px(synthetic, refined, start)
    after_px, found_after = locate_pupil(refined, start + went_px)
    return PupilShift(
        displacement_px=after_px - before_px,
        found=found_before & found_after,
        lost=found_before & ~found_after,
    )


def gaze_change_deg(estimator: Estimator, synthetic: NDArray[Any], refined: NDArray[Any]) -> float:
    """Return the mean angle between an estimator's predictions on synthetic and refined images.

    Both are [N, H, W, C], row i refined from row i. The estimator is frozen and knows synthetic
    images: what it sees elsewhere now has moved in its eyes.
    """
    before, after = predict_gaze(estimator, synthetic), predict_gaze(estimator, refined)
    return float(np.mean(angular_error_deg(before, after)))


def classifier_accuracy(
    refined: NDArray[np.uint8],
    real: NDArray[np.uint8],
    seed: int,
    num_steps: int = _CLASSIFIER_STEPS,
) -> float:
    """Return the accuracy of a new classifier of refined and real images: 0.5 is best, 1 worst.

    It is trained for `num_steps` on one random half of each set [N, H, W, C] and asked about the
    other; the larger set is cut to the size of the smaller. Raises InputError where the images are
    of two sizes or fewer than 4 of a kind.
    """
    count = min(len(refined), len(real))
    if refined.shape[1:] != real.shape[1:] or count < 4:
        raise InputError(
            "telling refined from real needs at least 4 images of each, in one size, "
            f"found {refined.shape} and {real.shape}"
        )
    halves = [
        torch.from_numpy(images[_some_order(len(images), seed, stream)[:count]]).tensor_split(2)
        for stream, images in enumerate((refined, real))
    ]
    classifier = _trained_classifier(halves[0][0], halves[1][0], seed, num_steps)
    called_real = [_is_called_real(classifier, unseen) for _, unseen in halves]
    return float((1 - called_real[0].mean() + called_real[1].mean()) / 2)


def _some_order(count: int, seed: int, stream: int) -> NDArray[np.int64]:
    return torch.randperm(count, generator=seeded_generator(seed, stream)).numpy()


def _trained_classifier(refined: Tensor, real: Tensor, seed: int, num_steps: int) -> nn.Module:
    """Train a small classifier; a positive logit means real."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = to_channels_last(_classifier(refined.shape[3]), refined.device)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3, fused=True)
    decks = [ImageSampler(images, seed, stream) for stream, images in enumerate((refined, real))]
    is_real = torch.tensor([0.0, 1.0]).repeat_interleave(_CLASSIFIER_BATCH)[:, None]
    for _ in range(num_steps):
        images = torch.cat([sampler.next_batch(_CLASSIFIER_BATCH) for sampler in decks])
        answers = classifier(to_network(images))
        loss = nn.functional.binary_cross_entropy_with_logits(answers, is_real)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return classifier


def _classifier(channels: int) -> nn.Sequential:
    """Return a network of small receptive fields, which sees textures and their rough place."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Flatten(),
        nn.Linear(64 * 6, 1),
    )


@torch.no_grad()
def _is_called_real(classifier: nn.Module, images: Tensor) -> NDArray[np.bool_]:
    answers = [classifier(to_network(batch)) for batch in torch.split(images, 512)]
    return (torch.cat(answers)[:, 0] > 0).numpy()
