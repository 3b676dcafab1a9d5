"""Exclusive lock of a dataset, for operations on the whole of it."""

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime

from storage.errors import DatasetBusyError, StorageError
from storage.location import LEASE_S, Claim, Location, locate

logger = logging.getLogger(__name__)

_CLAIM, _HOLDER = "claim", "holder.json"
_FOLLOWED_AFTER_S = 1.25 * LEASE_S
"""Time after which nothing is left of the claim of a holder that died on another machine."""


@contextmanager
def exclusive_lock(url: str, doing: str) -> Iterator[None]:
    """Lock a dataset for one operation while the context is open.

    The lock is beside the dataset, named after the operation. It spares people a surprise; that no
    shard is written twice does not depend on it.

    A holder on another machine may have died without a trace: its claim is waited for until it
    would have ended by itself.

    Raises DatasetBusyError with the holder's process and host and the time it began.
    """
    beside = locate(url).sibling(f".{doing}")
    with ExitStack() as stack:
        try:
            claim = stack.enter_context(beside.claim(_CLAIM, wait_s=0))
        except DatasetBusyError:
            claim = _take_over(stack, beside, f"is {doing} {url}")
        beside.delete(_HOLDER)
        beside.create(_HOLDER, json.dumps(_ourselves()).encode())
        over = threading.Event()
        threading.Thread(target=_keep, args=(claim, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            with suppress(OSError):  # left behind, it is taken over by the next one
                beside.delete_all()


def _take_over(stack: ExitStack, beside: Location, doing: str) -> Claim:
    """Claim the place once its holder on another machine is dead; DatasetBusyError of one alive."""
    holder = _holder(beside)
    if holder.get("host", socket.gethostname()) != socket.gethostname():
        logger.warning("%s %s; waiting whether it is alive", _in_words(holder), doing)
        with suppress(DatasetBusyError):
            return stack.enter_context(beside.claim(_CLAIM, wait_s=_FOLLOWED_AFTER_S))
    raise DatasetBusyError(
        f"{_in_words(_holder(beside))} {doing}; wait for it, or end it, and run this again"
    ) from None


def _keep(claim: Claim, over: threading.Event) -> None:
    """Renew the claim until the operation ends: on S3 its lease would expire."""
    while not over.wait(LEASE_S / 4):
        try:
            claim.require()
        except (OSError, StorageError) as error:
            logger.warning("the exclusive lock on the dataset is lost: %s", error)


def _ourselves() -> dict[str, str | int]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _holder(beside: Location) -> dict[str, str | int]:
    """Return the holder's host, process and begin; empty where it began this moment."""
    return dict(json.loads(beside.read(_HOLDER) or b"{}"))


def _in_words(holder: dict[str, str | int]) -> str:
    if not holder:
        return "another process, begun this moment,"
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
