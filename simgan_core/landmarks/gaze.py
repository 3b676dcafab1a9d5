"""Gaze from eye landmarks: where the iris' centre lies between the corners of the eye.

The eyeball turns about its centre, so the iris' centre is displaced from where it is at level gaze
by the radius of its path times the sine of the gaze angle (orthographic camera, head towards it).
Both lengths are anatomical, so nothing is learnt from gaze labels. Within one look, a person and a
head turn, these angles follow the gaze about as well as an estimator's; their level differs by
person (standard deviation 4.8° of pitch) and by the head's pose, since the corners lie before the
centre of rotation: by −0.7° a degree of the head's pitch and −0.5° a degree of its yaw.
"""

import numpy as np
from numpy.typing import NDArray

from simgan_core.landmarks.model import Landmarks

IRIS_DIAMETER_MM = 11.7
"""Horizontal diameter of an adult's iris."""
IRIS_PATH_RADIUS_MM = 9.8
"""Distance of the iris' plane from the centre of rotation: 3.6 and 13.4 mm behind the cornea's
apex."""
LEVEL_IRIS_HEIGHT = 0.252
"""Height of the iris' centre above the midpoint of the corners at level gaze, in iris diameters, as
the shipped network finds them: the mean of 28 people of Columbia Gaze (standard deviation 0.07
between people); 0.252 on MPIIGaze's p00 as well. Simulators have 0.19 (SynthesEyes) to 0.22."""
_MAX_ANGLE_DEG = 40.0
"""Angles are limited to this: what is beyond it are misplaced landmarks."""


def gaze_from_landmarks(found: Landmarks) -> NDArray[np.float64]:
    """Return pitch and yaw [N, 2] in degrees of left eyes, relative to the camera.

    Signs are those of `simgan_core.gaze`. NaN where corners or iris were not found. The iris'
    diameter in pixels is the median of those images where they were: one scale is assumed.
    """
    points = found.points.astype(np.float64)
    corners, iris = points[:, :2], points[:, 3:5]
    is_found = found.confident & np.isfinite(points).all(axis=(1, 2))
    angles_deg = np.full((len(points), 2), np.nan)
    if not is_found.any():
        return angles_deg
    diameter_px = np.median(np.linalg.norm(iris[is_found, 1] - iris[is_found, 0], axis=1))
    displacement = (iris.mean(axis=1) - corners.mean(axis=1))[is_found] / diameter_px
    # Pixels count downwards, and a gaze to the image's right has a negative yaw.
    up, left = -displacement[:, 1] - LEVEL_IRIS_HEIGHT, -displacement[:, 0]
    sine = np.stack([up, left], axis=1) * (IRIS_DIAMETER_MM / IRIS_PATH_RADIUS_MM)
    limit = np.sin(np.radians(_MAX_ANGLE_DEG))
    angles_deg[is_found] = np.degrees(np.arcsin(sine.clip(-limit, limit)))
    return angles_deg
