"""The page with hundreds of files: images per second beside those of the API, frames and memory.

    python benchmarks/page.py [--images 500] [--rounds 3]

Needs Chromium and the extra `dev`. The browser shares the machine with the service: compare the
rates of one run only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import servers
from playwright.sync_api import CDPSession, Page

from cxrview import Client

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import browsing
from conftest import DATA

MODEL = "swift/1.1.0"
CONNECTIONS = 6  # as many as a browser opens
PATIENCE_MILLISECONDS = 600_000
# The times between frames while the list scrolls from its top to its end
SCROLL = """() => new Promise((resolve) => {
    const times = [], step = innerHeight / 4;
    let last = performance.now();
    const next = (now) => {
        times.push(now - last);
        last = now;
        scrollBy(0, step);
        if (times.length < 200) requestAnimationFrame(next);
        else resolve(times.slice(1));
    };
    requestAnimationFrame(next);
})"""


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    service = servers.service(MODEL, latency_budget_seconds=60)
    with TemporaryDirectory() as folder, servers.running(service) as server:
        files, url = copies(Path(folder), options.images), f"http://127.0.0.1:{server.port}"
        found = {"images": options.images, "api": [], "page": []}
        with browsing() as browser, Client(url, retries=100) as client:
            for _ in range(options.rounds):  # in turn, as the machine's speed changes
                found["api"].append(len(files) / api_seconds(client, files))
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(PATIENCE_MILLISECONDS)
                found["page"].append(len(files) / page_seconds(page, url, files))
                found |= measured(page)
                print(json.dumps(found), file=sys.stderr)
                page.close()
    found["ratio"] = statistics.median(found["page"]) / statistics.median(found["api"])
    print(json.dumps(found))


def copies(folder: Path, count: int) -> list[Path]:
    """So many files, of the radiographs in tests/data in turn."""
    sources = sorted(DATA.glob("*.jpg"))
    files = [folder / f"{n:04}.jpg" for n in range(count)]
    for number, path in enumerate(files):
        path.write_bytes(sources[number % len(sources)].read_bytes())
    return files


def api_seconds(client: Client, files: list[Path]) -> float:
    """The time in which the API answers them."""
    start = time.perf_counter()
    answers = list(client.classify_many(files, connections=CONNECTIONS))
    assert all(each.error is None for each in answers)
    return time.perf_counter() - start


def page_seconds(page: Page, url: str, files: list[Path]) -> float:
    """The time from the choice of the files to the last answer."""
    page.goto(url)
    page.locator("a.model-name").wait_for()
    start = time.perf_counter()
    page.locator("input[type=file]").first.set_input_files(files)
    page.get_by_text(f"{len(files)} images answered").first.wait_for()
    return time.perf_counter() - start


def measured(page: Page) -> dict[str, float]:
    """Frames while scrolling, in milliseconds, and the memory of scripts, in MB.

    `frame_work_ms` is the CPU time of the page's thread for a frame, so other work on the machine
    does not count. Between frames, browsers wait for the screen, 16.7 ms at 60 Hz.
    """
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = metrics_of(session)["TaskDuration"]
    times = sorted(page.evaluate(SCROLL))
    work = metrics_of(session)["TaskDuration"] - before
    session.send("HeapProfiler.collectGarbage")
    metrics = metrics_of(session)
    return {
        "frame_work_ms": 1000 * work / len(times),
        "frame_median_ms": statistics.median(times),
        "frame_p95_ms": times[int(0.95 * len(times))],
        "heap_mb": metrics["JSHeapUsedSize"] / 1e6,
        "nodes": metrics["Nodes"],
    }


def metrics_of(session: CDPSession) -> dict[str, float]:
    """What the browser says of the page."""
    found = session.send("Performance.getMetrics")["metrics"]
    return {each["name"]: each["value"] for each in found}


if __name__ == "__main__":
    main()
