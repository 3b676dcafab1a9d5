"""Options of a source: one frozen model per format, from which form and command are made."""

from abc import abstractmethod
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_core import from_json, to_json

from storage.schema import Schema
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
    """Options of a source whose images are resized to a given size; of eyes unless overridden."""

    height: int = Field(default=35, ge=8, le=1024)
    """Height of the stored images, in pixels."""
    width: int = Field(default=55, ge=8, le=1024)
    """Width of the stored images, in pixels."""
