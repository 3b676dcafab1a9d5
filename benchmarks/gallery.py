"""Measure a gallery of 10,000 samples, three images each, in headless Chromium.

    python benchmarks/gallery.py

Images are noise (55×35 grey), which compresses least. Prints the time to make the page, its size,
the time until the first images are drawn, and the times between frames while scrolling for 5 s, in
the dataset's order and sorted, where neighbours come from everywhere: at 4,000 px/s, as a finger
flings, and at 80,000 px/s, as a dragged scroll bar, which shows another screenful in every frame.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from storage.samples import SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec, Domain
from storage.writer import DatasetWriter
from tasks.viewing.gallery import make_gallery
from tasks.viewing.gallery_page import write_gallery

NUM_SAMPLES = 10_000
SCROLL = """async (speed) => {
  const gaps = [];
  const started = performance.now();
  let last = started;
  for (;;) {
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
    if (now - started > 5000) return gaps.slice(1);
    scrollTo(0, speed * (now - started) / 1000);
  }
}"""


def main() -> None:
    """Print the figures."""
    domains: tuple[Domain, ...] = ("synthetic", "refined", "real")
    with tempfile.TemporaryDirectory() as folder:
        urls = [write_noise(Path(folder), domain, seed) for seed, domain in enumerate(domains)]
        out = Path(folder) / "gallery.html"
        started = time.perf_counter()
        num_bytes = write_gallery(make_gallery(urls, NUM_SAMPLES, None), out)
        seconds = time.perf_counter() - started
        print(f"made in {seconds:.0f} s: {num_bytes / 1e6:.0f} MB")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            started = time.perf_counter()
            page.goto(out.as_uri())
            page.wait_for_selector("canvas:not([data-waiting])")
            print(f"first images after {time.perf_counter() - started:.1f} s")
            for order in ("order in the dataset", "distance of refined to most alike real"):
                page.select_option("#sort", label=order)
                for speed in (4_000, 80_000):
                    report(order, speed, page)
            browser.close()


def report(order: str, speed: int, page: Any) -> None:
    """Scroll, and print the times between frames and how soon the last images are there."""
    median, late, worst = np.percentile(page.evaluate(SCROLL, speed), [50, 95, 100])
    started = time.perf_counter()
    page.wait_for_function("!document.querySelector('[data-waiting]')")
    settled = time.perf_counter() - started
    print(
        f"by {order}, {speed:,} px/s: frames every {median:.0f} ms (median), {late:.0f} "
        f"(95th percentile), {worst:.0f} (worst); images complete {settled * 1e3:.0f} ms after"
    )


def write_noise(folder: Path, domain: Domain, seed: int) -> str:
    """Write a labelled dataset of noise; synthetic and refined rows have the same ids."""
    rng = np.random.default_rng(seed)
    spec = DatasetSpec(
        num_rows=NUM_SAMPLES,
        height=35,
        width=55,
        channels=1,
        dtype="uint8",
        labels=(GAZE, PUPIL_PX),
        domain=domain,
        source={"name": "noise", "seed": seed},
        preprocess="none",
    )
    images = rng.integers(0, 256, (NUM_SAMPLES, 35, 55, 1), dtype=np.uint8)
    labels = {
        "gaze": np.tile(np.float32([0.1, 0.1, -0.99]), (NUM_SAMPLES, 1)),
        "pupil_px": np.tile(np.float32([27, 17]), (NUM_SAMPLES, 1)),
    }
    prefix = "real" if domain == "real" else "made"
    ids = [f"{prefix}/{row}" for row in range(NUM_SAMPLES)]
    writer = DatasetWriter.open(str(folder / f"{domain}.zarr"), spec)
    writer.write_shard(0, SampleBlock(images, np.ones(NUM_SAMPLES, dtype=bool), ids, labels))
    return writer.finish().url


if __name__ == "__main__":
    main()
