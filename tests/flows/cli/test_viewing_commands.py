"""`simgan gallery`, `inspect` and `verify`: what they say about what they wrote or read."""

from pathlib import Path

import pytest

from flows.cli.gallery import gallery
from flows.cli.inspect import inspect, verify
from simgan_core.simulator.eyes import sample_scenes
from tests.flows.conftest import write_eyes


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Synthetic and real eyes."""
    folder = tmp_path_factory.mktemp("viewed")
    return (
        write_eyes(folder / "synthetic.zarr", "synthetic", sample_scenes("synthetic", 12, 1)),
        write_eyes(folder / "real.zarr", "real", sample_scenes("real", 10, 2)),
    )


def test_a_gallery_says_its_rows_columns_and_size(
    datasets: tuple[str, str], tmp_path: Path
) -> None:
    found = gallery(*datasets, out=tmp_path / "gallery.html", max_images=8)
    assert found.result["num_rows"] == 8
    assert len(found.result["columns"]) == 2
    assert found.result["num_bytes"] == (tmp_path / "gallery.html").stat().st_size
    assert "8 rows of " in found.text
    assert "open it in a browser" in found.text


def test_inspect_names_its_sheet_after_the_dataset_where_it_is_not_named(
    datasets: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = inspect(datasets[1])
    assert found.result["sheet"] == "real.png"
    assert (tmp_path / "real.png").stat().st_size > 0
    assert found.text.endswith("real.png: images with their labels")
    named = inspect(datasets[1], out=tmp_path / "sheet.png")
    assert named.result == found.result | {"sheet": str(tmp_path / "sheet.png")}
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "real.png").read_bytes()


def test_verify_says_how_many_shards_it_read(datasets: tuple[str, str]) -> None:
    found = verify(datasets[0])
    assert found.result == {"dataset": datasets[0], "num_shards": 1}
    assert "all 1 shards are what was written" in found.text
