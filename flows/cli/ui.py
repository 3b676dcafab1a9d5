"""`simgan ui`: the Prefect UI on the runs of this SIMGAN_HOME."""

import os
import signal
import sys
import time
import webbrowser
from contextlib import suppress

from flows.cli.environment import prepare
from flows.cli.outcome import Outcome
from flows.cli.servers import use_prefect


def ui(*, open_browser: bool = True) -> Outcome:
    """Serve Prefect's UI with the runs of this SIMGAN_HOME until Ctrl-C.

    Parameters
    ----------
    open_browser
        Open the page in a browser; its address is printed in any case.
    """
    use_prefect(prepare())
    url = os.environ["PREFECT_API_URL"].removesuffix("/api")
    # The server stays as long as this process lives.
    # A shell that starts it in the background has it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    with suppress(KeyboardInterrupt):
        print(f"{url}\nCtrl-C ends this command", file=sys.stderr, flush=True)  # noqa: T201
        if open_browser:
            webbrowser.open(f"{url}/runs")
        # `signal.pause` would miss a signal that comes just before it.
        while True:
            time.sleep(0.5)
    return Outcome({"url": url}, "the server ends by itself when nothing uses it")
