"""`simgan ingest`, `inspect` and `verify` as a user types them."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from storage.exclusive_lock import exclusive_lock
from tasks.simulate import simulate_synthetic

NUM_PAIRS = 12


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs, of which one lacks its label file and two are cut off."""
    folder = tmp_path_factory.mktemp("pairs") / "imgs"
    simulate_synthetic.fn(str(folder), NUM_PAIRS, seed=1)
    (folder / "3.json").unlink()
    for number in (5, 6):
        path = folder / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def dataset(simgan: Any, pairs: Path) -> Path:
    """The pairs as a dataset, in colour."""
    to = pairs.parent / "eyes.zarr"
    result = result_of(simgan(*command(pairs, to)))
    assert (result["num_rows"], result["num_rejected"]) == (NUM_PAIRS, 3)
    return to


def command(pairs: Path, to: Path) -> tuple[object, ...]:
    return ("ingest", "unityeyes", pairs, "--to", to, "--channels", 3, "--crop", "margin",
            "--max-bad", "30%", "--append", "--json")  # fmt: skip


def result_of(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_inspect_says_what_it_is_and_draws_a_sheet(
    simgan: Any, dataset: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    found = result_of(simgan("inspect", dataset, "--out", sheet, "--json"))
    assert found["image"] == "35×55×3 uint8"
    assert found["num_valid"] == NUM_PAIRS - 3
    assert found["rejections"] == {
        "the image file does not decode": 2,
        "the label file is missing": 1,
    }
    with Image.open(sheet) as drawn:
        assert drawn.width > 1000


def test_rejections_are_counted_by_reason_in_an_artifact(
    dataset: Path, environment: dict[str, str]
) -> None:
    asked = json.dumps({"sort": "CREATED_DESC", "limit": 50}).encode()
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/artifacts/filter",
        asked,
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        texts = [str(artifact["data"]) for artifact in json.load(answer)]
    (text,) = [text for text in texts if str(dataset) in text and "left out" in text]
    assert "3 of 12 samples" in text
    assert "| 2 | 16.67% | the image file does not decode | `5` |" in text
    assert "| 1 | 8.33% | the label file is missing | `3` |" in text


def test_verify_finds_a_changed_byte(simgan: Any, dataset: Path, tmp_path: Path) -> None:
    assert result_of(simgan("verify", dataset, "--json"))["num_shards"] == 1
    shard = dataset / "images/c/0/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    done = simgan("verify", dataset)
    shard.write_bytes(whole)
    assert done.returncode == 2
    assert "shard 0 holds other samples than were written" in done.stderr


def test_append_adds_what_is_new_unless_another_is_at_it(
    simgan: Any, pairs: Path, dataset: Path, tmp_path: Path
) -> None:
    simulate_synthetic.fn(str(tmp_path / "more"), 3, seed=2)
    for number in (1, 2, 3):
        for suffix in ("jpg", "json"):
            (tmp_path / "more" / f"{number}.{suffix}").rename(pairs / f"{100 + number}.{suffix}")
    with exclusive_lock(str(dataset), "ingesting"):
        refused = simgan(*command(pairs, dataset))
    assert refused.returncode == 2
    assert "is ingesting" in refused.stderr
    assert "wait for it, or end it" in refused.stderr
    assert result_of(simgan(*command(pairs, dataset)))["num_rows"] == NUM_PAIRS + 3
