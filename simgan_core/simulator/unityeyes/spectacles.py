"""Spectacles before an eye, and refraction by their lens, by numpy or torch.

A thin lens of power P, in 1/mm, shows what is behind it at another place: a point s mm behind its
plane is seen where the way from the optical centre to the point is stretched by 1 / (1 − P s). So a
minus lens makes an eye smaller and a plus lens larger, and both move what is aside of the optical
centre. Lines become lines: straight rays to these images are the bent rays to the points.

N scenes, K points; millimetres in the camera's frame, the camera at the origin.
"""

from dataclasses import dataclass

import numpy as np

from simgan_core.compute.array_api import Array, constant, library_of
from simgan_core.simulator.unityeyes.scenes import Glasses

_TEMPLE_END_MM = np.array([34.0, -6.0, 70.0])
"""End of a temple, from the hinge's height at the eyeball's centre, in the head's frame."""
LEAST_STRETCH = 0.2
"""Least 1 − P s: what is far behind a strong plus lens is seen at most five times as far away."""


@dataclass(frozen=True)
class Spectacles:
    """Spectacles before N eyes."""

    centre: Array
    """Middle of the lens [N, 3]."""
    axes: Array
    """Rows: the lens' right, down and into the scene [N, 3, 3]."""
    temple: Array
    """End of the temple behind the ear [N, 3]."""
    optical_centre: Array
    """Point of the lens that bends no ray [N, 3]."""
    power: Array
    """In 1/mm [N]; 0 where none are worn."""
    half_size: Array
    """[N, 2]."""
    exponent: Array
    """[N]."""

    def images(self, points: Array) -> Array:
        """Return where points [N, K, 3] behind the lens are seen through it."""
        away = points - self.optical_centre[:, None]
        behind = (away * self.axes[:, None, 2]).sum(axis=-1)
        xp = library_of(points)
        stretch = xp.clip(1 - self.power[:, None] * xp.clip(behind, min=0), min=LEAST_STRETCH)
        return self.optical_centre[:, None] + away / stretch[..., None]

    def contain(self, towards: Array) -> Array:
        """Return whether rays from the camera towards [N, K, 3] pass a lens that bends light."""
        away = self.met(towards) - self.centre[:, None]
        across = (away[..., None, :] * self.axes[:, None, :2]).sum(axis=-1)
        xp = library_of(towards)
        ratio = xp.abs(across) / self.half_size[:, None]
        outline = (ratio ** self.exponent[:, None, None]).sum(axis=-1)
        return (outline < 1) & (self.power != 0)[:, None]

    def met(self, towards: Array) -> Array:
        """Return where rays from the camera towards [N, K, 3] meet the lens' plane [N, K, 3]."""
        normal = self.axes[:, None, 2]
        offset = (self.centre[:, None] * normal).sum(axis=-1)
        return towards * (offset / (towards * normal).sum(axis=-1))[..., None]

    def seen(self, points: Array) -> Array:
        """Return points [N, K, 3], those behind the lens where it shows them."""
        images = self.images(points)
        return library_of(points).where(self.contain(images)[..., None], images, points)

    def bent(self, towards: Array) -> tuple[Array, Array, Array]:
        """Follow rays from the camera towards [N, K, 3] to what is behind the lens.

        Returns:
            Origins and unit directions [N, K, 3], and which rays pass the lens [N, K]; the others
            go on from the camera.
        """
        xp, normal = library_of(towards), self.axes[:, None, 2]
        passes = self.contain(towards)
        through = passes[..., None]
        origin = self.met(towards)
        slope = towards / (towards * normal).sum(axis=-1)[..., None]
        slope = slope - self.power[:, None, None] * (origin - self.optical_centre[:, None])
        direction = xp.where(through, slope, towards)
        direction = direction / xp.linalg.norm(direction, axis=-1)[..., None]
        return xp.where(through, origin, 0 * origin), direction, passes


def place_spectacles(glasses: Glasses, rotation: Array, eye: Array) -> Spectacles:
    """Place spectacles before eyes.

    Args:
        glasses: What is worn, in the head's frame.
        rotation: From the head's to the camera's frame [N, 3, 3].
        eye: Centres of the eyeballs [N, 3].
    """
    xp = library_of(eye)
    wrap, lean = glasses.tilt[:, 0], glasses.tilt[:, 1]
    none = xp.zeros_like(wrap)
    turn = xp.stack(
        [
            xp.stack([xp.cos(wrap), none, xp.sin(wrap)], axis=1),
            xp.stack([xp.sin(lean) * xp.sin(wrap), xp.cos(lean), -xp.sin(lean) * xp.cos(wrap)], 1),
            xp.stack([-xp.cos(lean) * xp.sin(wrap), xp.sin(lean), xp.cos(lean) * xp.cos(wrap)], 1),
        ],
        axis=1,
    )
    down = glasses.centre[:, 1] - 0.45 * glasses.half_size[:, 1]
    temple = constant(_TEMPLE_END_MM, eye) + xp.stack([none, down, none], axis=1)

    def to_camera(points: Array) -> Array:
        return (rotation * points[:, None]).sum(axis=-1)

    centre = eye + to_camera(glasses.centre)
    axes = (turn[:, :, None] * rotation[:, None]).sum(axis=-1)
    # Opticians fit the optical centre before the pupil of an eye that looks ahead.
    aside = xp.concat([glasses.decentring, none[:, None]], axis=1)
    start, ahead, normal = eye + to_camera(aside), -rotation[:, :, 2], axes[:, 2]
    far = ((centre - start) * normal).sum(axis=1) / (ahead * normal).sum(axis=1)
    return Spectacles(
        centre=centre,
        axes=axes,
        temple=eye + to_camera(temple),
        optical_centre=start + far[:, None] * ahead,
        power=xp.where(glasses.worn, glasses.power_dpt / 1000, 0 * glasses.power_dpt),
        half_size=glasses.half_size,
        exponent=glasses.exponent,
    )
