"""The promises of a place, kept by every backend."""

import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import DatasetBusyError, LocationError
from storage.location import ENDPOINTS, LEASE_S, Location, locate


@pytest.fixture
def place(place_url: str) -> Location:
    return locate(place_url)


def test_a_created_object_is_read_back(place: Location) -> None:
    assert place.create("records/1/zarr.json", b"one")
    assert place.read("records/1/zarr.json") == b"one"


def test_what_is_not_there_reads_as_none(place: Location) -> None:
    assert place.read("zarr.json") is None


def test_creating_twice_keeps_the_first(place: Location) -> None:
    assert place.create("key", b"first")
    assert not place.create("key", b"second")
    assert place.read("key") == b"first"


def test_of_many_creators_at_once_one_succeeds(place: Location) -> None:
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: place.create("key", b"%d" % n), range(8)))
    assert created.count(True) == 1
    assert place.read("key") == b"%d" % created.index(True)


def test_replacing_changes_what_is_read(place: Location) -> None:
    place.create("key", b"old")
    place.replace("key", b"new")
    assert place.read("key") == b"new"


def test_replacing_what_is_gone_fails_and_writes_nothing(place: Location) -> None:
    with pytest.raises(FileNotFoundError):
        place.replace("key", b"new")
    assert place.is_free()


def test_keys_are_those_under_the_prefix(place: Location) -> None:
    for key in ("zarr.json", "records/0/zarr.json", "records/1/zarr.json"):
        place.create(key, b"{}")
    assert sorted(place.list_keys("records/")) == ["records/0/zarr.json", "records/1/zarr.json"]
    assert len(list(place.list_keys())) == 3


def test_deleting_what_is_not_there_is_fine(place: Location) -> None:
    place.delete("key")


def test_a_place_is_free_until_something_is_there_and_after_all_is_deleted(place: Location) -> None:
    assert place.is_free()
    place.create("zarr.json", b"{}")
    place.create("records/0/zarr.json", b"{}")
    assert not place.is_free()
    place.delete_all()
    assert place.is_free()


def test_taking_over_moves_the_siblings_objects_and_drops_the_old_ones(place: Location) -> None:
    place.create("zarr.json", b"old")
    place.create("old", b"old")
    other = place.sibling(".building")
    other.create("zarr.json", b"new")
    other.create("a/b", b"new")
    with other.claim("moving") as claim:
        place.take_over(other, claim)
    place.delete("moving")
    assert {key: place.read(key) for key in place.list_keys()} == {
        "zarr.json": b"new",
        "a/b": b"new",
    }
    assert other.is_free()


def test_a_claim_is_held_by_one_at_a_time(place: Location) -> None:
    with (
        place.claim("claim"),
        pytest.raises(DatasetBusyError, match="another attempt"),
        place.claim("claim", wait_s=0),
    ):
        pass


def test_a_claim_given_up_can_be_taken(place: Location) -> None:
    for _ in range(2):
        with place.claim("claim", wait_s=0):
            pass


def test_a_waiting_claimant_gets_the_claim_when_it_is_given_up(place: Location) -> None:
    order = []

    def wait() -> None:
        with place.claim("claim", wait_s=60):
            order.append("second")

    with place.claim("claim"):
        thread = threading.Thread(target=wait)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_killed_holder_gives_its_claim_up(place_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=_hold, args=(place_url, held))
    holder.start()
    assert held.wait(60)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with locate(place_url).claim("claim", wait_s=0):
        pass


def _hold(url: str, held: "multiprocessing.synchronize.Event") -> None:
    with locate(url).claim("claim"):
        held.set()
        signal.pause()


def test_a_claim_from_another_machine_ends_with_its_lease(s3_bucket: str) -> None:
    place = locate(f"{s3_bucket}/lease/eyes.zarr")
    claim = {"token": "theirs", "host": "elsewhere", "pid": 1, "expires": time.time() + LEASE_S}
    place.create("claim", json.dumps(claim).encode())
    with pytest.raises(DatasetBusyError, match="elsewhere"), place.claim("claim", wait_s=0):
        pass
    place.replace("claim", json.dumps({**claim, "expires": time.time() - 1}).encode())
    with place.claim("claim", wait_s=0):
        assert json.loads(place.read("claim") or b"")["token"] != "theirs"


def test_a_server_that_is_not_there_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.location.s3_objects.RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="s3://bucket/name"):
        locate("s3://bucket/name").read("zarr.json")


@pytest.mark.parametrize(
    "url",
    [
        *("s3://bucket", "s3:///name", "ftp://host/name", "gs://bucket/name", "http://host/name"),
        *("s3:/bucket/name", "s3:bucket/name", "S3:/bucket/name", "file:/data/eyes", "https:/host"),
        *("s3://bucket/name?versionId=3", "s3://bucket/name#part", "file:///data/eyes?mode=r"),
        *("s3://user:secret@bucket/name", "s3://bucket:9000/name", "s3://[::1/name"),
        *("file:///", "", "  ", "a\0b"),
    ],
)
def test_what_looks_like_a_url_and_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(LocationError, match="s3://bucket/name"):
        locate(url)


def test_a_file_on_another_machine_is_refused() -> None:
    with pytest.raises(LocationError, match="'server'"):
        locate("file://server/data/eyes.zarr")


@pytest.mark.parametrize("name", ["a:b.zarr", "10:30/eyes", "what?.zarr", "50%#1.zarr", "-x"])
def test_a_path_with_marks_of_urls_is_a_path(name: str, tmp_path: Path) -> None:
    assert locate(tmp_path / name).url == str(tmp_path / name)
    assert locate(name).url == str(Path.cwd() / name)


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9", "http://", "ftp://host", "http://[::1", "http://host:99999", "x"]
)
@pytest.mark.parametrize("variable", ENDPOINTS)
def test_an_endpoint_that_is_no_url_is_refused(
    endpoint: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """obstore ends in a PanicException, which is no Exception."""
    for each in ENDPOINTS:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, endpoint)
    with pytest.raises(LocationError, match=f"{variable} is '.*': expected"):
        locate("s3://bucket/name")


def test_plain_http_to_another_machine_is_refused_unless_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")
    with pytest.raises(LocationError, match="AWS_ALLOW_HTTP=true"):
        locate("s3://bucket/name")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert locate("s3://bucket/name").url == "s3://bucket/name"


def test_no_credentials_is_said_and_which_variables_hold_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("storage.location.s3_objects.RETRIES", {"max_retries": 0})
    for name in (*ENDPOINTS, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    # An address of no machine, at which nobody answers.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254:9")
    with pytest.raises(LocationError, match="AWS_ACCESS_KEY_ID"):
        locate("s3://bucket/name").read("zarr.json")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    assert locate(f"file://{tmp_path}/a%20b.zarr").url == f"{tmp_path}/a b.zarr"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("eyes.zarr").url == str(tmp_path / "eyes.zarr")


def test_what_a_killed_writer_left_is_nothing_and_is_tidied(tmp_path: Path) -> None:
    place = locate(tmp_path / "eyes.zarr")
    (tmp_path / "eyes.zarr").mkdir()
    (tmp_path / "eyes.zarr" / "zarr.json.123.partial").touch()
    assert place.is_free()
    place.tidy()
    assert not list(place.list_keys())
