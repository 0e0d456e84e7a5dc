"""The page where the service asks for a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Screen, payload, shown
from conftest import DATA
from live import Live, serving
from playwright.sync_api import Browser, expect

from service.api.auth.keys import new_key

FRONTAL = DATA / "frontal-0003.jpg"


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    """By permission: a key, and its line of the file."""
    return {
        "classify": new_key("reader", frozenset({"classify"})),
        "backfill": new_key("archive", frozenset({"backfill"})),
    }


@pytest.fixture(scope="module")
def guarded(
    keys: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """A service that answers with a key only."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text("\n".join(line for _, line in keys.values()))
    settings = {"keys": str(folder / "keys"), "latency_budget_seconds": "60"}
    with serving(folder / "log", model="swift/1.1.0", **settings) as service:
        yield service


@pytest.fixture
def asked(browser: Browser, guarded: Live) -> Iterator[Screen]:
    """A tab with its page."""
    with shown(browser, guarded.url) as found:
        yield found.open()


def give(screen: Screen, key: str) -> None:
    screen.page.get_by_label("Key or token").fill(key)
    screen.page.get_by_role("button", name="Continue").click()


def test_the_page_asks_for_a_key_and_goes_on_with_it(asked: Screen, keys, guarded: Live) -> None:
    """A wrong one is refused; the right one is held in memory only."""
    key = keys["classify"][0]
    expect(asked.page.get_by_role("dialog", name="API key")).to_be_visible()
    give(asked, "cxr_wrong")
    expect(asked.page.get_by_role("alert")).to_have_text("The service does not accept this key.")
    give(asked, key)
    expect(asked.page.get_by_role("link", name="swift/1.1.0")).to_be_visible()
    asked.choose(FRONTAL).answered(1)
    expect(asked.card(FRONTAL.name)).to_contain_text("Frontal")
    stored = asked.page.evaluate(
        "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert stored == '[{},{},""]'
    assert not [url for url in asked.sent if key in url]
    asked.page.reload()
    expect(asked.page.get_by_role("dialog", name="API key")).to_be_visible()


def test_files_wait_for_the_key(asked: Screen, keys) -> None:
    """Those that were chosen without one, too."""
    asked.page.get_by_role("button", name="Not now").click()
    asked.choose(FRONTAL)
    expect(asked.page.get_by_role("dialog", name="API key")).to_be_visible()
    give(asked, keys["classify"][0])
    asked.answered(1)
    asked.page.get_by_role("button", name="Forget the key").click()
    asked.choose(FRONTAL)
    expect(asked.page.get_by_role("dialog", name="API key")).to_be_visible()


def test_a_key_without_the_permission_is_said_so(asked: Screen, keys) -> None:
    """The image has the problem of the service."""
    give(asked, keys["backfill"][0])
    asked.choose(FRONTAL).answered(1)
    expect(asked.detail).to_contain_text("Not permitted")


def test_the_curl_line_names_no_key(browser: Browser, guarded: Live, keys, tmp_path: Path) -> None:
    """But the variable that a shell may hold it in."""
    permissions = ["clipboard-read", "clipboard-write"]
    with shown(browser, guarded.url, permissions=permissions) as screen:
        give(screen.open(), keys["classify"][0])
        screen.choose(FRONTAL).answered(1)
        line = screen.copied("Copy curl command")
    assert '"Authorization: Bearer $KEY"' in line
    assert keys["classify"][0] not in line


def test_without_the_permission_many_files_are_sent_one_by_one(asked: Screen, keys) -> None:
    """A group needs `backfill`."""
    give(asked, keys["classify"][0])
    expect(asked.page.get_by_role("link", name="swift/1.1.0")).to_be_visible()
    asked.choose(*(payload(str(n), FRONTAL.read_bytes()) for n in range(60))).answered(60)
    assert not [url for url in asked.sent if url.endswith("/batch")]
