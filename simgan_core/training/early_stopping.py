"""Early stopping: patience on a validation metric, and the best refiner so far.

The losses of the two networks do not tell when to stop: they play against each other. The metric
is KID, the realism of refined images, among the refiners that pass the label gate.
"""

import logging
from typing import Any

from torch import Tensor

from simgan_core.config import StoppingConfig
from simgan_core.models.refiner import Refiner
from simgan_core.training.validation import Metrics

logger = logging.getLogger(__name__)

SCORE = "realism/kid"
_REFERENCE_WIDTH_PX = 55


class EarlyStopping:
    """Keeps the best refiner, of least KID among those that pass the label gate, and patience."""

    def __init__(self, config: StoppingConfig, image_width: int) -> None:
        self._max_shift_px = config.max_pupil_shift_px * image_width / _REFERENCE_WIDTH_PX
        self._min_kept = config.min_pupils_kept
        self._patience = config.patience
        self.best_step: int | None = None
        self.best_metrics: Metrics = {}
        self.last_metrics: Metrics = {}
        self.best_weights: dict[str, Tensor] = {}
        self._fruitless = 0
        self._last_refusal = ""

    def update(self, step: int, metrics: Metrics, refiner: Refiner) -> None:
        """Update with a refiner and its validation metrics; keep it if it is the best so far."""
        self.last_metrics = dict(metrics)
        refusal = self.refusal(metrics)
        if refusal:
            logger.debug("step %d is no candidate: %s", step, refusal)
            self._last_refusal = refusal
        elif self.best_step is None or metrics[SCORE] < self.best_metrics[SCORE]:
            self.best_step, self.best_metrics = step, dict(metrics)
            self.best_weights = {k: v.clone() for k, v in refiner.state_dict().items()}
            self._fruitless = 0
            return
        self._fruitless += 1

    @property
    def ended(self) -> bool:
        """True when `patience` validations in a row found no better refiner."""
        return self._fruitless >= self._patience

    def verdict(self) -> str:
        """Return which refiner is the result and why, in a sentence."""
        if self.best_step is None and not self._last_refusal:
            return "the refiner of the last step: none was validated"
        if self.best_step is None:
            return f"the refiner of the last step, and no candidate: {self._last_refusal}"
        why = f"the refiner of step {self.best_step}: the least KID, {self.best_metrics[SCORE]:.4f}"
        if "labels/pupil_shift_px.mean" in self.best_metrics:
            shift_px = self.best_metrics["labels/pupil_shift_px.mean"]
            why += (
                f", among those that move pupils by at most {self._max_shift_px:.2f} px "
                f"(it moves them by {shift_px:.2f} px)"
            )
        if self.ended:
            why += f"; {self._fruitless} later validations found none better"
        return why

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, text and tensors."""
        return {
            "best_step": self.best_step,
            "best_figures": dict(self.best_metrics),
            "last_figures": dict(self.last_metrics),
            "best_weights": dict(self.best_weights),
            "fruitless": self._fruitless,
            "last_refusal": self._last_refusal,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best_step = state["best_step"]
        self.best_metrics = dict(state["best_figures"])
        self.last_metrics = dict(state["last_figures"])
        self.best_weights = dict(state["best_weights"])
        self._fruitless = state["fruitless"]
        self._last_refusal = state["last_refusal"]

    def refusal(self, metrics: Metrics) -> str:
        """Return why these metrics fail the label gate; empty where they pass."""
        if "labels/pupils_kept" not in metrics:
            return ""
        kept, shift_px = metrics["labels/pupils_kept"], metrics["labels/pupil_shift_px.mean"]
        if kept < self._min_kept:
            return f"only {kept:.0%} of the pupils are still found (at least {self._min_kept:.0%})"
        if shift_px > self._max_shift_px:
            return f"pupils moved by {shift_px:.2f} px (at most {self._max_shift_px:.2f})"
        return ""
