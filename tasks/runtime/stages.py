"""Stages of a command on the terminal: log records that move a bar instead of being lines."""


def position(stage: str, done: int, total: int) -> dict[str, object]:
    """Return the `extra` of a log record that says how far a stage is.

    The bar is taken away where `done` is `total`. A line without `extra` then says what came out.
    """
    return {"stage": stage, "done": done, "total": total}
