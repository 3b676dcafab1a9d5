"""Shading of skin, eyeball, lashes and glasses, pixel by pixel.

Radiance is linear: 1 is a white surface in full light. A light's direction points toward it:
x right, y down, z **toward the camera**; everything else is in the frame of `geometry`.
Edges are smoothed over a pixel's width from their distance: a quarter of what 2×2 samples cost.
"""

from dataclasses import dataclass

import numpy as np

from simgan_core.simulator import geometry
from simgan_core.simulator.geometry import FloatArray, Traits


@dataclass(frozen=True)
class Patch:
    """Part of N scenes that is shaded at once; lengths in mm."""

    traits: Traits
    """Numbers of the scenes, each [N, 1, 1]."""
    x: FloatArray
    """Columns [N, 1, W], evenly spaced."""
    y: FloatArray
    """Rows [N, H, 1], spaced like the columns."""
    upper: FloatArray
    """y of the upper lid's margin at the columns [N, 1, W]."""
    lower: FloatArray
    """y of the lower lid's margin at the columns [N, 1, W]."""
    upper_fold: FloatArray
    """y of the line along which the upper lid's skin folds [N, 1, W]."""
    lower_fold: FloatArray
    """y of the line along which the lower lid's skin folds [N, 1, W]."""
    pixel_mm: FloatArray
    """Side of a pixel [N, 1, 1]."""

    @property
    def above(self) -> FloatArray:
        """Height over the upper margin [N, H, W]."""
        return self.upper - self.y

    @property
    def below(self) -> FloatArray:
        """Depth under the lower margin [N, H, W]."""
        return self.y - self.lower


def place_patch(
    traits: Traits, view: geometry.View, rows: FloatArray, columns: FloatArray
) -> Patch:
    """Return the patch at pixel positions, rows [H] and columns [W], of scenes' traits [N]."""
    spread = {name: values[:, None, None] for name, values in traits.items()}
    x, y = view.pixel_grid(rows, columns)
    upper, lower = geometry.lid_margins(spread, x)
    upper_fold, lower_fold = geometry.lid_folds(spread, x)
    pixel_mm = (1 / view.scale)[:, None, None]
    return Patch(spread, x, y, upper, lower, upper_fold, lower_fold, pixel_mm)


def shade_eye(patch: Patch, mottling: FloatArray) -> FloatArray:
    """Return the radiance [N, H, W] of the whole scene; mottling [N, H, W] of skin is around 0."""
    skin = shade_skin(patch) * (1 + patch.traits["skin_texture"] * mottling)
    eyeball = _eyeball(patch)
    radiance = skin + _opening(patch) * (eyeball - skin)
    return _behind_glasses(patch, radiance * _through_lashes(patch) * illumination(patch))


def shade_skin(patch: Patch) -> FloatArray:
    """Return the radiance [N, H, W] of skin and brow, as if the eye were shut along its margins."""
    traits, x, y = patch.traits, patch.x, patch.y
    relief = _skin_relief(patch)
    step = x[:, :, 1:2] - x[:, :, :1]
    slope_x, slope_y = np.gradient(relief, axis=2) / step, np.gradient(relief, axis=1) / step
    lit = traits["light_z"] - slope_x * traits["light_x"] - slope_y * traits["light_y"]
    lambert = np.maximum(lit, 0) / np.sqrt(1 + slope_x**2 + slope_y**2)
    light = traits["ambient"] + (1 - traits["ambient"]) * lambert
    crease = traits["crease_depth"] * _bump((patch.upper_fold - y - traits["crease_mm"]) / 0.8)
    furrow = 0.4 * traits["bag_depth"] * _bump((y - patch.lower_fold - 5.0) / 1.0)
    moist_edge = traits["moist_edge"] * _bump((patch.below - 0.5) / 0.5)
    folds = 1 - _near_lids(patch) * (crease + furrow - moist_edge)
    brow_y = -traits["brow_mm"] + 0.006 * (x - 2) ** 2 - 0.06 * x
    brow = 1 - traits["brow_darkness"] * _bump((y - brow_y) / 2.4) * _bump((x - 2) / 13)
    return traits["skin_albedo"] * light * folds * brow


def illumination(patch: Patch) -> FloatArray:
    """Return the light's strength [N, H, W] over the picture.

    A slope, a soft-edged shadow over one side, and the shade in which deep-set eyes lie.
    """
    traits, x, y = patch.traits, patch.x, patch.y
    slope_x, slope_y = traits["light_slope_x"], traits["light_slope_y"]
    slope = np.exp(slope_x * np.tanh(x / 20)) * np.exp(slope_y * np.tanh(y / 13))
    place = x * np.cos(traits["shadow_angle"]) + y * np.sin(traits["shadow_angle"])
    shadow = _sigmoid((place - traits["shadow_edge_mm"]) / traits["shadow_blur_mm"])
    socket = _bump(x / 16.0) * _bump((y + 2.0) / 8.0)
    return slope * (1 - traits["side_shadow"] * shadow) * (1 - traits["socket_shade"] * socket)


