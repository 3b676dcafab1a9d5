"""Landmark finder for ingestion: the landmark network, handed to sources that crop by it."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.landmarks.model import DEFAULT_MODEL, LandmarkModel
from storage.sources.options import CroppedOptions, SourceOptions
from storage.sources.source import Source


class LandmarkFinder:
    """Landmarks of images by a model; pickled as its file's path, and loaded where it is used."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        # Read at once: a file that is missing or no model ends the ingestion before it begins.
        self.digest = self._model.digest

    def __reduce__(self) -> tuple[type["LandmarkFinder"], tuple[Path]]:
        return LandmarkFinder, (self._path,)

    @cached_property
    def _model(self) -> LandmarkModel:
        return LandmarkModel.load(self._path)

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return landmarks [N, 5, 2] of images [N, H, W, C]; NaN where they are not certain."""
        found = self._model.predict(images)
        found.points[~found.confident] = np.nan
        return found.points


def open_source(options: SourceOptions) -> Source:
    """List a source's files, with a landmark finder where its crops go by landmarks."""
    if isinstance(options, CroppedOptions) and options.crop == "landmarks":
        return options.open_with(LandmarkFinder(options.landmarks or DEFAULT_MODEL))
    return options.open()
