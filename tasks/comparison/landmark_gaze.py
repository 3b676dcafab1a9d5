"""Gaze from the eye landmarks of unlabelled real images, found once a dataset."""

import logging

import numpy as np
from numpy.typing import NDArray

from simgan_core.landmarks.gaze import gaze_from_landmarks
from simgan_core.landmarks.model import LandmarkModel, Landmarks
from storage.schema import DatasetInfo
from tasks.comparison.estimators import write_atomically
from tasks.comparison.plan import LandmarkTeacher
from tasks.runtime.content_ids import content_id
from tasks.runtime.dataset_cache import DatasetCache
from tasks.runtime.paths import home
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position

logger = logging.getLogger(__name__)

_CHUNK = 5000
"""Images between two lines of progress: some 6 s."""


def landmark_gaze_deg(info: DatasetInfo, datasets: DatasetCache) -> NDArray[np.float64]:
    """Return pitch and yaw [N, 2] in degrees of a dataset's valid images; NaN where not found."""
    model = LandmarkModel.load()
    content = {
        "images": info.digest,
        "model": model.digest,
        "recipe": recipe_version("estimate"),
    }
    path = home() / "pseudo_labels" / f"{content_id('landmark-gaze', content)}.npz"
    if not path.exists():
        found = _landmarks(model, datasets.load(info).images)
        write_atomically(path, {"gaze_deg": gaze_from_landmarks(found)})
    with np.load(path) as kept:
        gaze_deg: NDArray[np.float64] = kept["gaze_deg"]
    return gaze_deg


def landmark_teacher(figures: NDArray[np.float64]) -> LandmarkTeacher:
    """Return what a `LandmarkAverage` says beside its predictions [5], as a file keeps it."""
    share, agreement, teaches, pitch_difference_deg, sets_mean_pitch = figures.tolist()
    return LandmarkTeacher(
        share=share,
        agreement=agreement,
        teaches=bool(teaches),
        pitch_difference_deg=None if np.isnan(pitch_difference_deg) else pitch_difference_deg,
        sets_mean_pitch=bool(sets_mean_pitch),
    )


def _landmarks(model: LandmarkModel, images: NDArray[np.uint8] | NDArray[np.uint16]) -> Landmarks:
    stage, total = "finding eye landmarks", len(images)
    points, spread = [], []
    for start in range(0, total, _CHUNK):
        at = position(stage, start, total)
        logger.info("eye landmarks: %d of %d images", start, total, extra=at)
        found = model.predict(images[start : start + _CHUNK])
        points.append(found.points)
        spread.append(found.spread)
    logger.info("eye landmarks: found", extra=position(stage, total, total))
    return Landmarks(np.concatenate(points), np.concatenate(spread))