def _skin_relief(patch: Patch) -> FloatArray:
    """Return the skin's relief [N, H, W] in mm toward the camera."""
    traits, x, y = patch.traits, patch.x, patch.y
    dome = 5.0 * _bump(x / 13.5) * _bump((y - 1.5) / 10.5)
    over = patch.upper_fold - y - traits["crease_mm"]
    under = y - patch.lower_fold
    socket = -traits["socket_depth_mm"] * _bump((over - 2.5) / 2.8)
    bag = _bump((under - 2.5) / 1.8) - _bump((under - 6.5) / 2.4)
    brow = 3.0 * _sigmoid((-y - 12.0) / 2.5)
    nose = 7.0 * _sigmoid((0.3 * y - x - 23.0) / 5.0)
    cheek = 2.0 * _sigmoid((y - 13.0) / 3.0)
    lids = _near_lids(patch) * (socket + 2.2 * traits["bag_depth"] * bag)
    return np.asarray(dome + lids + brow + nose + cheek)


def _opening(patch: Patch) -> FloatArray:
    """Return how far each pixel lies between the margins, 0 to 1 [N, H, W]."""
    inside = np.minimum(
        -patch.above / _slant(patch, patch.upper), -patch.below / _slant(patch, patch.lower)
    )
    # Beyond the corners the margins coincide: half covered edges would draw a line there.
    height = np.clip((patch.lower - patch.upper) / patch.pixel_mm, 0, 1)
    return _inside(inside, patch.pixel_mm) * height


def _slant(patch: Patch, margin: FloatArray) -> FloatArray:
    """Return vertical over perpendicular distance to a margin [N, 1, W], from its slope."""
    step = patch.x[:, :, 1:2] - patch.x[:, :, :1]
    return np.asarray(np.sqrt(1 + (np.gradient(margin, axis=2) / step) ** 2))


def _eyeball(patch: Patch) -> FloatArray:
    """Return the radiance [N, H, W] of sclera, iris, pupil, caruncle and their reflections.

    Each pixel's ray meets the eyeball's sphere and the plane of the iris's disc; the disc is seen
    where the ray passes it within the iris's radius.
    """
    traits = patch.traits
    distance, angle = _on_iris_plane(patch)
    iris = _iris_albedo(traits, distance, angle)
    pupil = _inside(traits["pupil_radius_mm"] - distance, patch.pixel_mm)
    iris = iris + pupil * (traits["pupil_albedo"] - iris)
    limbus_mm = patch.pixel_mm + traits["limbus_blur_mm"]
    limbus = _inside(traits["iris_radius_mm"] - distance, limbus_mm)
    # The darkness of the corners comes by itself: both lids are near there.
    shadow = 1 - traits["lid_shadow"] * np.exp(np.minimum(patch.above, 0) / 1.8)
    white_shadow = 1 - traits["corner_shadow"] * np.exp(np.minimum(patch.below, 0) / 1.5)
    white = traits["sclera_albedo"] * white_shadow
    white = white + _caruncle(patch) * (0.7 * traits["skin_albedo"] - white)
    surface = (white + limbus * (iris - white)) * _eyeball_light(patch)
    return (surface + limbus * _reflections(patch)) * shadow


def _eyeball_light(patch: Patch) -> FloatArray:
    """Return the diffuse light on the eyeball's sphere [N, H, W]; its rim goes on level."""
    traits, x, y = patch.traits, patch.x, patch.y
    depth = np.sqrt(np.maximum(geometry.EYEBALL_RADIUS_MM**2 - x**2 - y**2, 4.0))
    toward_light = x * traits["light_x"] + y * traits["light_y"] + depth * traits["light_z"]
    lambert = np.maximum(toward_light, 0) / geometry.EYEBALL_RADIUS_MM
    return traits["ambient"] + (1 - traits["ambient"]) * lambert


def _on_iris_plane(patch: Patch) -> tuple[FloatArray, FloatArray]:
    """Return distance (mm) from the iris's centre and angle where rays meet its plane [N, H, W]."""
    gaze_x, gaze_y, gaze_z = (patch.traits[f"gaze_{axis}"] for axis in "xyz")
    across = patch.x - geometry.IRIS_DEPTH_MM * gaze_x
    down = patch.y - geometry.IRIS_DEPTH_MM * gaze_y
    inward = -(across * gaze_x + down * gaze_y) / gaze_z
    return np.sqrt(across**2 + down**2 + inward**2), np.arctan2(down, across)


def _iris_albedo(traits: Traits, distance: FloatArray, angle: FloatArray) -> FloatArray:
    """Return the iris's reflectance [N, H, W]: fibres, a pale collar, a darker rim."""
    share = distance / traits["iris_radius_mm"]
    phase = traits["fibre_phase"]
    fibres = np.cos(5 * angle + phase) + np.cos(11 * angle + 3 * phase + 4 * share)
    fibres = fibres + np.cos(17 * angle - 5 * phase)
    collar_share = traits["pupil_radius_mm"] / traits["iris_radius_mm"] + 0.12
    collar = _bump((share - collar_share) / 0.12)
    pattern = 1 + traits["iris_contrast"] * (0.25 * fibres + 0.8 * collar)
    rim = 1 - traits["limbal_ring"] * np.clip((share - 0.72) / 0.25, 0, 1)
    return traits["iris_albedo"] * pattern * rim


