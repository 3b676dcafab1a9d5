"""Which images a gallery puts side by side, and its page in headless Chromium."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

from simgan_core.errors import InputError
from storage.samples import Rejection, SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec, Domain
from storage.writer import DatasetWriter
from tasks.viewing.gallery import make_gallery
from tasks.viewing.gallery_page import write_gallery

HEIGHT, WIDTH = 14, 22
CHROMIUM = shutil.which("chromium")
Write = Callable[..., str]


def _write_eyes(
    folder: Path,
    domain: Domain,
    ids: list[str],
    tones: NDArray[np.int64],
    bad: int = -1,
    dtype: Literal["uint8", "uint16"] = "uint8",
) -> str:
    """Write a dataset whose row i has the grey level and the gaze that its number says."""
    count = len(ids)
    spec = DatasetSpec(
        num_rows=count,
        height=HEIGHT,
        width=WIDTH,
        channels=1,
        dtype=dtype,
        labels=(GAZE, PUPIL_PX),
        domain=domain,
        source={"name": "test"},
        preprocess="none",
    )
    images = np.broadcast_to(tones[:, None, None, None], (count, HEIGHT, WIDTH, 1))
    images = images.astype(dtype)
    yaw = _yaw(count)
    gaze = np.column_stack([-np.sin(yaw), np.zeros(count), -np.cos(yaw)]).astype(np.float32)
    pupil = np.full((count, 2), [11.0, 7.0], np.float32)
    valid = np.arange(count) != bad
    images[~valid], gaze[~valid], pupil[~valid] = 0, np.nan, np.nan
    rejections = (Rejection(bad, ids[bad], "too dark"),) if bad >= 0 else ()
    block = SampleBlock(images, valid, ids, {"gaze": gaze, "pupil_px": pupil}, rejections)
    writer = DatasetWriter.open(str(folder / f"{domain}.zarr"), spec)
    writer.write_shard(0, block)
    return writer.finish().url


def _yaw(count: int) -> NDArray[np.float64]:
    return np.linspace(-0.5, 0.5, count)


@pytest.fixture
def write_eyes(tmp_path: Path) -> Write:
    """Write small datasets where this test keeps its files."""
    return partial(_write_eyes, tmp_path)


def test_rows_are_aligned_by_id_whatever_their_order(write_eyes: Write) -> None:
    tones = np.arange(4) * 10
    first = write_eyes("synthetic", ["a", "b", "c", "d"], tones)
    other = write_eyes("refined", ["d", "x", "b", "a"], tones + 100, bad=3)
    left, right = make_gallery([first, other], 100, None).columns
    assert left.of_row.tolist() == [0, 1, 2, 3]
    assert right.of_row.tolist() == [-1, 2, -1, 0]  # a is bad there, c is not there
    assert [right.ids[index] for index in right.of_row if index >= 0] == ["b", "d"]


def test_other_ids_are_joined_by_likeness_to_the_refined_image(write_eyes: Write) -> None:
    first = write_eyes("synthetic", ["a", "b"], np.array([10, 20]))
    refined = write_eyes("refined", ["a", "b"], np.array([110, 220]))
    real = write_eyes("real", ["p1", "p2", "p3"], np.array([10, 105, 223]))
    gallery = make_gallery([first, real, refined], 100, None)
    assert [column.domain for column in gallery.columns] == ["synthetic", "refined", "real"]
    column = gallery.columns[2]
    assert [column.ids[index] for index in column.of_row] == ["p2", "p3"]
    (distance,) = [one for one in gallery.figures if "distance" in one.title]
    # Means differ by 5 and 3, deviations by 0: half of the features.
    np.testing.assert_allclose(distance.values, np.array([5, 3]) / np.sqrt(2), atol=0.01)


def test_sixteen_bits_are_shown_by_their_upper_eight(write_eyes: Write) -> None:
    tones = np.array([10, 20]) * 256 + 99
    first = write_eyes("synthetic", ["a", "b"], tones, dtype="uint16")
    real = write_eyes("real", ["p1", "p2"], tones[::-1], dtype="uint16")
    shown, nearest = make_gallery([first, real], 100, None).columns
    assert shown.images[:, 0, 0, 0].tolist() == [10, 20]
    assert [nearest.ids[index] for index in nearest.of_row] == ["p2", "p1"]


def test_bad_rows_are_not_shown(write_eyes: Write) -> None:
    first = write_eyes("synthetic", ["a", "b", "c"], np.array([1, 2, 3]), bad=1)
    gallery = make_gallery([first], 100, None)
    assert gallery.columns[0].ids == ["a", "c"]


def test_errors_are_found_by_id(write_eyes: Write, tmp_path: Path) -> None:
    real = write_eyes("real", ["p1", "p2"], np.array([10, 20]))
    straight, aside = [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]
    np.savez(tmp_path / "e.npz", id=np.array(["p2"]), gaze=[straight], predicted=[aside])
    (figure,) = make_gallery([real], 100, tmp_path / "e.npz").figures
    assert figure.title == "estimator error"
    np.testing.assert_allclose(figure.values, [np.nan, 90.0])


@pytest.mark.parametrize("name", ["missing.npz", "other.npz", "strangers.npz"])
def test_errors_that_do_not_fit_are_refused(write_eyes: Write, tmp_path: Path, name: str) -> None:
    real = write_eyes("real", ["p1"], np.array([10]))
    np.savez(tmp_path / "other.npz", a=1)
    gaze = [[0.0, 0.0, -1.0]]
    np.savez(tmp_path / "strangers.npz", id=np.array(["q"]), gaze=gaze, predicted=gaze)
    with pytest.raises(InputError, match=f"--errors .*{name}"):
        make_gallery([real], 100, tmp_path / name)


def test_name_cannot_end_the_script_that_it_is_in(write_eyes: Write, tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    out = tmp_path / "g.html"
    write_gallery(make_gallery([write_eyes("real", [name], np.array([1]))], 9, None), out)
    page = out.read_text("utf-8")
    assert "alert(1)</script>" not in page
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert json.loads(found[1])["columns"][0]["ids"] == [name]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; without it these tests skip, except in CI, where that is a failure."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed: apt-get install chromium")
    args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=args)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def gallery_of_10000(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Row i has the tone i mod 200, refined 50 lighter."""
    folder = tmp_path_factory.mktemp("gallery")
    ids = [f"eye/{row}" for row in range(10_000)]
    tones = np.arange(10_000) % 200
    synthetic = _write_eyes(folder, "synthetic", ids, tones)
    refined = _write_eyes(folder, "refined", ids, tones + 50)
    write_gallery(make_gallery([synthetic, refined], 10_000, None), folder / "gallery.html")
    return folder / "gallery.html"


