"""Scenes placed before their cameras: geometry, framing and labels, by numpy or torch.

N scenes, V vertices of the skin's mesh. Arrays are numpy's or tensors, all of one library; points
are in the camera's frame, millimetres, x right, y down, z into the scene.
"""

from dataclasses import dataclass
from typing import NamedTuple

from simgan_core.compute.array_api import Array, constant, library_of
from simgan_core.simulator.unityeyes import eyeball
from simgan_core.simulator.unityeyes.assets import Assets, skirt
from simgan_core.simulator.unityeyes.eyelids import lash_strip, pose_lids, shape_vertices
from simgan_core.simulator.unityeyes.scenes import Scenes
from simgan_core.simulator.unityeyes.spectacles import Spectacles, place_spectacles
from simgan_core.simulator.unityeyes.views import (
    CROP_EYE_WIDTHS,
    Framing,
    View,
    corners_view,
    crop_view,
    frame_view,
)

_REFRACTION_STEPS = 8


class Picture(NamedTuple):
    """Format of rendered pictures."""

    framing: Framing
    height: int
    """In pixels."""
    width: int
    samples: int = 2
    """Samples of a pixel, each way."""
    eye_widths: float = CROP_EYE_WIDTHS
    """Width of a crop in widths of the eye, as the framing measures them."""


@dataclass(frozen=True)
class Labels:
    """Labels of N pictures; points in pixels, (0, 0) the top-left corner.

    Points behind the lens of glasses are where it shows them.
    """

    gaze: Array
    """Optical axis, unit vectors [N, 3]: x right, y down, z into the scene."""
    visual_axis: Array
    """Line of sight [N, 3]."""
    head_rotation: Array
    """From the head's to the camera's frame [N, 3, 3]; the unit matrix faces the camera."""
    pupil_px: Array
    """Pupil centre as seen through the cornea [N, 2], also where a lid hides it."""
    iris_px: Array
    """The iris' contour [N, 32, 2]."""
    lid_px: Array
    """The lids' margin [N, 16, 2]: from the inner corner over the upper to the outer and back."""
    caruncle_px: Array
    """The caruncle [N, 7, 2]."""
    corners_px: Array
    """Tip of the inner corner, and the outer corner [N, 2, 2]."""
    margin_corners_px: Array
    """Border of sclera and caruncle, and outer corner [N, 2, 2]."""
    eyeball_px: Array
    """Centre of the eyeball [N, 2]."""


@dataclass(frozen=True)
class Geometry:
    """Everything in the camera's frame."""

    skin: Array
    """[N, V, 3]."""
    lashes: Array
    """[N, 4, 78, 3]."""
    eye: Array
    """Centre of the eyeball [N, 3]."""
    axes: Array
    """Rows: the eye's right, down and forward [N, 3, 3]."""
    temple: Array
    """Way of the conjunctiva [N, 3]."""
    look_down: Array
    """Weight of the texture of a lid that looks down [N]."""
    spectacles: Spectacles


@dataclass(frozen=True)
class Placed:
    """Scenes ready to be rendered."""

    scenes: Scenes
    geometry: Geometry
    focal_px: Array
    """[N]."""
    centre_px: Array
    """Principal point [N, 2]."""
    labels: Labels


def place(assets: Assets, scenes: Scenes, picture: Picture) -> Placed:
    """Shape the eyes of scenes and place them before their cameras."""
    geometry = _geometry(assets, scenes)
    view = _view(assets, geometry, picture)
    labels = _labels(assets, geometry, scenes, view)
    return Placed(scenes, geometry, view.focal_px, view.centre_px, labels)


