"""The page on which persons decide about images, in a real browser on a real service and job."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from browser import Screen, shown
from conftest import ROOT
from images import dicom, radiograph
from live import Live, serving
from playwright.sync_api import Browser, Locator, Route, expect
from review_jobs import worked, write_doubted

from service.api.auth.keys import new_key

AXE = ROOT / "tests" / "vendor" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE: Any = {"width": 390, "height": 844}
# For more: CXRVIEW_REVIEWED=200
MANY = int(os.environ.get("CXRVIEW_REVIEWED", "60"))  # as many as calibration needs
KEYS = {"f": "frontal", "l": "lateral", "n": "not_chest", "u": "unsure"}
MARKUP = "<img src=x onerror=alert(1)>\u202egnp.dcm"
HIDDEN = ("\u202e", "⟨U+202E⟩")  # a character, and how the page shows it


@dataclass(frozen=True)
class Served:
    """A service with keys by name, and a job that is done."""

    live: Live
    keys: dict[str, str]
    job: str

    def history(self) -> list[dict[str, str]]:
        """All decisions, as the service exports them."""
        headers = {"authorization": f"Bearer {self.keys['ann']}"}
        url = f"{self.live.url}/v1/reviews/{self.job}/export?form=history"
        text = httpx2.get(url, headers=headers).content.decode()
        return list(csv.DictReader(io.StringIO(text)))


@contextmanager
def reviewed(folder: Path, store: Path, archive: Path) -> Iterator[Served]:
    """A service whose job on the archive is done, with three readers and a client without."""
    pairs = {name: new_key(name, frozenset({"review"})) for name in ("ann", "ben", "eve")}
    pairs["it"] = new_key("it", frozenset({"classify", "backfill"}))
    folder.mkdir(exist_ok=True)
    (folder / "keys").write_text("\n".join(line for _, line in pairs.values()))
    keys = {name: key for name, (key, _) in pairs.items()}
    with serving(folder / "log", **settings(folder, store, archive)) as live:
        yield Served(live, keys, worked(live.url, archive, keys["it"]))


def settings(folder: Path, store: Path, archive: Path) -> dict[str, str]:
    return {
        "model_store": str(store),
        "model": "swift/2.0.0",
        "latency_budget_seconds": "60",
        "keys": str(folder / "keys"),
        "backfill_folder": str(folder / "jobs"),
        "backfill_sources": str(archive),
    }


@pytest.fixture
def served(headed_store: Path, tmp_path: Path) -> Iterator[Served]:
    """A job with six images on its worklist."""
    archive = write_doubted(tmp_path / "archive", 5)
    file = dicom(radiograph(128, 128), ViewPosition="PA", SOPInstanceUID="1.3.1")
    (archive / f"a{MARKUP}").write_bytes(file)
    file = dicom(radiograph(128, 128), ViewPosition="LL", SOPInstanceUID="1.3.2")
    (archive / f"b{MARKUP}").write_bytes(file)
    with reviewed(tmp_path / "service", headed_store, archive) as found:
        yield found


@contextmanager
def signed_in(browser: Browser, served: Served, name: str, **options: Any) -> Iterator[Screen]:
    """A tab with the page of a person."""
    with shown(browser, served.live.url, **options) as screen:
        screen.page.add_init_script(path=AXE)
        screen.open("#review").page.get_by_label("Key or token").fill(served.keys[name])
        screen.page.get_by_role("button", name="Continue").click()
        yield screen


def begin(screen: Screen) -> Screen:
    """Open the first job, and wait for the first picture."""
    screen.page.locator(".reviews button").click()
    picture(screen).wait_for()
    return screen


def picture(screen: Screen) -> Locator:
    return screen.page.locator(".big img")


def name(screen: Screen) -> str:
    return screen.page.locator(".side > .name").inner_text()


def press(screen: Screen, key: str) -> str:
    """Press a key as soon as the picture is there; the name of the image it was about."""
    ready = screen.page.get_by_role("button", name="F Frontal")
    expect(ready).to_be_enabled()
    found = name(screen)
    screen.page.keyboard.press(key)
    return found


def saved(screen: Screen) -> None:
    expect(screen.page.locator(".saved")).to_have_text("All saved")


def violations(screen: Screen) -> list[str]:
    run = """async (tags) => JSON.stringify(
        (await axe.run(document, { runOnly: tags })).violations.map(
            ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`))"""
    found: list[str] = json.loads(screen.page.evaluate(run, RULES))
    return found


def test_each_key_decides_and_z_takes_back(browser: Browser, served: Served) -> None:
    """In the order of the worklist; the history has all of it."""
    with signed_in(browser, served, "ann") as screen:
        begin(screen)
        said = [(press(screen, key), decision) for key, decision in KEYS.items()]
        screen.page.keyboard.press("z")
        expect(screen.page.locator(".side > .name")).to_have_text(said[-1][0])
        said.append((said[-1][0], ""))
        screen.page.keyboard.press("Control+f")  # the browser's own
        screen.page.keyboard.press("x")
        saved(screen)
        history = [(each["locator"], each["decision"]) for each in served.history()]
        assert [(locator.replace(*HIDDEN), decision) for locator, decision in history] == said
        assert {(each["reader"], each["role"]) for each in served.history()} == {("ann", "reader")}
        said.append((press(screen, "L"), "lateral"))
        screen.page.get_by_role("button", name="Z Undo").click()
        expect(screen.page.locator(".side > .name")).to_have_text(said[-1][0])
        saved(screen)
        assert len(served.history()) == 7
        assert not [url for url in screen.sent if "dcm" in url or "1.2." in url]


def test_keys_do_nothing_elsewhere(browser: Browser, served: Served) -> None:
    """Where the focus is outside of the main part of the page."""
    with signed_in(browser, served, "ann") as screen:
        begin(screen)
        first = name(screen)
        screen.page.get_by_role("link", name="cxrview", exact=True).focus()
        screen.page.keyboard.press("f")
        assert name(screen) == first
        screen.page.locator(".big").click()
        screen.page.keyboard.press("f")
        expect(screen.page.locator(".side > .name")).not_to_have_text(first)
        saved(screen)


def test_two_readers_and_an_adjudicator(browser: Browser, served: Served) -> None:
    """The second one does not see the first one's; conflicts go to a third person."""
    with signed_in(browser, served, "ann") as screen:
        begin(screen)
        for key in "ff":
            press(screen, key)
        saved(screen)
    with signed_in(browser, served, "ben") as screen:
        begin(screen).page.get_by_label("Second reading").check()
        picture(screen).wait_for()
        assert "ann" not in screen.page.locator(".side").inner_text()
        for key in "fl":
            press(screen, key)
        expect(screen.page.get_by_text("There is no image that one other")).to_be_visible()
        saved(screen)
    with signed_in(browser, served, "eve") as screen:
        begin(screen).page.get_by_label("Conflicts").check()
        expect(screen.page.locator(".side")).to_contain_text("annFrontal")
        expect(screen.page.locator(".side")).to_contain_text("benLateral")
        press(screen, "l")
        saved(screen)
        screen.page.get_by_text("State of this review").click()
        row = screen.page.get_by_role("row").filter(has_text="ann, ben")
        expect(row).to_contain_text("50.0 %")
        expect(row).to_contain_text("0.000")
    assert [each["role"] for each in served.history()][-1] == "adjudicator"


def test_names_are_shown_as_text(browser: Browser, served: Served) -> None:
    """Markup of a file's name is no markup, and characters that would hide it are visible."""
    with signed_in(browser, served, "ann") as screen:
        begin(screen)
        seen = [press(screen, "f") for _ in range(6)]
        saved(screen)
    hostile = [each for each in seen if "<img" in each]
    assert len(hostile) == 1
    assert "\u202e" not in hostile[0]
    assert "202E" in hostile[0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, served: Served, theme: str) -> None:
    """In the list, while deciding, and at the end; on a phone nothing is wider than the screen."""
    options = {"color_scheme": theme, "bypass_csp": True}
    with signed_in(browser, served, "ann", **options) as screen:
        screen.page.locator(".reviews button").wait_for()
        assert violations(screen) == []
        begin(screen)
        press(screen, "f")
        screen.page.get_by_text("State of this review").click()
        saved(screen)
        assert violations(screen) == []
        screen.page.set_viewport_size(PHONE)
        assert violations(screen) == []
        assert screen.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") == 0
        screen.page.get_by_label("Conflicts").check()
        screen.page.get_by_text("There is no image whose readers differ").wait_for()
        assert violations(screen) == []


def test_others_do_not_see_the_page(browser: Browser, served: Served) -> None:
    """Who lacks the permission has no link to it, and is told why where the address is known."""
    with signed_in(browser, served, "it") as screen:
        expect(screen.page.get_by_text("This page needs the permission review.")).to_be_visible()
        expect(screen.page.get_by_role("link", name="Review")).to_have_count(0)


def test_answers_that_are_cut_off_are_asked_for_again(browser: Browser, served: Served) -> None:
    """As of a service that dies in the middle of a worklist and of a picture."""
    cut: dict[str, int] = {}

    def cut_once(route: Route) -> None:
        url = route.request.url
        cut[url] = cut.get(url, 0) + 1
        if cut[url] == 1:
            route.fulfill(content_type="application/json", body='{"entries": [{"place"')
        else:
            route.continue_()

    with signed_in(browser, served, "ann") as screen:
        screen.page.route(re.compile("/worklist|/pictures/"), cut_once)
        begin(screen)
        for _ in range(2):
            press(screen, "f")
        saved(screen)
    assert len(served.history()) == 2
    # The worklist and the two pictures; of those that are loaded ahead, not all come
    assert list(cut.values()).count(2) >= 3


def test_downloads(browser: Browser, served: Served) -> None:
    """The labels as a manifest, by the name of its form."""
    with signed_in(browser, served, "ann") as screen:
        begin(screen)
        press(screen, "f")
        saved(screen)
        screen.page.get_by_text("State of this review").click()
        with screen.page.expect_download() as found:
            screen.page.get_by_role("button", name="Labels").click()
        assert found.value.suggested_filename == "manifest.csv"
        assert found.value.path().read_text().startswith('"file","view","patient_id","source"\n')


def test_no_decision_is_lost_when_the_service_is_killed(
    browser: Browser, headed_store: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of many images, decided by key; the page goes on by itself."""
    archive = write_doubted(tmp_path / "archive", MANY)
    folder = tmp_path / "service"
    with (
        reviewed(folder, headed_store, archive) as first,
        signed_in(browser, first, "ann") as screen,
    ):
        begin(screen)
        said = [(press(screen, "fl"[number % 2]), number) for number in range(MANY // 2)]
        first.live.process.kill()
        first.live.process.wait()
        command = ("serve", "--port", str(first.live.port))
        again = settings(folder, headed_store, archive)
        with serving(folder / "log", command=command, **again) as live:
            said += [(press(screen, "fl"[number % 2]), number) for number in range(MANY // 2, MANY)]
            saved(screen)
            history = Served(live, first.keys, first.job).history()
            screen.page.get_by_text("State of this review").click()
            expect(screen.page.locator(".command")).to_contain_text(
                f"swift/2.0.0 --manifest manifest.csv --images '{archive}' --version 2.0.1"
            )
        screen.faults[:] = [each for each in screen.faults if "ERR_" not in each]
    expected = [(locator, ("frontal", "lateral")[number % 2]) for locator, number in said]
    assert [(each["locator"], each["decision"]) for each in history] == expected
    assert len({locator for locator, _ in said}) == MANY
