"""Gaze from the eye landmarks of unlabelled real images, found once a dataset."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from simgan_core.landmarks.gaze import gaze_from_landmarks
from simgan_core.landmarks.model import LandmarkModel, Landmarks
from storage.samples import Images
from storage.schema import DatasetInfo
from tasks.comparison.estimators import write_atomically
from tasks.comparison.plan import LandmarkTeacher
from tasks.runtime.content_ids import content_id
from tasks.runtime.paths import home
from tasks.runtime.policies import stop_if_told
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position

logger = logging.getLogger(__name__)

_CHUNK = 4096
"""Images between two files of landmarks and two lines of progress: some 4 s of a core."""
_WAIT_S = 5.0
"""Time between two lines while another process finds the same landmarks."""


def landmark_gaze_deg(info: DatasetInfo, images: Images) -> NDArray[np.float64]:
    """Return pitch and yaw [N, 2] in degrees of a dataset's valid images; NaN where not found.

    What a killed process had found is on disk, chunk by chunk, and not computed again.
    """
    model = LandmarkModel.load()
    content = {
        "images": info.digest,
        "model": model.digest,
        "recipe": recipe_version("estimate"),
    }
    path = home() / "pseudo_labels" / f"{content_id('landmark-gaze', content)}.npz"
    chunks = path.with_suffix(".chunks")
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            found = _landmarks(model, images, chunks)
            write_atomically(path, {"gaze_deg": gaze_from_landmarks(found)})
        shutil.rmtree(chunks, ignore_errors=True)
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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time find these landmarks; others wait for its result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_WAIT_S)
            break
        except Timeout:
            stop_if_told()
            logger.info("eye landmarks: waiting for another process that finds them")
    try:
        yield
    finally:
        lock.release()


def _landmarks(model: LandmarkModel, images: Images, folder: Path) -> Landmarks:
    """Find landmarks chunk by chunk; the folder keeps those of finished chunks."""
    stage, total = "finding eye landmarks", len(images)
    points, spread = [], []
    for start in range(0, total, _CHUNK):
        stop = min(start + _CHUNK, total)
        path = folder / f"rows-{start}-{stop}.npz"
        if not path.exists():
            stop_if_told()
            at = position(stage, start, total)
            logger.info("eye landmarks: %d of %d images", start, total, extra=at)
            found = model.predict(images[start:stop])
            write_atomically(path, {"points": found.points, "spread": found.spread})
        with np.load(path) as kept:
            points.append(kept["points"])
            spread.append(kept["spread"])
    logger.info("eye landmarks: found", extra=position(stage, total, total))
    return Landmarks(np.concatenate(points), np.concatenate(spread))
