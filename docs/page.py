"""Draw the pictures in page.md and review.md, in both themes: of the radiographs in tests/data.

python docs/page.py        needs Chromium and the extra `dev`
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
IMAGES = HERE.parent / "tests" / "data"
CHROMIUM = "/usr/bin/chromium"
VIEW = {"width": 1280, "height": 860}
PATIENCE_MILLISECONDS = 120_000


def main() -> None:
    """Photograph the page in both themes."""
    files = sorted(path for path in IMAGES.iterdir() if path.suffix in {".jpg", ".dcm"})
    with (
        TemporaryDirectory(prefix="cxrview-") as folder,
        served(Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        work(url, shutil.copytree(IMAGES, Path(folder) / "archive"))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(viewport=VIEW, color_scheme=theme)  # type: ignore[arg-type]
            page.set_default_timeout(PATIENCE_MILLISECONDS)
            page.goto(url)
            page.locator("input[type=file]").first.set_input_files(files)
            page.get_by_text(f"{len(files)} images answered").first.wait_for()
            page.locator(".card").filter(has_text="header-says").click()
            page.locator("article.detail .picture img").wait_for()
            page.wait_for_timeout(1000)  # for the pictures of all cards
            page.screenshot(path=HERE / f"page-{theme}.png")
            page.get_by_role("link", name="Review").click()
            page.locator(".reviews button").click()
            page.locator(".big img").wait_for()
            page.wait_for_timeout(1000)
            page.screenshot(path=HERE / f"review-{theme}.png")


def work(url: str, archive: Path) -> None:
    """Let the service classify an archive as a job, and wait until it is done."""
    with httpx2.Client(base_url=url, timeout=60) as client:
        path = client.post("/v1/backfills", json={"source": str(archive)}).headers["location"]
        while client.get(path).json()["state"] != "done":
            time.sleep(0.2)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a service, until the block ends."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    environment = os.environ | {
        "CXRVIEW_LATENCY_BUDGET_SECONDS": "60",  # the browser is busy, too
        "CXRVIEW_BACKFILL_FOLDER": str(folder / "jobs"),
        "CXRVIEW_BACKFILL_SOURCES": str(folder),
    }
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = (re.search(r"running on (\S+)", line) for line in process.stderr)
        yield next(found[1] for found in lines if found)
        process.terminate()


if __name__ == "__main__":
    main()
