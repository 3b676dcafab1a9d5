"""Input errors, which the caller can fix; other exceptions are faults of ours or the machine."""


class InputError(ValueError):
    """What was given cannot be used: the message names it, says what was expected and found."""
