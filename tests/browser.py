"""A real browser for tests: an installed Chromium, or the one that .ci/tools fetches."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import needs
import pytest
from conftest import ROOT
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

SLOW_MILLISECONDS = 60_000  # a machine with two busy cores
# What a browser says of each answer of a problem, as of a file that is no image
OF_PROBLEMS = "Failed to load resource: the server responded with a status of"
TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
    console.error("CSP", event.violatedDirective, event.blockedURI))"""

AXE = ROOT / "tests" / "vendor" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE: Any = {"width": 390, "height": 844}


def chromium() -> str:
    """The program; where there is none, the test is skipped."""
    fetched = Path(os.environ.get("CXRVIEW_TOOLS", ".")) / "clients/bin/chromium"
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and not fetched.is_file():
        pytest.skip(needs.CHROMIUM)
    return found or str(fetched)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, until the block ends.

    Not for a whole run of tests: while one is open, `asyncio.run` does not work.
    """
    program = chromium()
    expect.set_options(timeout=SLOW_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Screen:
    """A tab with the page of a service, and what went wrong in it."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)  # errors, and requests to elsewhere
    sent: list[str] = field(default_factory=list)  # addresses of requests
    others: set[str] = field(default_factory=set)  # origins that it may send requests to, too

    def __post_init__(self) -> None:
        self.page.set_default_timeout(SLOW_MILLISECONDS)
        self.page.add_init_script(TELL_VIOLATIONS)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))
        self.page.on("console", self._said)
        self.page.on("request", self._requested)

    def _said(self, message: Any) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(OF_PROBLEMS):
            self.faults.append(message.text)

    def _requested(self, request: Any) -> None:
        self.sent.append(request.url)
        address = urlsplit(request.url)
        allowed = {self.url, *self.others}
        if address.scheme not in {"blob", "data"} and f"http://{address.netloc}" not in allowed:
            self.faults.append(f"a request to {request.url}")

    def open(self, place: str = "") -> Screen:
        """Go to the page, and wait until it is there."""
        self.page.goto(f"{self.url}/{place}")
        self.page.get_by_role("contentinfo").wait_for()
        return self

    def choose(self, *files: Path | dict[str, Any]) -> Screen:
        """Choose files, by path or as {name, mimeType, buffer}."""
        chosen = [
            payload(each.name, each.read_bytes()) if isinstance(each, Path) else each
            for each in files
        ]
        self.page.locator("input[type=file]").first.set_input_files(chosen)  # type: ignore[arg-type]
        return self

    def answered(self, count: int) -> Screen:
        """Wait until so many images are answered, and none is left."""
        noun = "image" if count == 1 else "images"
        said = self.page.get_by_text(f"{count} {noun} answered", exact=True).first
        said.wait_for(timeout=max(SLOW_MILLISECONDS, 2000 * count))
        return self

    def copied(self, button: str) -> str:
        """What a button of the details copies; the tab must be allowed to read the clipboard."""
        read, write = "navigator.clipboard.readText()", "navigator.clipboard.writeText('')"
        self.page.evaluate(f"() => {write}")
        self.detail.get_by_role("button", name=button).click()
        while not (found := self.page.evaluate(f"() => {read}")):
            self.page.wait_for_timeout(50)
        return str(found)

    def card(self, text: str) -> Locator:
        """A card of the list."""
        return self.cards.filter(has_text=text)

    @property
    def cards(self) -> Locator:
        """The cards on the screen. Choices of a select have their role, too."""
        return self.page.locator(".card")

    @property
    def detail(self) -> Locator:
        """All that is known of the selected image."""
        return self.page.locator("article.detail")


@contextmanager
def shown(browser: Browser, url: str, **options: Any) -> Iterator[Screen]:
    """A tab of its own, which must have no error at its end."""
    context: BrowserContext = browser.new_context(
        **{"viewport": {"width": 1280, "height": 900}, **options}
    )
    try:
        screen = Screen(context.new_page(), url)
        yield screen
        assert screen.faults == []
    finally:
        context.close()


def violations(screen: Screen) -> list[str]:
    """What axe, which must be in the page, finds on it as it is now."""
    run = """async (tags) => JSON.stringify(
        (await axe.run(document, { runOnly: tags })).violations.map(
            ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`))"""
    found: list[str] = json.loads(screen.page.evaluate(run, RULES))
    return found


def payload(name: str, data: bytes) -> dict[str, Any]:
    """A file of a browser, with any name."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}
