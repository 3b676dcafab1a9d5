"""`simgan turing`: visual Turing test, served and reported.

Not Prefect flows: a server that waits for people, and a report on what they said. Everything heavy
is imported inside the command that needs it, so that help answers at once.
"""

# ruff: noqa: PLC0415

import sys
from contextlib import suppress
from pathlib import Path

from cyclopts import App

from flows.cli.arguments import Count, Port, Seed
from flows.cli.outcome import Outcome

app = App(name="turing", help="Let people tell refined images from real ones, and count.")


@app.command
def serve(
    *,
    real: str,
    refined: str,
    synthetic: str | None = None,
    trials: Count = 100,
    port: Port = 8765,
    host: str = "127.0.0.1",
    seed: Seed = 0,
    results: Path | None = None,
) -> Outcome:
    """Show images in a browser, one at a time, and keep what people say; end it with Ctrl-C.

    Parameters
    ----------
    real
        Dataset of real images, path or URL.
    refined
        Dataset of refined images, path or URL.
    synthetic
        Dataset of synthetic images: adds a fifth as many trials, synthetic or real, at the end.
    trials
        Refined-or-real trials of a subject, half of them real.
    port
        Port to listen on; 0 for any that is free.
    host
        Address to listen on. Beyond this machine, all who reach it can take part, unencrypted.
    seed
        Seed of the images drawn and of their order.
    results
        SQLite file of answers; under SIMGAN_HOME, named by the datasets, when not given.
    """
    from tasks.turing.server import serve as serve_book
    from tasks.turing.study import open_study

    book = open_study(real, refined, synthetic, trials, seed, results)

    def announce(url: str) -> None:
        say = f"open {url}\nanswers go to {book.path}\nCtrl-C ends it; nothing is lost"
        print(say, file=sys.stderr, flush=True)  # noqa: T201

    # Ctrl-C is how serving ends, and not an interruption of it.
    with suppress(KeyboardInterrupt):
        serve_book(book, host, port, announce)
    answers = book.answers()
    num_subjects = len({answer.subject for answer in answers})
    return Outcome(
        {"results": str(book.path), "num_subjects": num_subjects, "num_answers": len(answers)},
        f"{len(answers)} answers of {num_subjects} subjects are in {book.path}\n"
        f"report with: simgan turing report --results {book.path}",
    )


@app.command
def report(*, results: Path, mlflow: bool = False) -> Outcome:
    """Say how often people were right, how sure that is, and which images fooled them.

    Parameters
    ----------
    results
        The file of answers that `serve` printed; may be one that is being served.
    mlflow
        Put the report on the refiner's MLflow run too.
    """
    from tasks.turing.page import write_page
    from tasks.turing.report import make_report, table

    found = make_report(results)
    page = write_page(found, results)
    output_locations = [f"report    {page}"]
    if mlflow:
        from tasks.turing.tracking import track

        output_locations.append(f"MLflow    run {track(found, page)}")
    return Outcome(found.model_dump(mode="json"), "\n".join([table(found), "", *output_locations]))
