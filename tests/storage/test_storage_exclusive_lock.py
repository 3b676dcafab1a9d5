"""One at a time, by name, on every backend."""

import json
import multiprocessing
import os
import signal
import socket

import pytest

from storage.errors import DatasetBusyError
from storage.exclusive_lock import exclusive_lock
from storage.location import locate


def test_a_second_one_is_told_who_holds_the_place(place_url: str) -> None:
    with (
        exclusive_lock(place_url, "ingesting"),
        pytest.raises(DatasetBusyError, match=rf"process {os.getpid()} on .* since .* ingesting"),
        exclusive_lock(place_url, "ingesting"),
    ):
        pass


def test_afterwards_nothing_is_left(place_url: str) -> None:
    for _ in range(2):
        with exclusive_lock(place_url, "ingesting"):
            assert locate(place_url).is_free()
    assert locate(place_url).sibling(".ingesting").is_free()


def test_an_error_inside_is_not_taken_for_a_holder(place_url: str) -> None:
    with pytest.raises(DatasetBusyError, match="shard 3"), exclusive_lock(place_url, "ingesting"):
        raise DatasetBusyError("shard 3")


def test_a_killed_holder_is_followed(place_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(place_url, ready))
    holder.start()
    assert ready.wait(60)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with exclusive_lock(place_url, "ingesting"):
        pass


def test_a_holder_that_died_on_another_machine_is_followed_after_its_lease(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.location.s3_claim.LEASE_S", 2.0)
    url, here = f"{s3_bucket}/elsewhere/eyes.zarr", socket.gethostname()
    beside = locate(url).sibling(".ingesting")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    beside.claim("claim").__enter__()
    beside.create("holder.json", b'{"host": "elsewhere", "pid": 1, "since": "now"}')
    monkeypatch.setattr(socket, "gethostname", lambda: here)
    with exclusive_lock(url, "ingesting"):
        assert json.loads(beside.read("holder.json") or b"")["host"] == here
    assert beside.is_free()


def test_a_holder_that_lives_on_another_machine_is_named_after_its_lease(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.exclusive_lock._FOLLOWED_AFTER_S", 0.1)
    url, here = f"{s3_bucket}/alive/eyes.zarr", socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with exclusive_lock(url, "ingesting"):
        monkeypatch.setattr(socket, "gethostname", lambda: here)
        with (
            pytest.raises(DatasetBusyError, match="on elsewhere"),
            exclusive_lock(url, "ingesting"),
        ):
            pass


def _hold(url: str, ready: "multiprocessing.synchronize.Event") -> None:
    with exclusive_lock(url, "ingesting"):
        ready.set()
        signal.pause()
