"""Validation of a refiner during training: label drift, realism and estimator metrics."""

import torch
from torch import Tensor

from simgan_core.data.images import FULL_SCALE, to_network
from simgan_core.models.estimator import Estimator
from simgan_core.quality.kid import KernelDistance
from simgan_core.quality.label_drift import classifier_accuracy, gaze_change_deg, pupil_shift_px

Metrics = dict[str, float]

_CLASSIFIER_STEPS = 60
"""Training steps of the classifier, which costs most of a validation."""


class Validator:
    """Validates refiners on a fixed validation set of synthetic and real images.

    The metrics: `realism/kid` (0 is perfect, see `simgan_core.quality.kid`),
    `realism/classifier_accuracy` (0.5 is perfect, 1 the worst), `change/mean_levels` (the mean
    absolute change of a pixel, in levels of 255) and `change/spread` (the spread among refined
    images as a share of that among synthetic ones), and where pupils are known
    `labels/pupil_shift_px.mean`, `.sd`, `.median` and `labels/pupils_kept`, the share of those
    found in synthetic images that is found in refined ones; with an estimator
    `labels/gaze_change_deg`, the mean change of its
    predictions in degrees.
    """

    def __init__(
        self,
        synthetic: Tensor,
        real: Tensor,
        pupil_px: Tensor | None,
        seed: int,
        estimator: Estimator | None = None,
    ) -> None:
        """Hold the validation set: pixels [N, H, W, C] of both domains, pupil centres [N, 2]."""
        self.synthetic = synthetic
        self._real = real.cpu()
        self._distance = KernelDistance(real)
        self._pupil_px = None if pupil_px is None else pupil_px.cpu().numpy()
        self._seed = seed
        self._estimator = estimator

    def validate(self, refined: Tensor) -> Metrics:
        """Return the metrics of refined pixels [N, H, W, C], row i refined from synthetic row i."""
        accuracy = classifier_accuracy(
            refined.cpu().numpy(), self._real.numpy(), self._seed, _CLASSIFIER_STEPS
        )
        return {
            "realism/kid": self._distance(refined),
            "realism/classifier_accuracy": accuracy,
            **self._change(refined),
            **self._label_shift(refined),
            **self._answer_change(refined),
        }

    def _change(self, refined: Tensor) -> Metrics:
        before, after = to_network(self.synthetic), to_network(refined)
        levels = FULL_SCALE[torch.uint8] / 2
        spread = after.std(dim=0).mean() / before.std(dim=0).mean().clamp(min=1e-6)
        return {
            "change/mean_levels": float((after - before).abs().mean()) * levels,
            "change/spread": float(spread),
        }

    def _label_shift(self, refined: Tensor) -> Metrics:
        if self._pupil_px is None:
            return {}
        synthetic = self.synthetic.cpu().numpy()
        shift = pupil_shift_px(synthetic, refined.cpu().numpy(), self._pupil_px)
        unmoved = pupil_shift_px(synthetic, synthetic, self._pupil_px)
        summary = shift.summary()
        kept = summary.pop("share_found") / max(unmoved.summary()["share_found"], 1e-6)
        return {
            **{f"labels/pupil_shift_px.{name}": value for name, value in summary.items()},
            "labels/pupils_kept": kept,
        }

    def _answer_change(self, refined: Tensor) -> Metrics:
        if self._estimator is None:
            return {}
        change = gaze_change_deg(
            self._estimator, self.synthetic.cpu().numpy(), refined.cpu().numpy()
        )
        return {"labels/gaze_change_deg": change}
