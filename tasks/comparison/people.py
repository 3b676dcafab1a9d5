"""People of a dataset, named by the first part of their samples' ids."""

import re
from collections.abc import Iterable, Mapping

_PERSON = re.compile(r"p\d+|person-.+")
_MAX_NAMED = 5
"""People whose names a warning shows."""


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


def people_in_common(
    people: Iterable[str], ids_by_role: Mapping[str, Iterable[str]]
) -> dict[str, tuple[str, ...]]:
    """Return who of these people is in each of other datasets, in order; roles of none left out."""
    tested = set(people)
    found = {
        role: tuple(sorted(tested.intersection(map(person_of, ids))))
        for role, ids in ids_by_role.items()
    }
    return {role: names for role, names in found.items() if names}


def caution_of_people(common: Mapping[str, tuple[str, ...]]) -> str:
    """Return in words who is both tested on and in other images, by role; empty where nobody is."""
    roles_of: dict[tuple[str, ...], list[str]] = {}
    for role, names in common.items():
        roles_of.setdefault(names, []).append(role)
    if not roles_of:
        return ""
    shared = " and ".join(
        f"{_listed(names)} with the {' and the '.join(roles)}" for names, roles in roles_of.items()
    )
    return f"CAUTION: the test set shares {shared}: its errors say nothing about new people."


def _listed(names: tuple[str, ...]) -> str:
    noun = "person" if len(names) == 1 else "people"
    more = ", …" if len(names) > _MAX_NAMED else ""
    return f"{len(names)} {noun} (by id: {', '.join(names[:_MAX_NAMED])}{more})"
