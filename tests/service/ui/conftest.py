"""A real browser with the page of a real service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Screen, browsing, shown
from live import Live, serving
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, or a skipped test."""
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def live(headed_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service whose model has all heads; patient, as the machine may be slow."""
    log = tmp_path_factory.mktemp("page") / "log"
    settings = {"model_store": str(headed_store), "model": "swift/2.0.0"}
    with serving(log, latency_budget_seconds="60", **settings) as service:
        yield service


@pytest.fixture
def screen(browser: Browser, live: Live) -> Iterator[Screen]:
    """A tab with the page."""
    with shown(browser, live.url) as found:
        yield found.open()
