"""Errors that the caller can fix; messages name the thing, what was expected and what to do.

    StorageError (ValueError)
    ├── LocationError             a path or URL that names no place for a dataset
    ├── DatasetNotFoundError      nothing there, or nothing of ours
    ├── DatasetIncompleteError    shards are missing
    ├── DatasetExistsError        the place holds another dataset, or something else
    ├── DatasetBusyError          another attempt is at it
    ├── ClaimLostError            another attempt took over from this one
    ├── UnsupportedDatasetError   written by another version of the layout
    ├── CorruptDatasetError       written by us, damaged since
    ├── BlockError                a block of samples that does not fit the dataset
    ├── DuplicateIdError          two rows of one name
    └── SourceError               files that cannot be ingested

What the machine or the network does (a full disk, a server that does not answer) is an OSError on
every backend, so that callers can retry it.
"""


class StorageError(ValueError):
    """Base of all storage errors: the given place, dataset or source cannot be used."""


class LocationError(StorageError):
    """A path or URL names no place where a dataset could be."""


class DatasetNotFoundError(StorageError):
    """There is no dataset at the place."""


class DatasetIncompleteError(StorageError):
    """The dataset lacks shards: writing it was interrupted, or continues."""


class DatasetExistsError(StorageError):
    """The place already holds another dataset, or something that is no dataset."""


class DatasetBusyError(StorageError):
    """Another attempt is writing what this one wants to write."""


class ClaimLostError(StorageError):
    """The claim is lost: another writer took it over, or the dataset was replaced."""


class UnsupportedDatasetError(StorageError):
    """The dataset was written by another version of the layout."""


class CorruptDatasetError(StorageError):
    """The dataset's own documents contradict themselves or cannot be read."""


class BlockError(StorageError):
    """A block of samples does not fit the dataset that it is written to."""


class DuplicateIdError(StorageError):
    """Two rows of a dataset have the same name."""


class SourceError(StorageError):
    """A source's files are missing, empty, of another format or do not fit one another."""
