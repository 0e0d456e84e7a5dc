"""The page for everyone: axe-core, the keyboard alone, phones and large screens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import AXE, PHONE, Screen, payload, shown, violations
from conftest import DATA
from live import Live, serving
from playwright.sync_api import Browser, expect

from service.api.auth.keys import new_key

FRONTAL = DATA / "frontal-0003.jpg"
LATERAL = DATA / "lateral-0013-header-says-pa.dcm"
FILES = (FRONTAL, LATERAL, payload("notes.txt", b"no image"))


@pytest.fixture(params=["light", "dark"])
def themed(request, browser: Browser, live: Live) -> Iterator[Screen]:
    """A tab in one theme, with axe in it, which a page's own policy would not allow."""
    options = {"color_scheme": request.param, "bypass_csp": True}
    with shown(browser, live.url, **options) as screen:
        screen.page.add_init_script(path=AXE)
        yield screen


def test_axe_finds_nothing(themed: Screen) -> None:
    """On each page and in each state, on a large screen and on a phone."""
    themed.open()
    assert violations(themed) == []
    themed.choose(*FILES).answered(3)
    themed.card(LATERAL.name).click()
    expect(themed.detail.get_by_role("slider")).to_be_visible()
    assert violations(themed) == []
    themed.card("notes.txt").click()
    assert violations(themed) == []
    themed.page.set_viewport_size(PHONE)
    themed.card(LATERAL.name).click()
    expect(themed.page.get_by_role("dialog")).to_be_visible()
    assert violations(themed) == []
    themed.page.get_by_role("button", name="Close").click()
    themed.page.get_by_role("radio", name="Review 0").check()
    assert violations(themed) == []
    themed.page.get_by_role("link", name="Model", exact=True).click()
    themed.page.get_by_role("heading", name="Provenance").wait_for()
    assert violations(themed) == []
    themed.page.set_viewport_size({"width": 1280, "height": 900})
    assert violations(themed) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_dialog_for_the_key(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, theme: str
) -> None:
    """Before and after a key is refused."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(new_key("reader", frozenset({"classify"}))[1])
    with (
        serving(folder / "log", model="swift/1.1.0", keys=str(folder / "keys")) as service,
        shown(browser, service.url, color_scheme=theme, bypass_csp=True) as screen,
    ):
        screen.page.add_init_script(path=AXE)
        screen.open().page.get_by_role("dialog").wait_for()
        assert violations(screen) == []
        screen.page.get_by_label("Key or token").fill("wrong")
        screen.page.keyboard.press("Enter")
        screen.page.get_by_role("alert").wait_for()
        assert violations(screen) == []


def test_the_keyboard_is_enough(screen: Screen) -> None:
    """From the first tab to the details of an image; the focus can be seen."""
    press = screen.page.keyboard.press
    press("Tab")
    expect(screen.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    screen.choose(*FILES).answered(3)
    press("Enter")
    cards = screen.page.get_by_role("listbox", name="Images")
    expect(cards).to_be_focused()
    press("Home")
    press("ArrowRight")
    expect(screen.card(LATERAL.name)).to_have_attribute("aria-selected", "true")
    expect(screen.detail.get_by_role("heading", name=LATERAL.name)).to_be_visible()
    active = cards.get_attribute("aria-activedescendant")
    expect(screen.page.locator(f"#{active}")).to_contain_text(LATERAL.name)
    outline = screen.card(LATERAL.name).evaluate("(it) => getComputedStyle(it).outlineWidth")
    assert outline == "3px"
    press("Tab")
    expect(screen.detail.get_by_role("radio", name="Image")).to_be_focused()
    press("ArrowRight")
    expect(screen.detail.get_by_role("radio", name="Network input")).to_be_checked()


def test_on_a_phone_the_details_are_a_dialog(browser: Browser, live: Live) -> None:
    """Enter opens it, Escape closes it and the focus is back; nothing is wider than the screen."""
    with shown(browser, live.url, viewport=PHONE) as screen:
        screen.open().choose(*FILES).answered(3)
        cards = screen.page.get_by_role("listbox", name="Images")
        cards.focus()
        screen.page.keyboard.press("End")
        screen.page.keyboard.press("Enter")
        expect(screen.page.get_by_role("dialog")).to_contain_text("Not an image")
        screen.page.keyboard.press("Escape")
        expect(cards).to_be_focused()
        wide = "() => document.documentElement.scrollWidth - innerWidth"
        assert screen.page.evaluate(wide) == 0
        screen.page.get_by_role("link", name="Model", exact=True).click()
        screen.page.get_by_role("heading", name="Sources").wait_for()
        assert screen.page.evaluate(wide) == 0


def test_nothing_moves_for_those_who_want_that(browser: Browser, live: Live) -> None:
    """With prefers-reduced-motion there are no transitions."""
    with shown(browser, live.url, reduced_motion="reduce") as screen:
        screen.open().choose(FRONTAL).answered(1)
        durations = """() => [...document.querySelectorAll("*")].map(
            (each) => getComputedStyle(each).transitionDuration)"""
        assert set(screen.page.evaluate(durations)) == {"0s"}
