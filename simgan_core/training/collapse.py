"""Mode-collapse detection: refined images all alike, or equal to their input for long."""

from simgan_core.training.validation import Metrics

_MIN_SPREAD = 0.1
"""Refined images that differ among each other by less than this share of what synthetic ones do
are one image."""
_MIN_CHANGE_LEVELS = 0.5
"""A mean change below half a grey level of 255 is none: most pixels come back as they were."""
_PATIENCE = 10
"""Validations in a row without a change: a residual refiner begins with none."""


class CollapsedError(ArithmeticError):
    """The refiner outputs the same image for every input, or its input unchanged."""


class CollapseWatch:
    """Checks the metrics of every validation for collapse."""

    def __init__(self) -> None:
        self.num_unchanged = 0
        """Validations in a row in which refined images were the synthetic ones."""

    def require_alive(self, step: int, metrics: Metrics) -> None:
        """Raise `CollapsedError` where these metrics are those of a collapsed refiner."""
        if metrics["change/spread"] < _MIN_SPREAD:
            raise CollapsedError(
                f"at step {step} all refined images are alike: they differ by "
                f"{metrics['change/spread']:.0%} of what synthetic ones do; raise regularization, "
                "or lower learning_rate or refiner_steps_per_round"
            )
        unchanged = metrics["change/mean_levels"] < _MIN_CHANGE_LEVELS
        self.num_unchanged = self.num_unchanged + 1 if unchanged else 0
        if self.num_unchanged >= _PATIENCE:
            raise CollapsedError(
                f"up to step {step} refined images were the synthetic ones (they differ by "
                f"{metrics['change/mean_levels']:.2f} grey levels) in {_PATIENCE} validations in "
                "a row; lower regularization, or raise learning_rate or stopping.evaluate_every"
            )
