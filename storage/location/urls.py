"""Paths and URLs of datasets: which location each names."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.errors import LocationError
from storage.location.base import Location
from storage.location.local import LocalLocation
from storage.location.s3 import S3Location

_EXPECTED_PLACE = "expected a path, file:///path or s3://bucket/name"

_URL_LIKE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:/|(?:s3|s3a|s3n|gs|az|https?|file):", re.IGNORECASE
)
"""Beginning of a URL, or of a mistyped one ("s3:/bucket/name", "file:name")."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def locate(url: str | os.PathLike[str]) -> Location:
    """Return the location of a path or URL, without touching it.

    Raises LocationError for text that is neither a path nor file:///path nor s3://bucket/name.
    """
    text = os.fspath(url)
    if not text.strip() or "\0" in text:
        raise LocationError(f"{text!r} names no place for a dataset: {_EXPECTED_PLACE}")
    if "://" not in text and not _URL_LIKE.match(text):
        return LocalLocation(Path(text))
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise LocationError(f"{text!r} is no URL ({error}): {_EXPECTED_PLACE}") from error
    if "://" not in text:
        raise LocationError(
            f"{text!r} looks like a URL and is none: {_EXPECTED_PLACE}, and ./{text} if it is a "
            "path"
        )
    if "?" in text or "#" in text:
        raise LocationError(
            f"{text!r} has a query or fragment, from '?' or '#' on, which no dataset's URL has: "
            f"{_EXPECTED_PLACE}"
        )
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.strip("/"):
        return LocalLocation(Path(unquote(parts.path)))
    if parts.scheme == "file" and parts.netloc:
        raise LocationError(
            f"{text!r} names the machine {parts.netloc!r}, and only this one's files are read: "
            "mount its folder here and give the path, or write file:///path with three slashes"
        )
    name = parts.path.strip("/")
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc) and name:
        return S3Location(parts.netloc, name)
    raise LocationError(f"{text!r} names no place for a dataset: {_EXPECTED_PLACE}")
