"""The page Review: the time from a key to the next picture, and what was saved at the end.

    python benchmarks/review.py [--images 200] [--pace 0.7] [--side 1000]

Needs Chromium and the extra `dev`. `--pace` is the least time in seconds between two decisions, as
of a person; with 0 a key is pressed as soon as the picture is there. The browser shares the machine
with the service.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import numpy as np
import pydicom
from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent.parent / "tests" / "data"
TEMPLATE = IMAGES / "lateral-0013-header-says-pa.dcm"
CHROMIUM = "/usr/bin/chromium"
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
        with served(Path(name), archive) as url, sync_playwright() as playwright:
            job = worked(url, archive)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
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
    sources = [Image.open(path).convert("L") for path in sorted(IMAGES.glob("*.jpg"))]
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


def worked(url: str, archive: Path) -> str:
    """Classify the archive; the id of the job."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        path: str = client.post("/v1/backfills", json={"source": str(archive)}).headers["location"]
        while client.get(path).json()["state"] != "done":
            time.sleep(0.2)
    return path.rpartition("/")[2]


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


@contextmanager
def served(folder: Path, archive: Path) -> Iterator[str]:
    """The address of a service, until the block ends."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--model", MODEL]
    environment = os.environ | {
        "CXRVIEW_LATENCY_BUDGET_SECONDS": "60",
        "CXRVIEW_BACKFILL_FOLDER": str(folder / "jobs"),
        "CXRVIEW_BACKFILL_SOURCES": str(archive),
    }
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = (re.search(r"running on (\S+)", line) for line in process.stderr)
        yield next(found[1] for found in lines if found)
        process.terminate()


if __name__ == "__main__":
    main()
