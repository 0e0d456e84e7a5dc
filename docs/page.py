"""Draw the pictures in page.md and review.md, in both themes: of the radiographs in tests/data.

python docs/page.py        needs Chromium and the extras `dev` and `backfill`
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import browsing

HERE = Path(__file__).parent
IMAGES = HERE.parent / "tests" / "data"
VIEW = {"width": 1280, "height": 860}
PATIENCE_MILLISECONDS = 120_000
COMMIT_MILLISECONDS = 600_000  # until the first thousand images of a job are committed
COPIES = 400  # of each radiograph in the job that still runs


def main() -> None:
    """Photograph the pages in both themes."""
    files = sorted(path for path in IMAGES.iterdir() if path.suffix in {".jpg", ".dcm"})
    with browsing() as browser, tempfile.TemporaryDirectory(prefix="cxrview-") as folder:
        with served() as url:
            for theme in ("light", "dark"):
                with opened(browser, theme, url) as page:
                    classify(page, files, HERE / f"page-{theme}.png")
        archive = filled(Path(folder) / "archive", files)
        jobs = {"FOLDER": f"{folder}/jobs", "SOURCES": str(archive)}
        settings = {f"CXRVIEW_BACKFILL_{name}": value for name, value in jobs.items()}
        with served(**settings) as url:
            for theme in ("light", "dark"):
                with opened(browser, theme, f"{url}/#jobs") as page:
                    follow(page, HERE / f"page-jobs-{theme}.png")
                with opened(browser, theme, f"{url}/#review") as page:
                    review(page, HERE / f"review-{theme}.png")


@contextmanager
def opened(browser: Browser, theme: str, url: str) -> Iterator[Page]:
    """A tab with the page, until the block ends."""
    page = browser.new_page(viewport=VIEW, color_scheme=theme)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    page.goto(url)
    yield page
    page.close()


def classify(page: Page, files: list[Path], picture: Path) -> None:
    """Photograph classified radiographs, one of them selected."""
    page.locator("input[type=file]").first.set_input_files(files)
    page.get_by_text(f"{len(files)} images answered").first.wait_for()
    page.locator(".card").filter(has_text="header-says").click()
    page.locator("article.detail .picture img").wait_for()
    page.wait_for_timeout(1000)  # for the pictures of all cards
    page.screenshot(path=picture)


def follow(page: Page, picture: Path) -> None:
    """Photograph a job that is done, and one that runs; then cancel that one."""
    for year in ("2024", "2025"):
        page.get_by_role("button", name="New job").click()
        page.get_by_label("Path below it").fill(year)
        page.get_by_role("button", name="Start job").click()
        page.get_by_role("dialog").wait_for(state="detached")
    running, done = (page.get_by_role("article").nth(place) for place in (0, 1))
    done.get_by_role("button", name="Details").click()
    page.get_by_role("table").wait_for()
    running.get_by_text(re.compile(r"^1,\d{3} of")).wait_for(timeout=COMMIT_MILLISECONDS)
    page.screenshot(path=picture)
    running.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    running.get_by_text("Cancelled").wait_for()


def review(page: Page, picture: Path) -> None:
    """Photograph the first image that a person should decide about."""
    page.locator(".reviews button").first.click()
    page.locator(".big img").wait_for()
    page.wait_for_timeout(1000)
    page.screenshot(path=picture)


def filled(archive: Path, files: list[Path]) -> Path:
    """An archive with the radiographs in one folder, and many of the JPEGs in another."""
    for year in ("2024", "2025"):
        (archive / year).mkdir(parents=True)
    for path in files:
        (archive / "2024" / path.name).write_bytes(path.read_bytes())
        for number in range(COPIES if path.suffix == ".jpg" else 0):
            # What follows the end of a JPEG is not read, but makes it another file
            data = path.read_bytes() + number.to_bytes(4, "big")
            (archive / "2025" / f"{path.stem}-{number}.jpg").write_bytes(data)
    return archive


@contextmanager
def served(**settings: str) -> Iterator[str]:
    """The address of a service, until the block ends."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    # The browser is busy, too
    environment = os.environ | {"CXRVIEW_LATENCY_BUDGET_SECONDS": "60"} | settings
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = (re.search(r"running on (\S+)", line) for line in process.stderr)
        try:
            yield next(found[1] for found in lines if found)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
