"""`simgan inspect` and `simgan verify`: summary and integrity check of a dataset.

Everything heavy is imported inside the commands, so that help answers at once.
"""

# ruff: noqa: PLC0415

from pathlib import Path

from cyclopts import App

from flows.cli.outcome import Outcome

inspect_app = App(name="inspect", help="Summarize a dataset, and draw its labels on its images.")
verify_app = App(name="verify", help="Read every shard of a dataset and compare its checksum.")


@inspect_app.default
def inspect(dataset: str, /, *, out: Path | None = None, against: str | None = None) -> Outcome:
    """Print a dataset's schema, counts, label ranges, origin and digest; write a contact sheet.

    The sheet shows images with their labels drawn on them (gaze, pupil, iris, lids, head, joints)
    and histograms of the labels, which reveal wrong signs, mirrored labels and wrong crops. A
    landmark network finds where the eyes lie in the images, in every domain.

    Parameters
    ----------
    dataset
        Path or URL of the dataset.
    out
        PNG file to write; named after the dataset, in the working directory, when not given.
    against
        Dataset of the other domain, path or URL: report how its crops differ, and warn of
        differences that training should not meet.
    """
    from tasks.viewing.inspect import inspect_dataset

    sheet = out or Path(f"{Path(dataset).stem}.png")
    found = inspect_dataset(dataset, sheet, against)
    return Outcome(
        {**found.model_dump(mode="json"), "sheet": str(sheet)},
        f"{found.text()}\n{sheet}: images with their labels",
    )


@verify_app.default
def verify(dataset: str, /) -> Outcome:
    """Read every shard again and compare its checksum with the one in its record.

    Parameters
    ----------
    dataset
        Path or URL of the dataset.
    """
    from tasks.viewing.inspect import verify_dataset

    num_shards = verify_dataset(dataset)
    return Outcome(
        {"dataset": dataset, "num_shards": num_shards},
        f"{dataset}: all {num_shards} shards are what was written",
    )