@pytest.fixture
def page(browser: Any, gallery_of_10000: Path) -> Iterator[Any]:
    """The gallery at a phone's width; what it complains of or asks a network for is an error."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 375, "height": 667})
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(gallery_of_10000.as_uri())
    yield page
    page.close()
    assert [one for one in complaints if not one.startswith(("file:", "data:"))] == []


def _tones(page: Any, name: str) -> list[int]:
    """Return the tones of a card's images once they are drawn."""
    card = page.locator("figure", has=page.get_by_text(name, exact=True))
    card.locator("[data-waiting]").first.wait_for(state="detached")
    return [
        int(canvas.evaluate("c => c.getContext('2d').getImageData(2, 2, 1, 1).data[0]"))
        for canvas in card.locator("canvas").all()
    ]


def _names(page: Any) -> list[str]:
    return [text.split("\n")[0] for text in page.locator("figcaption").all_inner_texts()]


def test_ten_thousand_samples_are_scrolled_through_with_few_in_the_page(page: Any) -> None:
    assert page.inner_text("#count") == "10000 of 10000 samples"
    heights = page.evaluate("document.body.scrollHeight")
    for share in (0.25, 0.5, 1.0):
        page.evaluate("top => window.scrollTo(0, top)", share * heights)
        page.evaluate("new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
        assert page.locator("figure").count() < 60
    assert _tones(page, "eye/9999") == [199, 249]
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_filtering_by_gaze_chooses_the_rows(page: Any) -> None:
    assert _names(page)[0] == "eye/0"
    page.fill("#yaw-from", "28")
    page.keyboard.press("Enter")
    num_shown = int((np.degrees(_yaw(10_000)).round(1) >= 28).sum())
    assert page.inner_text("#count") == f"{num_shown} of 10000 samples"
    first = 10_000 - num_shown
    assert _names(page)[0] == f"eye/{first}"
    assert _tones(page, f"eye/{first}") == [first % 200, first % 200 + 50]
    page.click("button[type=reset]")
    assert page.inner_text("#count") == "10000 of 10000 samples"


def test_labels_are_drawn_over_the_images_on_demand(page: Any) -> None:
    count_colours = """() => {
      const canvas = document.querySelector("figure canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((_, i) => i % 4 === 0 && data[i] > data[i + 2] + 100).length;
    }"""
    _tones(page, "eye/0")
    assert page.evaluate(count_colours) == 0
    page.keyboard.press("o")
    assert page.evaluate(count_colours) > 20
    page.keyboard.press("o")
    assert page.evaluate(count_colours) == 0


def test_every_image_has_a_text(page: Any) -> None:
    texts = [canvas.get_attribute("aria-label") for canvas in page.locator("canvas").all()]
    assert texts[:2] == ["synthetic (synthetic.zarr): eye/0", "refined (refined.zarr): eye/0"]
    assert all(texts)


def test_sorting_puts_the_largest_figure_first(browser: Any, write_eyes: Write) -> None:
    synthetic = write_eyes("synthetic", ["a", "b", "c"], np.array([10, 20, 30]))
    real = write_eyes("real", ["p1"], np.array([22]))
    out = Path(synthetic).parent / "g.html"
    write_gallery(make_gallery([synthetic, real], 9, None), out)
    page = browser.new_page()
    page.goto(out.as_uri())
    in_order = _names(page)
    page.select_option("#sort", label="distance of synthetic to most alike real")
    largest = _names(page)
    page.uncheck("#largest")
    smallest = _names(page)
    page.close()
    assert (in_order, largest, smallest) == (["a", "b", "c"], ["a", "c", "b"], ["b", "c", "a"])
