"""UnityEyes' eyeball: two spheres, an iris behind a refracting cornea; millimetres.

The sclera is a sphere round the origin; the cornea is the part of a smaller sphere that bulges out
of it round the optical axis. Measured on the assets' `eyeball.3ds`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SCLERA_RADIUS_MM = 12.053
CORNEA_CENTRE_MM = 5.4185
"""Distance of the cornea's centre from the eyeball's, along the optical axis."""
CORNEA_RADIUS_MM = 7.6228
CORNEA_EDGE_MM = 5.43
"""Distance from the axis at which the two spheres meet."""
CORNEA_EDGE_DEPTH_MM = 10.0
"""The cornea's cap is farther along the axis than this."""
IRIS_DEPTH_MM = 10.752
"""Distance of the iris' plane from the eyeball's centre."""
IRIS_RADIUS_MM = 5.87
"""Radius of the limbus at `iris_size` 1."""
TEXTURE_PUPIL_MM, TEXTURE_IRIS_MM = 2.85, 5.87
"""Radii of pupil and limbus in the iris textures."""
TEXTURE_PER_MM = 0.0235929
"""Textures are orthographic: u, v = 0.5 + this · (x, y)."""


def surface_radius(directions: Floats, gaze: Floats) -> Floats:
    """Return the distance [..., K] of the eyeball's surface from its centre, in mm.

    Args:
        directions: Unit vectors [..., K, 3] from the centre.
        gaze: Optical axes [..., 3] in the same frame.
    """
    cosine = (directions * gaze[..., None, :]).sum(axis=-1)
    inside = np.maximum(CORNEA_RADIUS_MM**2 - CORNEA_CENTRE_MM**2 * (1 - cosine**2), 0)
    cornea = np.where(cosine > 0.8, CORNEA_CENTRE_MM * cosine + np.sqrt(inside), 0)
    return np.maximum(SCLERA_RADIUS_MM, cornea)


def iris_ring(axes: Floats, iris_size: Floats, num_points: int = 32) -> Floats:
    """Return points of the limbus [N, num_points, 3], in mm from the eyeball's centre.

    Args:
        axes: Rows are the eye's right, down and forward directions [N, 3, 3].
        iris_size: Radius of the iris in units of `IRIS_RADIUS_MM` [N].
    """
    angle = np.arange(num_points) * (2 * np.pi / num_points)
    radius = (IRIS_RADIUS_MM * iris_size)[:, None]
    depth = limbus_depth(iris_size)[:, None, None]
    right, down, forward = (axes[:, None, axis] for axis in range(3))
    across = np.cos(angle)[:, None] * right + np.sin(angle)[:, None] * down
    return np.asarray(depth * forward + radius[..., None] * across)


def limbus_depth(iris_size: Floats) -> Floats:
    """Return how far the limbus is along the optical axis, on the eyeball's surface [N], in mm."""
    radius = IRIS_RADIUS_MM * iris_size
    sclera = np.sqrt(SCLERA_RADIUS_MM**2 - radius**2)
    cornea = CORNEA_CENTRE_MM + np.sqrt(np.maximum(CORNEA_RADIUS_MM**2 - radius**2, 0))
    return np.asarray(np.where(radius < CORNEA_EDGE_MM, np.maximum(sclera, cornea), sclera))


def refracted_to_iris(
    origin: Floats, direction: Floats, axis: Floats, refractive_index: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Follow rays through the cornea to the plane of the iris.

    Args:
        origin: Where the rays begin [N, 3], from the eyeball's centre, in mm.
        direction: Unit vectors [N, 3].
        axis: Optical axes [N, 3].
        refractive_index: Of the cornea and what is behind it [N].

    Returns:
        The points met [N, 3], and whether the ray enters by the cornea [N]; where it does not, the
        point is that of the unbent ray on the plane.
    """
    to_centre = CORNEA_CENTRE_MM * axis - origin
    along = (direction * to_centre).sum(axis=1)
    under_root = along**2 - (to_centre**2).sum(axis=1) + CORNEA_RADIUS_MM**2
    entry = origin + direction * (along - np.sqrt(np.maximum(under_root, 0)))[:, None]
    enters = (under_root > 0) & ((entry * axis).sum(axis=1) > CORNEA_EDGE_DEPTH_MM)
    normal = (entry - CORNEA_CENTRE_MM * axis) / CORNEA_RADIUS_MM
    ratio = 1 / refractive_index
    cosine = -(direction * normal).sum(axis=1)
    bend = ratio * cosine - np.sqrt(np.maximum(1 - ratio**2 * (1 - cosine**2), 0))
    bent = np.where(enters[:, None], ratio[:, None] * direction + bend[:, None] * normal, direction)
    start = np.where(enters[:, None], entry, origin)
    depth = IRIS_DEPTH_MM - (start * axis).sum(axis=1)
    return start + bent * (depth / (bent * axis).sum(axis=1))[:, None], enters
