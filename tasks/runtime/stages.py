"""Progress records of a command's stages: log records that the terminal shows as bars."""


def position(stage: str, done: int, total: int) -> dict[str, object]:
    """Return the `extra` of a log record with the progress of a stage.

    The bar is taken away where `done` is `total`. A line without `extra` then says what came out.
    """
    return {"stage": stage, "done": done, "total": total}
