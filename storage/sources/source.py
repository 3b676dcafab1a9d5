"""Interface of a source; a new format is one file with one such class."""

from typing import Protocol

from pydantic import JsonValue

from storage.samples import SampleBlock
from storage.schema import Domain, LabelSpec, PixelType, Preprocess


class Source(Protocol):
    """Samples in some format, numbered from 0 in an order that follows from the listing alone.

    A source can be pickled, and read by threads and processes at once. Making one lists its files
    and raises SourceError when they are missing, empty or not of the format; single bad samples
    are no error but rows that are not valid.
    """

    @property
    def name(self) -> str:
        """The format's name, as the command line has it."""

    @property
    def domain(self) -> Domain:
        """Domain of the images."""

    @property
    def labels(self) -> tuple[LabelSpec, ...]:
        """Label specs of every sample."""

    @property
    def preprocess(self) -> Preprocess:
        """Preprocessing of the images' grey levels in the files."""

    @property
    def options(self) -> dict[str, JsonValue]:
        """Options that change the samples, recorded with the dataset; without paths."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""

    @property
    def dtype(self) -> PixelType:
        """Type of a pixel."""

    @property
    def decodes(self) -> bool:
        """True where decoding is slow enough to be worth several processes."""

    def __len__(self) -> int:
        """Return the number of samples, bad ones included."""

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the names of samples start to stop − 1, without reading these.

        They are distinct, and stay the same when files are added.
        """

    def read(self, start: int, stop: int) -> SampleBlock:
        """Return samples start to stop − 1.

        A bad one has valid false, an image of zeros, labels of NaN, and a rejection.
        """

    def content_digest(self) -> str:
        """Return a digest of the listing (names and sizes), equal as long as the files are."""
