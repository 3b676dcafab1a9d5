"""Errors whose message names the remedy; other exceptions are bugs or machine faults."""


class InputError(ValueError):
    """Unusable input: the message names it, what was expected and what was found."""


class UnavailableError(RuntimeError):
    """Failed server, disk or database: the message names it and the remedy."""
