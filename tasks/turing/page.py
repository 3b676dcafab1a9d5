"""The report of a visual Turing test as one HTML page that needs no network."""

import html
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from string import Template

from storage.answers import open_answers
from tasks.runtime.pictures import data_uri, png
from tasks.turing.report import (
    GroupResult,
    ImageResult,
    PartResult,
    TuringReport,
    p_value,
    seconds,
)

NUM_PICTURES = 12


def write_page(report: TuringReport, results: Path) -> Path:
    """Write the page beside the results file and return its path."""
    page = results.with_suffix(".html")
    template = Template((files("tasks") / "pages" / "turing_report.html").read_text("utf-8"))
    shown = {one.image for part in report.parts for one in (*_most(part), *_never(part))}
    pictures = _pictures(results, shown)
    text = template.substitute(
        parts="\n".join(_section(part, pictures) for part in report.parts),
        num_subjects=report.num_subjects,
        num_answers=report.num_answers,
        datasets="\n".join(
            f"<li>{domain}: {html.escape(dataset.url)} (digest {dataset.digest[:12]})</li>"
            for domain, dataset in report.study.datasets.items()
        ),
        study=html.escape(report.study.id),
        seed=report.study.seed,
    )
    page.write_text(text, encoding="utf-8")
    return page


def _pictures(results: Path, shown: set[int]) -> dict[int, str]:
    """Return the images as addresses that carry them, by number."""
    with closing(open_answers(results)) as book:
        grey = book.study.channels == 1
        images = [image for image in book.images() if image.image in shown]
    return {
        # PNG knows grey images by having no axis of channels.
        image.image: data_uri(png(image.pixels.squeeze(-1) if grey else image.pixels))
        for image in images
    }


def _most(part: PartResult) -> list[ImageResult]:
    return [one for one in part.images if one.fooled.hits][:NUM_PICTURES]


def _never(part: PartResult) -> list[ImageResult]:
    """Return the images that fooled nobody, those that most people saw first."""
    never = [one for one in part.images if not one.fooled.hits]
    return sorted(never, key=lambda one: -one.fooled.total)[:NUM_PICTURES]


def _section(part: PartResult, pictures: Mapping[int, str]) -> str:
    counts = part.confusion
    num_never = sum(not one.fooled.hits for one in part.images)
    made = html.escape(part.made)
    return f"""<section>
<h2>{made.capitalize()} or real?</h2>
<p><strong>{html.escape(part.verdict)}</strong></p>
<div class="wide"><table>
<tr><th scope="col">subject</th><th scope="col">right</th><th scope="col">share</th>
<th scope="col">95% interval</th><th scope="col">p (guessing)</th>
<th scope="col">median time</th></tr>
{"".join(_row(one.code + ("" if one.complete else " (unfinished)"), one) for one in part.subjects)}
{_row("all answers", part)}
</table></div>
<h3>What was said</h3>
<table>
<tr><td></td><th scope="col">said real</th><th scope="col">said made</th></tr>
<tr><th scope="row">real</th><td>{counts.real_said_real}</td><td>{counts.real_said_made}</td></tr>
<tr><th scope="row">{made}</th><td>{counts.made_said_real}</td><td>{counts.made_said_made}</td></tr>
</table>
{_gallery("Images that fooled people most", _most(part), pictures)}
{_gallery(f"Images that fooled nobody ({num_never} in all)", _never(part), pictures)}
</section>"""


def _row(name: str, group: GroupResult) -> str:
    right = group.right
    low, high = right.ci95
    return (
        f'<tr><th scope="row">{html.escape(name)}</th><td>{right.hits} of {right.total}</td>'
        f"<td>{right.share:.1%}</td><td>{low:.1%}–{high:.1%}</td>"
        f"<td>{html.escape(p_value(right))}</td><td>{seconds(group.reaction)}</td></tr>"
    )


def _gallery(title: str, images: Sequence[ImageResult], pictures: Mapping[int, str]) -> str:
    if not images:
        return f"<h3>{title}</h3><p>None.</p>"
    figures = "".join(
        f'<figure><img src="{pictures[one.image]}" alt="{html.escape(one.sample)}">'
        f"<figcaption>{html.escape(one.sample)}<br>taken for real {one.fooled.hits} of "
        f"{one.fooled.total} times</figcaption></figure>"
        for one in images
    )
    return f'<h3>{title}</h3><div class="pictures">{figures}</div>'
