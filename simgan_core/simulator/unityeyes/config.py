"""Parameters of the UnityEyes simulator, in UnityEyes' own terms where it has them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from simgan_core.config import Config

Range = tuple[float, float]


class UnityEyesConfig(Config):
    """Sampling ranges of the UnityEyes simulator."""

    distribution: Literal["uniform", "normal"] = "uniform"
    """Distribution of eye and camera angles. uniform: over centre ± range, as in UnityEyes; normal:
    with half the range as standard deviation, cut off at the range."""
    eye_pitch_deg: float = Field(default=0.0, ge=-40, le=40)
    """Centre of the eyeball's pitch in the head, degrees; positive looks up."""
    eye_yaw_deg: float = Field(default=0.0, ge=-40, le=40)
    """Centre of the eyeball's yaw, degrees; positive looks to the image's left."""
    eye_pitch_range_deg: float = Field(default=30.0, ge=0, le=40)
    """Range of the eyeball's pitch on either side of its centre, degrees (UnityEyes: 30)."""
    eye_yaw_range_deg: float = Field(default=30.0, ge=0, le=45)
    """Range of the eyeball's yaw (UnityEyes: 30)."""
    camera_pitch_deg: float = Field(default=0.0, ge=-60, le=60)
    """Centre of the head's pitch as the camera sees it, degrees; positive faces up."""
    camera_yaw_deg: float = Field(default=0.0, ge=-60, le=60)
    """Centre of the head's yaw, degrees; positive faces the image's left."""
    camera_pitch_range_deg: float = Field(default=20.0, ge=0, le=45)
    """Range of the head's pitch on either side of its centre, degrees (UnityEyes: 20)."""
    camera_yaw_range_deg: float = Field(default=40.0, ge=0, le=60)
    """Range of the head's yaw (UnityEyes: 40)."""
    roll_deg: float = Field(default=2.5, ge=0, le=30)
    """Standard deviation of the head's roll, degrees, cut off at twice that (UnityEyes: 0)."""
    distance_mm: Range = (300.0, 900.0)
    """Distance of the camera from the eyeball's centre, in mm."""
    kappa_yaw_deg: float = Field(default=5.0, ge=-10, le=10)
    """Angle from the optical to the visual axis towards the nose, degrees."""
    kappa_pitch_deg: float = Field(default=-1.5, ge=-5, le=5)
    """Angle from the optical to the visual axis upwards, degrees."""
    gaze_axis: Literal["optical", "visual"] = "optical"
    """Axis of the gaze label; UnityEyes' is the optical one."""

    num_skins: int | None = Field(default=None, ge=1)
    """Number of skins to use, the first by name; by default all."""
    shape_spread: float = Field(default=1.5, ge=0, le=2)
    """Standard deviation of the shape model's coefficients, in units of UnityEyes'; draws are cut
    off at 2 standard deviations. Estimators have lower errors on real people the more shapes
    vary."""
    lid_width: Range = (0.9, 1.06)
    """Stretch of the lids' opening, drawn for either side of the iris; real eyes are wider relative
    to their iris than UnityEyes'."""
    outer_corner_mm: Range = (3.0, 7.5)
    """Shift of the outer corner from UnityEyes' place along the eyeball's side, in mm; real irises
    lie midway between the corners, UnityEyes' (0) nearer to the outer one."""
    squint_share: float = Field(default=0.12, ge=0, le=1)
    """Share of eyes with lids half closed."""
    closing_deg: Range = (-3.0, 13.0)
    """Extra rotation of the upper lid compared with UnityEyes, degrees; positive closes. The lids
    of real eyes at rest cover the upper rim of the iris, UnityEyes' do not."""
    iris_size: Range = (0.9, 1.0)
    """Radius of the iris in units of 5.87 mm (UnityEyes: 0.9 to 1)."""
    pupil_size: Range = (0.1, 0.8)
    """Size of the pupil on UnityEyes' scale: its radius is 1.1 mm + 2.4 mm times this."""
    refractive_index: Range = (1.25, 1.36)
    """Refractive index of the cornea (UnityEyes: 1.2 to 1.3)."""

    num_lights: tuple[int, int] = (1, 3)
    """Number of lamps or windows, besides the sky."""
    light_over_ambient: Range = (0.4, 2.2)
    """Irradiance of all lamps together, in units of the sky's."""
    brightness: Range = (0.28, 0.68)
    """Exposure: grey level of the skin, 0 to 1."""
    tint: float = Field(default=0.15, ge=0, le=0.5)
    """Largest departure of a lamp's or the sky's colour from white."""
    skin_tint: float = Field(default=0.35, ge=0, le=1)
    """Largest darkening of skins towards darker complexions; 0 leaves them as scanned."""
    glasses_share: float = Field(default=0.2, ge=0, le=1)
    """Share of people who wear glasses."""
    lens_power_dpt: Range = (-6.0, 3.0)
    """Power of the lenses of glasses, dioptres; negative ones make eyes smaller. 0 0: flat
    glass."""
    makeup_share: float = Field(default=0.15, ge=0, le=1)
    """Share of people with eyeliner or eyeshadow."""
    lash_length: Range = (0.6, 1.1)
    """Length of the lashes in units of UnityEyes'."""

    @model_validator(mode="after")
    def _require_ranges(self) -> Self:
        limits = {
            "distance_mm": (60, 1e5), "lid_width": (0.8, 1.6), "iris_size": (0.7, 1.2),
            "pupil_size": (0, 1.2), "refractive_index": (1, 1.5), "num_lights": (1, 4),
            "light_over_ambient": (0, 20), "brightness": (0.02, 0.95), "lash_length": (0, 2),
            "lens_power_dpt": (-10, 6), "closing_deg": (-15, 20), "outer_corner_mm": (0, 10),
        }  # fmt: skip
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} should be two numbers in order, from {least:g} to {most:g}, "
                    f"found {low:g} and {high:g}"
                )
        return self
