"""Overwrite a dataset: build the new one beside the old, then swap.

At any moment one of the two is complete, in its place or in the place beside it, where readers
look too: whoever is killed loses neither.
"""

import logging
from typing import NamedTuple

from storage.errors import ClaimLostError
from storage.layout import Root, read_root
from storage.location import Location

logger = logging.getLogger(__name__)

_CLAIM = "records/replacing"


class Standing(NamedTuple):
    """A dataset and its current location."""

    place: Location
    root: Root


def building_place(target: Location) -> Location:
    """Return the location beside a dataset where its successor is built."""
    return target.sibling(".building")


def find_readable(target: Location) -> Standing | None:
    """Return the dataset that readers of a location get, complete or not."""
    root = read_root(target, target.url)
    if root is not None:
        return Standing(target, root)
    successor = _find_successor(target)
    return successor if successor is not None and successor.root.info is not None else None


def find_writable(target: Location) -> Standing | None:
    """Return the dataset that writers of a location get: the successor where one is being built."""
    successor = _find_successor(target)
    if successor is not None:
        return successor
    root = read_root(target, target.url)
    return None if root is None else Standing(target, root)


def put_in_place(target: Location) -> None:
    """Replace a dataset by its complete successor, if there is one.

    Raises OSError when another process does the same at this moment.
    """
    while _is_complete(target):
        try:
            with building_place(target).claim(_CLAIM) as claim:
                if _is_complete(target):
                    target.take_over(building_place(target), claim)
                    target.delete(_CLAIM)
                    logger.info("%s was replaced", target.url)
        except ClaimLostError as lost:
            logger.warning("replacing %s: %s", target.url, lost)


def _is_complete(target: Location) -> bool:
    successor = _find_successor(target)
    return successor is not None and successor.root.info is not None


def _find_successor(target: Location) -> Standing | None:
    place = building_place(target)
    root = read_root(place, target.url)
    return None if root is None else Standing(place, root)
