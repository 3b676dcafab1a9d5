"""Dataset schema: shapes, label specs with unit and frame, provenance."""

import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Domain = Literal["synthetic", "real", "refined"]
Preprocess = Literal["none", "equalize"]
PixelType = Literal["uint8", "uint16"]


class Schema(BaseModel):
    """Base of all schemas: frozen, no unknown fields, field docstrings as descriptions.

    Numbers are finite, since JSON has no infinity and no NaN.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class LabelSpec(Schema):
    """Label spec: shape and meaning of a label's numbers."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the array under `labels/`."""
    shape: tuple[int, ...]
    """Shape of one sample's label."""
    unit: str
    """Unit of the numbers; "1" for pure ones."""
    frame: str
    """Frame of reference: the axes and their directions."""
    description: str
    """Meaning of the label and how it is found."""


_CAMERA = "camera: x right, y down, z into the scene"
_PIXELS = "image: x right, y down, origin top left, centre of the first pixel at (0.5, 0.5)"

GAZE = LabelSpec(
    name="gaze",
    shape=(3,),
    unit="1",
    frame=_CAMERA,
    description="Unit vector from the eye along its line of sight; z = -1 looks into the camera.",
)
HEAD_POSE = LabelSpec(
    name="head_pose",
    shape=(3,),
    unit="rad",
    frame=_CAMERA,
    description=(
        "Pitch (positive: faces up), yaw (positive: faces the image's left), as a gaze has them, "
        "and roll (positive: clockwise in the image), rolled first; 0, 0, 0 faces the camera."
    ),
)
PUPIL_PX = LabelSpec(
    name="pupil_px",
    shape=(2,),
    unit="px",
    frame=_PIXELS,
    description="Centre x, y of the pupil; where a source has the iris alone, of its contour.",
)
IRIS_PX = LabelSpec(
    name="iris_px",
    shape=(32, 2),
    unit="px",
    frame=_PIXELS,
    description="Points x, y along the contour of the iris, also where lids cover it.",
)
LID_PX = LabelSpec(
    name="lid_px",
    shape=(16, 2),
    unit="px",
    frame=_PIXELS,
    description="Points x, y along the inner margin of both lids: the outline of the open eye.",
)

CORNERS_PX = LabelSpec(
    name="corners_px",
    shape=(2, 2),
    unit="px",
    frame=_PIXELS,
    description="Points x, y: the tip of the inner corner, beyond the caruncle, and the outer one.",
)
LANDMARKS_PX = LabelSpec(
    name="landmarks_px",
    shape=(5, 2),
    unit="px",
    frame=_PIXELS,
    description=(
        "Points x, y as estimated in the image: the left and the right corner of the eye, the "
        "pupil, the left and the right end of the iris; NaN where they were not found."
    ),
)
VISUAL_AXIS = LabelSpec(
    name="visual_axis",
    shape=(3,),
    unit="1",
    frame=_CAMERA,
    description="Unit vector through the fovea, where `gaze` is the optical axis of the eyeball.",
)
IRIS_VISIBLE = LabelSpec(
    name="iris_visible",
    shape=(),
    unit="1",
    frame="none",
    description="Share of the iris that the lids leave in sight, 0 to 1.",
)


class DatasetSpec(Schema):
    """Dataset spec: everything about a dataset but the samples themselves.

    Two datasets of equal specs and samples are the same dataset, byte for byte but for the code
    that finished it. Provenance and source belong to it, so they hold neither times nor places.
    """

    num_rows: int = Field(ge=1)
    """Samples, valid or not."""
    height: int = Field(ge=1)
    """Height of the images, in pixels."""
    width: int = Field(ge=1)
    """Width of the images, in pixels."""
    channels: Literal[1, 3]
    """1: grey or depth, 3: red, green, blue."""
    dtype: PixelType
    """Type of a pixel, full scale."""
    labels: tuple[LabelSpec, ...]
    """The labels that every sample has."""
    domain: Domain
    """Rendered, photographed, or rendered and refined."""
    source: dict[str, JsonValue]
    """The source's name, listing and options."""
    preprocess: Preprocess
    """Preprocessing of the grey levels, by ingestion or by the source."""
    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    """Provenance of a derived dataset: its parent and what derived it."""
    rows_per_chunk: int = Field(default=1024, ge=1)
    """Rows of a chunk, the smallest unit of reading."""
    rows_per_shard: int = Field(default=16384, ge=1)
    """Rows of one file or object of each array, written by one writer as a whole."""

    @model_validator(mode="after")
    def _require_whole_chunks(self) -> Self:
        if self.rows_per_shard % self.rows_per_chunk:
            raise ValueError(
                f"rows_per_shard {self.rows_per_shard} must be a multiple of rows_per_chunk "
                f"{self.rows_per_chunk}"
            )
        return self

    @model_validator(mode="after")
    def _require_distinct_labels(self) -> Self:
        names = [label.name for label in self.labels]
        if len(names) != len(set(names)):
            raise ValueError(f"labels must have distinct names, got {', '.join(names)}")
        return self

    @property
    def num_shards(self) -> int:
        """Number of shards; the last one may be shorter."""
        return -(-self.num_rows // self.rows_per_shard)

    def shard_rows(self, shard: int) -> range:
        """Return the rows of a shard; raises IndexError where there is no such shard."""
        if not 0 <= shard < self.num_shards:
            raise IndexError(f"shard {shard} of {self.num_shards}, which are counted from 0")
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_rows))

    def canonical(self) -> str:
        """Return the canonical JSON of this spec, for comparisons and the digest."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def differences(self, other: Self) -> list[str]:
        """Return the fields that differ, with this spec's value and the other's."""
        ours, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{name} is {_brief(ours.get(name))}, not {_brief(theirs.get(name))}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]


class DatasetInfo(Schema):
    """A complete dataset."""

    url: str
    """Absolute path or URL."""
    spec: DatasetSpec
    """Spec that it was made to."""
    num_valid: int
    """Rows that may be used."""
    num_rejected: int
    """Rejected rows: bad in the source, or refused by the stage."""
    digest: str
    """SHA-256 of the spec and the samples, 64 hexadecimal digits."""
    code: dict[str, JsonValue] = Field(default_factory=dict)
    """Version of the code that finished it; no part of the digest."""


def _flat(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Flatten nested mappings to dotted names."""
    flat: dict[str, JsonValue] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": x for inner, x in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _brief(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}…"
