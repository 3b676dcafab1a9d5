"""Position of eyes in a dataset's images, found by the landmark network in any domain.

Labels would be more exact, but differ between sources (a caruncle's edge here, a corner's tip
there), and real images have none.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from simgan_core.landmarks.model import LandmarkModel
from storage.reader import Dataset

NUM_IMAGES = 256
"""Images looked at: the mean's error is then a sixteenth of the spread."""
_LEAST_FOUND = 0.5
"""Share of images with landmarks below which they show no eyes, or none that the network knows."""
_WIDTH_PX = 55
_TOLERATED_PX = 2.0
"""Difference of two datasets' mean midpoints, at a width of 55, above which they are cut otherwise:
the network's own mean error on renders that it was not trained on is up to 1.4 px."""
_TOLERATED_WIDTH = 0.1
"""Difference of their corners' distances, as a share; likewise."""


class EyePosition(BaseModel):
    """Mean and standard deviation over images, as shares of the image's width or height."""

    model_config = ConfigDict(frozen=True)

    num_images: int
    share_found: float
    """Share of the images in which both corners were found."""
    offset: tuple[float, float]
    """Midpoint of the corners less the image's middle: x to the right, share of the width, and y
    down, share of the height."""
    offset_sd: tuple[float, float]
    eye_width: float
    """Distance of the corners, share of the width."""
    eye_width_sd: float
    iris_width: float
    """Diameter of the iris, share of the width."""
    iris_width_sd: float

    def __str__(self) -> str:
        (x, y), (x_sd, y_sd) = self.offset, self.offset_sd
        return (
            f"eye, by the landmark network ({self.share_found:.0%} of {self.num_images} images): "
            f"midpoint of the corners {x:+.1%} ± {x_sd:.1%} of the width right and {y:+.1%} ± "
            f"{y_sd:.1%} of the height down of the middle; corner to corner {self.eye_width:.1%} ± "
            f"{self.eye_width_sd:.1%} of the width, iris {self.iris_width:.1%} ± "
            f"{self.iris_width_sd:.1%}"
        )


class CropDifference(BaseModel):
    """Shift to the right and down, and scale, of another dataset's eyes relative to these."""

    model_config = ConfigDict(frozen=True)

    right: float
    """Share of the width."""
    down: float
    """Share of the height."""
    eye_width: float
    """Of the corners' distance, as a share: 0.1 is a tenth wider."""
    iris_width: float
    """Of the iris' diameter, likewise."""
    warning: str
    """Empty where the crops agree."""

    def __str__(self) -> str:
        return (
            f"eyes lie {self.right:+.1%} of the width further right and {self.down:+.1%} of the "
            f"height further down, corners {self.eye_width:+.0%} and irises {self.iris_width:+.0%} "
            "wider"
        )


def eye_position(dataset: Dataset, model: LandmarkModel) -> EyePosition | None:
    """Measure the position of eyes; None if most images show none."""
    block = dataset.load_spread(NUM_IMAGES)
    height, width = block.images.shape[1:3]
    found = model.predict(block.images)
    confident = found.confident
    if confident.mean() < _LEAST_FOUND:
        return None
    points = found.points[confident].astype(np.float64)
    offset = points[:, :2].mean(axis=1) / [width, height] - 0.5
    widths = np.linalg.norm(points[:, [1, 4]] - points[:, [0, 3]], axis=2) / width
    (x, y), (x_sd, y_sd) = offset.mean(axis=0).tolist(), offset.std(axis=0).tolist()
    (eye, iris), (eye_sd, iris_sd) = widths.mean(axis=0).tolist(), widths.std(axis=0).tolist()
    return EyePosition(
        num_images=len(block.images),
        share_found=float(confident.mean()),
        offset=(x, y),
        offset_sd=(x_sd, y_sd),
        eye_width=eye,
        eye_width_sd=eye_sd,
        iris_width=iris,
        iris_width_sd=iris_sd,
    )


def crop_difference(one: EyePosition, other: EyePosition, aspect_ratio: float) -> CropDifference:
    """Compare two datasets; `aspect_ratio` is the other images' height over their width."""
    right, down = (b - a for a, b in zip(one.offset, other.offset, strict=True))
    eye_width = other.eye_width / one.eye_width - 1
    far = [
        f"{abs(shift) * _WIDTH_PX:.1f} px further {way[shift < 0]}"
        for shift, way in ((right, ("right", "left")), (down * aspect_ratio, ("down", "up")))
        if abs(shift) * _WIDTH_PX > _TOLERATED_PX
    ]
    if abs(eye_width) > _TOLERATED_WIDTH:
        far.append(f"{abs(eye_width):.0%} {'wider' if eye_width > 0 else 'narrower'}")
    warning = (
        f"the other dataset's eyes lie {' and '.join(far)} (at a width of {_WIDTH_PX} px, where a "
        "pixel is about 3° of gaze): ingest both with one rule, such as --crop landmarks"
        if far
        else ""
    )
    return CropDifference(
        right=right,
        down=down,
        eye_width=eye_width,
        iris_width=other.iris_width / one.iris_width - 1,
        warning=warning,
    )
