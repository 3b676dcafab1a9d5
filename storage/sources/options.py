"""Options of source formats: a frozen model each, from which form and command are made."""

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import from_json, to_json
from typing_extensions import override

from storage.errors import SourceError
from storage.schema import Schema
from storage.sources.landmark_crop import FindsLandmarks
from storage.sources.source import Source

Side = Annotated[int, Field(ge=1, le=8192)]


class SourceOptions(Schema):
    """Base of every format's options.

    A subclass has the field `format` (a Literal with its only value as the default), which tells
    the formats apart, and a docstring under each field: the help of the form and of the command.
    The first field without a default is what the command reads; a local file or folder is a Path.
    """

    @abstractmethod
    def open(self) -> Source:
        """List the files of the source; raises SourceError where they are missing or do not fit."""

    @field_validator("*")
    @classmethod
    def _require_json(cls, value: Any) -> Any:
        try:
            from_json(to_json(value))
        except ValueError as error:
            raise ValueError(
                f"should be something that JSON can hold, found {ascii(value)[:80]} ({error})"
            ) from error
        return value


class SizedOptions(SourceOptions):
    """Options of a source whose images are resized to a given size; the default size is of eyes."""

    height: int = Field(default=35, ge=8, le=1024)
    """Height of the stored images, in pixels."""
    width: int = Field(default=55, ge=8, le=1024)
    """Width of the stored images, in pixels."""


class CroppedOptions(SourceOptions):
    """Options of a source that can centre its crops on landmarks found by an estimator."""

    crop: Literal["frame", "landmarks"] = "frame"
    """Centre of the crop. frame: the image's middle; landmarks: midway between the eye's corners
    that the landmark network finds. Use one rule for both domains of a training."""
    landmarks: Path | None = None
    """Landmark model for crop landmarks, from `simgan landmarks train`; by default the built-in
    model."""

    @model_validator(mode="after")
    def _require_use_of_landmarks(self) -> Self:
        if self.landmarks is not None and self.crop != "landmarks":
            raise ValueError("landmarks is the model that crop: landmarks goes by; give both")
        return self

    @override
    def open(self) -> Source:
        if self.crop == "landmarks":
            raise SourceError(
                'crop "landmarks" needs a function that finds them; open the source with it: '
                "options.open_with(find)"
            )
        return self.open_with(None)

    @abstractmethod
    def open_with(self, find: FindsLandmarks | None) -> Source:
        """List the files of the source, whose crops go by these landmarks, as `open` does."""
