"""The error a caller can mend; every other exception is a fault of ours or of the machine."""


class InputError(ValueError):
    """What was given cannot be used: the message names it, says what was expected and found."""
