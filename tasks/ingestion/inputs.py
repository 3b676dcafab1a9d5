"""Ingestion input: the options of any source format, told apart by `format`, as flow parameter."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from storage.sources.options import SourceOptions
from storage.sources.registry import format_names, options_of

if TYPE_CHECKING:
    SourceInput: TypeAlias = SourceOptions
else:
    # The formats that there are when a flow is imported: Prefect's form lists them.
    SourceInput = Annotated[
        reduce(or_, map(options_of, format_names())), Field(discriminator="format")
    ]
