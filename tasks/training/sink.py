"""Metric sink of a training: MLflow, log, Prefect progress, sample grids."""

import logging
import time

import numpy as np
from numpy.typing import NDArray
from prefect.context import TaskRunContext
from torch import Tensor

from tasks.runtime.pictures import as_8_bits, grid, refinement_progress
from tasks.runtime.progress import ProgressBar
from tasks.runtime.stages import position
from tasks.runtime.tracking.runs import TrackedRun

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_PROGRESS = 10.0


class TrackedSink:
    """Sink that logs to MLflow, to the log and to the run's progress artifact in Prefect."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._samples: dict[int, NDArray[np.uint8]] = {}
        self._started = time.monotonic()
        self._first_step: int | None = None
        self._last_said = 0.0
        # Training processes under torchrun are no task runs.
        self._has_page = TaskRunContext.get() is not None
        self._bar: ProgressBar | None = None

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Log the losses, the article's Figure 7, to MLflow."""
        self._run.metrics(values, step)

    def samples(self, step: int, images: Tensor) -> None:
        """Log the same synthetic images as refined at this step, the article's Figure 6."""
        self._samples[step] = as_8_bits(images.cpu().numpy())
        self._run.image("refined", grid(self._samples[step]), step=step)

    def progress(self, step: int, total: int) -> None:
        """Report progress and the time left, at most every SECONDS_BETWEEN_PROGRESS."""
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._started = step, now
        if now - self._last_said < SECONDS_BETWEEN_PROGRESS and step < total:
            return
        self._last_said = now
        rate = (step - self._first_step) / max(now - self._started, 1e-9)
        pace = f", {rate:.1f} a second, {(total - step) / rate:.0f} s left" if rate > 0 else ""
        words = f"step {step:,} of {total:,}{pace}"
        logger.info("training: %s", words, extra=position("training the refiner", step, total))
        if self._has_page:
            self._show(100.0 * step / total, words)

    def _show(self, percent: float, words: str) -> None:
        if self._bar is None:
            self._bar = ProgressBar.begin("training-progress", percent, words)
        else:
            self._bar.update(percent, words)

    def progress_picture(self) -> NDArray[np.uint8]:
        """Return the samples of all steps in one picture, one row for each step."""
        return refinement_progress(self._samples)
