"""`simgan gallery`: an HTML page to browse datasets side by side.

Everything heavy is imported inside the command, so that help answers at once.
"""

# ruff: noqa: PLC0415

from pathlib import Path

from cyclopts import App

from flows.cli.arguments import Count
from flows.cli.outcome import Outcome

app = App(name="gallery", help="Write an HTML page that shows the images of datasets side by side.")


@app.default
def gallery(
    dataset: str,
    /,
    *more: str,
    out: Path,
    max_images: Count = 10_000,
    errors: Path | None = None,
) -> Outcome:
    """Write a page with the images of datasets side by side, to sort, filter and look at.

    Parameters
    ----------
    dataset
        Dataset whose samples are the rows, path or URL.
    more
        Datasets beside it: aligned where ids are the same, else the most alike image of each.
    out
        File to write: one HTML page with everything in it.
    max_images
        Images of each dataset at most, the first that are valid.
    errors
        An estimator's predictions (.npz under estimates/ of SIMGAN_HOME), to sort by its error.
    """
    from tasks.viewing.gallery import make_gallery
    from tasks.viewing.gallery_page import write_gallery

    found = make_gallery([dataset, *more], max_images, errors)
    num_bytes = write_gallery(found, out)
    titles = [column.title for column in found.columns]
    result = {
        "out": str(out),
        "num_rows": found.num_rows,
        "columns": titles,
        "sort_by": [figure.title for figure in found.figures],
        "num_bytes": num_bytes,
    }
    return Outcome(
        result,
        f"{out}: {found.num_rows} rows of {' | '.join(titles)}, {num_bytes / 1e6:.1f} MB; "
        "open it in a browser",
    )
