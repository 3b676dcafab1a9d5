"""UnityEyes' eyeball: two spheres, an iris behind a refracting cornea; millimetres.

The sclera is a sphere round the origin; the cornea is the part of a smaller sphere that bulges out
of it round the optical axis. Measured on the assets' `eyeball.3ds`.

The conjunctiva is ours: the white of the eye goes on to an outer corner beyond the eyeball's side.
It is the surface of a capsule, the sphere swept along a tangent, which does not turn with the gaze.
"""

import numpy as np

from simgan_core.compute.array_api import Array, constant, library_of

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
TEMPLE_WAY = np.array([-np.sqrt(0.5), 0.0, -np.sqrt(0.5)])
"""Way of the conjunctiva to the outer corner, in the face's frame: a tangent of the eyeball 45°
from straight ahead."""


def surface_radius(directions: Array, gaze: Array, conjunctiva_mm: Array) -> Array:
    """Return the distance [..., K] of the eye's surface from the eyeball's centre, in mm.

    Args:
        directions: Unit vectors [..., K, 3] from the centre, in the face's frame.
        gaze: Optical axes [..., 3] in the same frame.
        conjunctiva_mm: Length of the conjunctiva's capsule [...]; 0 for the eyeball alone.
    """
    xp = library_of(directions)
    cosine = (directions * gaze[..., None, :]).sum(axis=-1)
    inside = xp.clip(CORNEA_RADIUS_MM**2 - CORNEA_CENTRE_MM**2 * (1 - cosine**2), min=0)
    cornea = xp.where(cosine > 0.8, CORNEA_CENTRE_MM * cosine + xp.sqrt(inside), 0)
    return xp.maximum(_conjunctiva_radius(directions, conjunctiva_mm[..., None]), cornea)


def _conjunctiva_radius(directions: Array, length: Array) -> Array:
    """Return the distance [..., K] of a capsule's surface from the middle of its inner end."""
    xp = library_of(directions)
    along = xp.clip((directions * constant(TEMPLE_WAY, directions)).sum(axis=-1), min=0)
    across = xp.clip(1 - along**2, min=1e-9)
    side = SCLERA_RADIUS_MM / xp.sqrt(across)
    end = length * along + xp.sqrt(xp.clip(SCLERA_RADIUS_MM**2 - length**2 * across, min=0))
    return xp.where(side * along < length, side, end)


def iris_ring(axes: Array, iris_size: Array, num_points: int = 32) -> Array:
    """Return points of the limbus [N, num_points, 3], in mm from the eyeball's centre.

    Args:
        axes: Rows are the eye's right, down and forward directions [N, 3, 3].
        iris_size: Radius of the iris in units of `IRIS_RADIUS_MM` [N].
    """
    angle = constant(np.arange(num_points) * (2 * np.pi / num_points), axes)[:, None]
    radius = (IRIS_RADIUS_MM * iris_size)[:, None]
    depth = limbus_depth(iris_size)[:, None, None]
    right, down, forward = (axes[:, None, axis] for axis in range(3))
    xp = library_of(axes)
    across = xp.cos(angle) * right + xp.sin(angle) * down
    return depth * forward + radius[..., None] * across


def limbus_depth(iris_size: Array) -> Array:
    """Return how far the limbus is along the optical axis, on the eyeball's surface [N], in mm."""
    radius = IRIS_RADIUS_MM * iris_size
    xp = library_of(radius)
    sclera = xp.sqrt(SCLERA_RADIUS_MM**2 - radius**2)
    cornea = CORNEA_CENTRE_MM + xp.sqrt(xp.clip(CORNEA_RADIUS_MM**2 - radius**2, min=0))
    return xp.where(radius < CORNEA_EDGE_MM, xp.maximum(sclera, cornea), sclera)


def refracted_to_iris(
    origin: Array, direction: Array, axis: Array, refractive_index: Array
) -> tuple[Array, Array]:
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
    xp = library_of(origin)
    to_centre = CORNEA_CENTRE_MM * axis - origin
    along = (direction * to_centre).sum(axis=1)
    under_root = along**2 - (to_centre**2).sum(axis=1) + CORNEA_RADIUS_MM**2
    entry = origin + direction * (along - xp.sqrt(xp.clip(under_root, min=0)))[:, None]
    enters = (under_root > 0) & ((entry * axis).sum(axis=1) > CORNEA_EDGE_DEPTH_MM)
    normal = (entry - CORNEA_CENTRE_MM * axis) / CORNEA_RADIUS_MM
    ratio = 1 / refractive_index
    cosine = -(direction * normal).sum(axis=1)
    bend = ratio * cosine - xp.sqrt(xp.clip(1 - ratio**2 * (1 - cosine**2), min=0))
    bent = xp.where(enters[:, None], ratio[:, None] * direction + bend[:, None] * normal, direction)
    start = xp.where(enters[:, None], entry, origin)
    depth = IRIS_DEPTH_MM - (start * axis).sum(axis=1)
    return start + bent * (depth / (bent * axis).sum(axis=1))[:, None], enters
