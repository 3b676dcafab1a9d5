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


@contextmanager
def exclusive_lock(url: str, doing: str) -> Iterator[None]:
    """Lock a dataset for one operation while the context is open.

    The lock is beside the dataset, named after the operation. It spares people a surprise; that no
    shard is written twice does not depend on it.

    Raises DatasetBusyError with the holder's process and host and the time it began.
    """
    beside = locate(url).sibling(f".{doing}")
    with ExitStack() as stack:
        try:
            claim = stack.enter_context(beside.claim(_CLAIM, wait_s=0))
        except DatasetBusyError:
            raise DatasetBusyError(
                f"{_holder(beside)} is {doing} {url}; wait for it, or end it, and run this again"
            ) from None
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


def _holder(beside: Location) -> str:
    document = beside.read(_HOLDER)
    if document is None:
        return "another process, begun this moment,"
    holder = json.loads(document)
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