def _geometry(assets: Assets, scenes: Scenes) -> Geometry:
    xp = library_of(scenes.gaze)
    mean, components = constant(assets.mean, scenes.gaze), constant(assets.components, scenes.gaze)
    shape = shape_vertices(mean, components, scenes.coefficients)
    gaze = -scenes.gaze_in_head
    region = pose_lids(shape, gaze, scenes.lids)
    weights = constant(assets.weights, region.vertices)
    rendered = (region.vertices[:, assets.sources] * weights[..., None]).sum(axis=2)
    strips = xp.stack(
        [
            lash_strip(region.vertices, gaze, scenes.lash_length[:, 1 - upper],
                       scenes.lids.outer_corner_mm, upper=bool(upper), layer=layer)
            for upper in (1, 0)
            for layer in (0, 1)
        ],
        axis=1,
    ).reshape(len(scenes), 4, -1, 3)  # fmt: skip
    aside = xp.zeros_like(scenes.distance_mm)
    eye = xp.stack([aside, aside, scenes.distance_mm], axis=1)

    def to_camera(points: Array) -> Array:
        extra = (1,) * (points.ndim - 2)
        rotation = scenes.rotation.reshape(-1, *extra, 3, 3)
        turned = (rotation * points[..., None, :]).sum(axis=-1)
        return turned + eye.reshape(-1, *extra, 3)

    # From the face's frame to the head's all signs turn.
    skin = to_camera(skirt(-rendered, assets.rim))
    temple = -(scenes.rotation * constant(eyeball.TEMPLE_WAY, eye)).sum(axis=-1)
    forward = scenes.gaze
    right = xp.linalg.cross(scenes.rotation[:, :, 1], -forward)
    right = right / xp.linalg.norm(right, axis=1, keepdims=True)
    axes = xp.stack([right, xp.linalg.cross(-forward, right), forward], axis=1)
    spectacles = place_spectacles(scenes.glasses, scenes.rotation, eye)
    return Geometry(skin, to_camera(-strips), eye, axes, temple, region.look_down, spectacles)


def _view(assets: Assets, geometry: Geometry, picture: Picture) -> View:
    height, width = picture.height, picture.width
    if picture.framing == "frame":
        return frame_view(geometry.eye[:, 2], height, width)
    if picture.framing == "corners":
        return corners_view(_corners(assets, geometry), height, width, picture.eye_widths)
    seen = geometry.spectacles.seen
    margin = seen(geometry.skin[:, assets.margin])
    caruncle = seen(geometry.skin[:, assets.caruncle_vertices])
    return crop_view(margin, caruncle, height, width, picture.eye_widths)


def _corners(assets: Assets, geometry: Geometry) -> Array:
    """Return the tip of the inner corner, and the outer corner, as seen [N, 2, 3]."""
    tip = geometry.skin[:, assets.canthus].mean(axis=1)
    corners = library_of(tip).stack([tip, geometry.skin[:, assets.upper[-1]]], axis=1)
    return geometry.spectacles.seen(corners)


def _labels(assets: Assets, geometry: Geometry, scenes: Scenes, view: View) -> Labels:
    skin = geometry.skin
    iris = geometry.eye[:, None] + eyeball.iris_ring(geometry.axes, scenes.iris_size)

    def to_pixels(points: Array) -> Array:
        return view.to_pixels(geometry.spectacles.seen(points))

    return Labels(
        gaze=scenes.gaze,
        visual_axis=scenes.visual_axis,
        head_rotation=scenes.rotation,
        pupil_px=_seen_pupil(geometry, scenes, view),
        iris_px=to_pixels(iris),
        lid_px=to_pixels(skin[:, assets.margin]),
        caruncle_px=to_pixels(skin[:, assets.caruncle_vertices]),
        corners_px=view.to_pixels(_corners(assets, geometry)),
        margin_corners_px=to_pixels(skin[:, [assets.upper[0], assets.upper[-1]]]),
        eyeball_px=to_pixels(geometry.eye[:, None])[:, 0],
    )


def _seen_pupil(geometry: Geometry, scenes: Scenes, view: View) -> Array:
    """Return the pixels [N, 2] at which the pupil's centre is seen through cornea and lens."""
    xp = library_of(geometry.eye)
    axis = geometry.axes[:, 2]
    centre = geometry.eye + axis * eyeball.IRIS_DEPTH_MM
    aim = centre
    for _ in range(_REFRACTION_STEPS):
        origin, direction, _ = geometry.spectacles.bent(geometry.spectacles.seen(aim[:, None]))
        met, enters = eyeball.refracted_to_iris(
            origin[:, 0] - geometry.eye, direction[:, 0], axis, scenes.refractive_index
        )
        miss = met + geometry.eye - centre
        aim = xp.where(enters[:, None], aim - 0.8 * miss, aim)
    return view.to_pixels(geometry.spectacles.seen(aim[:, None]))[:, 0]
