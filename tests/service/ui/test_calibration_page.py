"""The calibration on the page Review, with a real service, job and calibration."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import AXE, PHONE, SLOW_MILLISECONDS, Screen, shown, violations
from live import Live, serving
from playwright.sync_api import Browser, Locator, expect
from review_jobs import decide_by_model, worked, write_varied

from model_store import Store
from service.api.auth.keys import new_key

DECIDED = 60
PERMISSIONS = {"boss": {"review", "admin"}, "ann": {"review"}, "it": {"backfill"}}


@dataclass(frozen=True)
class Served:
    """A service with keys by name, a job that is done, and a store of its own."""

    live: Live
    keys: dict[str, str]
    job: str
    store: Store


@pytest.fixture
def served(headed_store: Path, tmp_path: Path) -> Iterator[Served]:
    """A job with as many images on its worklist as calibration needs."""
    pairs = {name: new_key(name, frozenset(own)) for name, own in PERMISSIONS.items()}  # type: ignore[arg-type]
    (tmp_path / "keys").write_text("\n".join(line for _, line in pairs.values()))
    keys = {name: key for name, (key, _) in pairs.items()}
    shutil.copytree(headed_store, tmp_path / "store")
    (tmp_path / "scratch").mkdir()
    archive = write_varied(tmp_path / "archive", DECIDED)
    settings = {
        "model_store": str(tmp_path / "store"),
        "model": "swift/2.0.0",
        "latency_budget_seconds": "60",
        "keys": str(tmp_path / "keys"),
        "backfill_folder": str(tmp_path / "jobs"),
        "backfill_sources": str(archive),
        "calibration_folder": str(tmp_path / "scratch"),
    }
    with serving(tmp_path / "log", **settings) as live:
        job = worked(live.url, archive, keys["it"])
        yield Served(live, keys, job, Store(tmp_path / "store"))


@contextmanager
def reviewing(browser: Browser, served: Served, name: str, **options: Any) -> Iterator[Screen]:
    """A tab of a person, in which the state of the review is open."""
    with shown(browser, served.live.url, **options) as screen:
        screen.page.add_init_script(path=AXE)
        screen.open("#review").page.get_by_label("Key or token").fill(served.keys[name])
        screen.page.get_by_role("button", name="Continue").click()
        screen.page.locator(".reviews button").click()
        screen.page.get_by_text("State of this review").click()
        yield screen


def button(screen: Screen) -> Locator:
    return screen.page.get_by_role("button", name="Calibrate", exact=True)


def cells(screen: Screen, row: str) -> list[str]:
    """Before and after, of a row of the table."""
    name = screen.page.get_by_role("rowheader", name=row, exact=True)
    found: list[str] = name.locator("xpath=following-sibling::td").all_inner_texts()
    return found


def test_a_person_calibrates(browser: Browser, served: Served) -> None:
    """The button says why it is not offered, then what happens, and what has changed."""
    options = {"bypass_csp": True}
    with reviewing(browser, served, "boss", **options) as screen:
        expect(button(screen)).to_be_disabled()
        few = "Not now: it needs 60 images that are decided frontal or lateral; there are 0."
        expect(button(screen)).to_have_accessible_description(few)
        assert violations(screen) == []
    decide_by_model(served.live.url, served.job, DECIDED, served.keys["ann"])
    with reviewing(browser, served, "ann", **options) as screen:
        expect(button(screen)).to_be_disabled()
        denied = "Not now: it needs the permission admin, too."
        expect(button(screen)).to_have_accessible_description(denied)
        expect(screen.page.locator(".command")).to_contain_text("calibrate swift/2.0.0")
        assert violations(screen) == []
    with reviewing(browser, served, "boss", color_scheme="dark", **options) as screen:
        expect(button(screen)).to_be_enabled()
        expect(screen.page.locator(".command")).to_have_count(0)
        button(screen).click()
        expect(screen.page.get_by_label("Progress of the calibration")).to_be_visible()
        expect(button(screen)).to_be_disabled()
        assert violations(screen) == []
        told = screen.page.get_by_text("swift/2.0.1 is in the model store.")
        told.wait_for(timeout=4 * SLOW_MILLISECONDS)
        old, new = (served.store.load(f"swift/2.0.{number}").card for number in range(2))
        assert cells(screen, "Cutoff of PFI") == [f"{card.threshold:.4f}" for card in (old, new)]
        assert old.threshold != new.threshold
        before, after = cells(screen, "Errors")
        assert f" of {DECIDED} (" in before
        right = new.evaluations[0].accuracy.count
        assert after.startswith(f"{DECIDED - right} of {DECIDED} (")
        assert len(cells(screen, "Mirrored: cutoff")) == 2
        expect(screen.page.locator(".calibrate")).to_contain_text("CXRVIEW_MODEL=swift/2.0.1")
        expect(button(screen)).to_be_enabled()
        assert violations(screen) == []
        screen.page.set_viewport_size(PHONE)
        assert violations(screen) == []
        assert screen.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") == 0
        table = screen.page.get_by_role("region", name="Before and after")
        assert table.evaluate("(it) => it.scrollWidth - it.clientWidth") == 0
