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

app = App(name="turing", help="Visual Turing test: people judge which images are real.")


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
    """Serve the test to browsers, one image at a time, and store the answers; Ctrl-C ends it.

    Parameters
    ----------
    real
        Dataset of real images, path or URL.
    refined
        Dataset of refined images, path or URL.
    synthetic
        Dataset of synthetic images: adds synthetic-or-real trials at the end, a fifth as many.
    trials
        Number of refined-or-real trials of each subject; half of the images are real.
    port
        Port to listen on; 0 for any that is free.
    host
        Address to listen on. On any but the default, everybody who reaches it can take part,
        unencrypted.
    seed
        Seed of the images drawn and of their order.
    results
        SQLite file of answers; by default under SIMGAN_HOME, named by the datasets.
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
    """Report the share of right answers, its 95% interval, and the images that fooled people.

    Parameters
    ----------
    results
        The file of answers that `serve` printed; the server may be running.
    mlflow
        Also log the report to the refiner's MLflow run.
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
