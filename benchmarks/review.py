"""The page Review: the time from a key to the next picture, and what was saved at the end.

    python benchmarks/review.py [--images 200] [--pace 0.7] [--side 1000]

Needs Chromium and the extra `dev`. `--pace` is the least time in seconds between two decisions, as
of a person; with 0 a key is pressed as soon as the picture is there. The browser shares the machine
with the service.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import numpy as np
import pydicom
import servers
from PIL import Image
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import browsing
from conftest import DATA
from review_jobs import SOURCE as TEMPLATE
from review_jobs import worked

MODEL = "swift/1.1.0"
BAR_MILLISECONDS = 100
PATIENCE_MILLISECONDS = 600_000
# For each decision: from the key to the frame in which the next picture is painted
WATCH = """() => {
    window.times = [];
    addEventListener("keydown", () => {
        const start = performance.now(), before = document.querySelector(".big img")?.src;
        const look = () => {
            const image = document.querySelector(".big img");
            if (image && image.src !== before && image.complete)
                requestAnimationFrame(() => window.times.push(performance.now() - start));
            else if (document.querySelector(".big")) requestAnimationFrame(look);
        };
        look();
    }, true);
}"""


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--pace", type=float, default=0.7)
    parser.add_argument("--side", type=int, default=1000, help="pixels of the images")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        archive = write_archive(Path(name) / "archive", options.images, options.side)
        service = servers.service(
            MODEL,
            latency_budget_seconds=60,
            backfill_folder=Path(name) / "jobs",
            backfill_sources=archive,
        )
        with servers.running(service) as server, browsing() as browser:
            url = f"http://127.0.0.1:{server.port}"
            job = worked(url, archive)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE_MILLISECONDS)
            page.goto(f"{url}/#review")
            page.locator(".reviews button").click()
            times = decided(page, options.images, options.pace)
            page.get_by_text("All saved").wait_for()
            history = httpx2.get(f"{url}/v1/reviews/{job}/export?form=history").text.splitlines()
    found = {"images": options.images, "side": options.side, "pace": options.pace}
    print(json.dumps(found | summary(times) | {"saved": len(history) - 1}))


def write_archive(folder: Path, images: int, side: int) -> Path:
    """Objects of radiographs in tests/data, in pairs, one of whose headers is wrong."""
    folder.mkdir()
    sources = [Image.open(path).convert("L") for path in sorted(DATA.glob("*.jpg"))]
    pictures = [np.asarray(each.resize((side, side))).astype(np.uint16) for each in sources]
    for number in range(2 * images):
        dataset = pydicom.dcmread(TEMPLATE)
        dataset.decompress()
        pixels = pictures[number // 2 % len(pictures)] * 16 + number
        dataset.Rows, dataset.Columns, dataset.PixelData = side, side, pixels.tobytes()
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"):
            if keyword in dataset:
                delattr(dataset, keyword)
        dataset.ViewPosition = ("PA", "LL")[number % 2]
        uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.save_as(folder / f"{number:05}.dcm")
    return folder


def decided(page: Page, images: int, pace: float) -> list[float]:
    """Decide by key; milliseconds until each next picture, without the first one."""
    ready = page.locator(".decisions .frontal:not([disabled])")
    ready.wait_for()
    page.evaluate(WATCH)
    for number in range(images):
        ready.wait_for()
        page.wait_for_timeout(1000 * pace)
        page.keyboard.press("fl"[number % 2])
    page.wait_for_timeout(500)
    found: list[float] = page.evaluate("() => window.times")
    return found


def summary(times: list[float]) -> dict[str, float]:
    """Of the times, which are all but that after the last image."""
    ordered = sorted(times)
    return {
        "pictures": len(ordered),
        "median_ms": round(statistics.median(ordered), 1),
        "p99_ms": round(ordered[int(0.99 * len(ordered))], 1),
        "most_ms": round(ordered[-1], 1),
        f"over_{BAR_MILLISECONDS}_ms": sum(each > BAR_MILLISECONDS for each in ordered),
    }


if __name__ == "__main__":
    main()
