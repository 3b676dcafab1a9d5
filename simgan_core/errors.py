"""Errors whose message says what to do; other exceptions are faults of ours or the machine."""


class InputError(ValueError):
    """What was given cannot be used: the message names it, says what was expected and found."""


class UnavailableError(RuntimeError):
    """A server, disk or database does not work: the message names it and says what to do."""
