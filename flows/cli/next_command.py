"""Suggested next command, after a result or an error."""

import shlex
from collections.abc import Sequence

from cyclopts import App

from simgan_core.errors import UnavailableError
from storage.errors import DatasetNotFoundError
from tasks.runtime.paths import shown_path


def gallery_of(*datasets: str) -> str:
    """Return the command that shows datasets side by side."""
    shown = " ".join(shlex.quote(shown_path(each)) for each in datasets)
    return f"simgan gallery {shown} --out gallery.html   (the images side by side)"


def after_error(error: BaseException, app: App, words: Sequence[str]) -> str:
    """Return the suggestion for an error's message; empty if the message names a command.

    `words` are the command line's.
    """
    if "simgan " in str(error):
        return ""
    if isinstance(error, DatasetNotFoundError):
        return "; next: simgan ingest --help"
    if isinstance(error, UnavailableError | OSError):
        return "; next: simgan doctor"
    commands, _, _ = app.parse_commands(list(words), include_parent_meta=False)
    return f"; next: {' '.join(('simgan', *commands, '--help'))}"
