"""People of a dataset, named by the first part of their samples' ids."""

import re
from collections.abc import Iterable

_PERSON = re.compile(r"p\d+|person-.+")


def person_of(sample_id: str) -> str:
    """Return the person that an id names; empty if it names none.

    Whose it is says the first part of an id, if it is p and a number (`p00/day01/0005/left`) or
    begins with `person-` (`person-anna/3`). Any other first part may be a day or a folder: images
    that are grouped by those would look surer than they are, or less.
    """
    first, slash, _ = sample_id.partition("/")
    return first if slash and _PERSON.fullmatch(first) else ""


def people_in(ids: Iterable[str]) -> tuple[str, ...]:
    """Return all people, sorted; empty if some id names none."""
    people = {person_of(sample_id) for sample_id in ids}
    return () if "" in people else tuple(sorted(people))