def _reflections(patch: Patch) -> FloatArray:
    """Return what the cornea mirrors: the main light as a square, a screen as a pale veil."""
    traits = patch.traits
    normal_x = (patch.x - geometry.CORNEA_DEPTH_MM * traits["gaze_x"]) / geometry.CORNEA_RADIUS_MM
    normal_y = (patch.y - geometry.CORNEA_DEPTH_MM * traits["gaze_y"]) / geometry.CORNEA_RADIUS_MM
    off_light = np.maximum(np.abs(normal_x - traits["half_x"]), np.abs(normal_y - traits["half_y"]))
    glint = traits["glint"] * _inside(traits["glint_size"] - off_light, 0.08)
    off_screen = np.maximum(np.abs(normal_x - traits["screen_x"]) * 0.8, np.abs(normal_y - 0.15))
    return glint + traits["screen_veil"] * _inside(0.35 - off_screen, 0.2)


def _caruncle(patch: Patch) -> FloatArray:
    """Return the share [N, 1, W] of flesh rather than white, which grows into the inner corner."""
    inner_x = -patch.traits["inner_share"] * patch.traits["eye_width_mm"]
    return _sigmoid((inner_x + 2.4 - patch.x) / 0.5)


def _through_lashes(patch: Patch) -> FloatArray:
    """Return the share of light [N, H, W] that lashes and the upper lid's dark edge let through."""
    traits, x, above, below = patch.traits, patch.x, patch.above, patch.below
    # Upper lashes fan out: their roots' phase is shifted outward with height.
    roots = x - 0.05 * above * x
    strands = 0.75 + 0.25 * np.cos(traits["lash_phase"] + 3.6 * roots)
    reach = np.clip(1 - above / traits["lash_mm"], 0, 1) * _inside(above + 0.5, 0.8)
    edge = _bump((above + 0.1) / traits["lid_edge_mm"])
    # Lashes and the margin's dark line end with the opening; a faint fold goes on past the corners.
    opening = np.clip((patch.lower - patch.upper) / 2.0, 0, 1)
    near = _near_lids(patch) * (0.25 + 0.75 * opening)
    upper = traits["lash_darkness"] * near * np.maximum(edge, reach * strands)
    lower_strands = 0.85 + 0.15 * np.cos(traits["lash_phase"] + 2.6 * x)
    lower_reach = np.clip(1 - below / 1.6, 0, 1) * _inside(below + 0.2, 0.8)
    lower = 0.3 * traits["lash_darkness"] * near * lower_reach * lower_strands
    return np.asarray((1 - upper) * (1 - lower))


def _behind_glasses(patch: Patch, radiance: FloatArray) -> FloatArray:
    """Return the radiance seen through a pair of glasses by those who wear them."""
    traits, x, y = patch.traits, patch.x, patch.y
    half_width, half_height = 25.0, 19.0
    across = (x - 3.0) / half_width
    down = (y + traits["lens_top_mm"] - half_height) / half_height + 0.05 * across
    outline = (np.sqrt(np.sqrt(across**4 + down**4)) - 1) * half_height
    glare_edge = x * np.cos(traits["glare_angle"]) + y * np.sin(traits["glare_angle"])
    glare = _inside(glare_edge - traits["glare_edge_mm"], traits["glare_blur_mm"]) * (outline < 0)
    veiled = radiance + traits["has_glasses"] * traits["lens_glare"] * glare
    rim = traits["has_glasses"] * _inside(traits["rim_mm"] / 2 - np.abs(outline), patch.pixel_mm)
    return np.asarray(veiled + rim * (traits["rim_radiance"] - veiled))


def _near_lids(patch: Patch) -> FloatArray:
    """Return 1 along the lids, fading to 0 beyond their corners [N, 1, W]."""
    traits = patch.traits
    centre = (0.5 - traits["inner_share"]) * traits["eye_width_mm"]
    across = (patch.x - centre) / (0.65 * traits["eye_width_mm"])
    return _decay(across**4)


def _inside(distance: FloatArray, passage: float | FloatArray) -> FloatArray:
    """Return coverage 0 to 1 of a shape from signed distance (positive inside) and edge width."""
    return np.asarray(np.clip(distance / passage + 0.5, 0, 1))


def _bump(distance: FloatArray) -> FloatArray:
    return _decay(0.5 * distance**2)


def _decay(exponent: FloatArray) -> FloatArray:
    # Beyond e⁻³⁰ nothing is visible, and near e⁻⁹⁰ float32 turns subnormal, a hundred times slower.
    return np.asarray(np.exp(-np.minimum(exponent, 30)))


def _sigmoid(value: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -30, 30))))
