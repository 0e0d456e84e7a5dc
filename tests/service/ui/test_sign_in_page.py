"""Signing in on the page with a real identity provider, in a window of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from browser import AXE, PHONE, Screen, shown, violations
from conftest import DATA
from identity_provider import AUDIENCE, CLIENT, Provider, providing
from live import Live, serving
from playwright.sync_api import Browser, Page, Route, expect

Change = Callable[[Provider], None]
FRONTAL = DATA / "frontal-0003.jpg"
STORED = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with providing() as found:
        yield found


@pytest.fixture(scope="module")
def signing(running: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that accepts its tokens only."""
    folder = tmp_path_factory.mktemp("signing")
    (folder / "archive").mkdir()
    settings = {
        "oidc_issuer": running.issuer,
        "oidc_audience": AUDIENCE,
        "oidc_client_id": CLIENT,
        "oidc_scopes": "openid classify",
        "latency_budget_seconds": "60",
        "backfill_folder": str(folder / "jobs"),
        "backfill_sources": str(folder / "archive"),
    }
    with serving(folder / "log", model="swift/1.1.0", **settings) as live:
        yield live


@pytest.fixture
def provider(running: Provider) -> Provider:
    """The provider as it should be, whatever a test before has changed."""
    running.claims, running.id_claims, running.grants = {}, {}, []
    running.expires_in, running.refreshes = 60, True
    running.calls_itself, running.tokens_at = running.issuer, f"{running.issuer}/token"
    return running


@pytest.fixture
def tab(browser: Browser, signing: Live, provider: Provider) -> Iterator[Screen]:
    """A tab with the page."""
    with shown(browser, signing.url) as found:
        found.others.add(provider.issuer)
        yield found.open()


def provider_window(screen: Screen) -> Page:
    """The window of the provider, which a button opens."""
    with screen.page.expect_popup() as waited:
        screen.page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    return waited.value


def signed_in(screen: Screen) -> Screen:
    provider_window(screen).get_by_role("link", name="Agree").click()
    expect(screen.page.get_by_role("button", name="Sign out")).to_be_visible()
    return screen


def refused(screen: Screen) -> str:
    """What the dialog says after the person agrees at the provider."""
    provider_window(screen).get_by_role("link", name="Agree").click()
    return str(screen.page.get_by_role("dialog").get_by_role("alert").text_content())


def test_a_person_signs_in_and_classifies(tab: Screen, provider: Provider) -> None:
    """Files that were chosen before wait. All is in memory, and no token is in an address."""
    tab.choose(FRONTAL)
    window = provider_window(tab)
    expect(tab.page.get_by_role("dialog")).to_contain_text("Waiting for the window")
    asked = window.url
    window.get_by_role("link", name="Agree").click()
    tab.answered(1)
    expect(tab.card(FRONTAL.name)).to_contain_text("Frontal")
    assert tab.page.evaluate(STORED) == '[{},{},""]'
    (grant,) = provider.grants
    assert grant.keys() == {"grant_type", "code", "redirect_uri", "code_verifier", "client_id"}
    assert re.fullmatch(r"[\w-]{43}", grant["code_verifier"])
    assert grant["code_verifier"] not in asked
    assert not [url for url in tab.sent if "eyJ" in url]
    elsewhere = {url for url in tab.sent if url.startswith("http") and tab.url not in url}
    places = ("/.well-known/openid-configuration", "/token")
    assert elsewhere == {provider.issuer + place for place in places}
    if not window.is_closed():
        window.wait_for_event("close")
    tab.page.reload()
    expect(tab.page.get_by_role("dialog", name="Sign in")).to_be_visible()


def test_a_person_sees_what_the_scope_allows(tab: Screen, provider: Provider) -> None:
    """And after signing out and in again, what another one allows."""
    signed_in(tab)
    expect(tab.page.get_by_role("link", name="swift/1.1.0")).to_be_visible()
    expect(tab.page.get_by_role("link", name="Jobs")).to_have_count(0)
    provider.claims = {"scope": "openid backfill"}
    tab.page.get_by_role("button", name="Sign out").click()
    tab.page.get_by_role("button", name="Sign in").click()
    signed_in(tab)
    tab.page.get_by_role("link", name="Jobs").click()
    expect(tab.page.get_by_role("button", name="New job")).to_be_visible()


def test_a_refusal_of_the_provider_is_told_and_tried_again(tab: Screen) -> None:
    """In the provider's words, as a text."""
    provider_window(tab).get_by_role("link", name="Refuse").click()
    alert = tab.page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_have_text("The identity provider refuses: Not <b>today</b>")
    signed_in(tab)
    expect(alert).to_have_count(0)


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"aud": "another"}, "aud"),
        ({"aud": [CLIENT, "another"]}, "aud"),
        ({"iss": "https://elsewhere.example"}, "iss"),
        ({"exp": None}, "exp"),
        ({"exp": 1_000_000_000}, "exp"),
    ],
)
def test_an_identity_token_that_is_not_ours_is_not_used(
    tab: Screen, provider: Provider, claims: dict[str, Any], named: str
) -> None:
    """One of another sign-in, client or issuer."""
    provider.id_claims = claims
    assert f"({named})" in refused(tab)
    expect(tab.page.get_by_role("button", name="Sign out")).to_have_count(0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: setattr(p, "calls_itself", "https://elsewhere.example"), "issuer"),
        (lambda p: setattr(p, "tokens_at", "http://elsewhere.example/token"), "token_endpoint"),
        (lambda p: setattr(p, "tokens_at", "javascript:alert(1)"), "token_endpoint"),
        (lambda p: setattr(p, "tokens_at", None), "token_endpoint"),
    ],
)
def test_a_provider_that_leads_elsewhere_is_not_followed(
    browser: Browser, signing: Live, provider: Provider, change: Change, named: str
) -> None:
    """No window is opened, and no code is sent there."""
    change(provider)
    with shown(browser, signing.url) as screen:
        screen.others.add(provider.issuer)
        screen.open().page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
        expect(screen.page.get_by_role("alert")).to_contain_text(f"({named})")
        assert len(screen.page.context.pages) == 1
    assert provider.grants == []


def test_an_answer_with_another_state_is_ignored(tab: Screen, provider: Provider) -> None:
    """It is of another tab, or forged: someone else's code would sign in as someone else."""
    window = provider_window(tab)
    forged = "?code=x&state=" + "A" * 43
    tab.page.evaluate(
        """(text) => { const channel = new BroadcastChannel("cxrview-sign-in");
        channel.postMessage(text); channel.postMessage({}); channel.close(); }""",
        forged,
    )
    window.get_by_role("link", name="Agree").click()
    expect(tab.page.get_by_role("button", name="Sign out")).to_be_visible()
    assert [grant["code"] == "x" for grant in provider.grants] == [False]


def test_an_expired_token_is_renewed_without_asking(tab: Screen, provider: Provider) -> None:
    """Once for all requests; where the provider gives none, the page asks."""
    tab.page.clock.install()
    provider.claims = {"exp": 1_000_000_000}  # refused by the service
    assert "does not accept this sign-in" in refused(tab)
    assert [grant["grant_type"] for grant in provider.grants] == ["authorization_code"]
    tab.page.clock.fast_forward(61_000)
    provider.claims = {}
    tab.page.get_by_role("button", name="Not now").click()
    tab.choose(FRONTAL, DATA / "lateral-0013-header-says-pa.dcm").answered(2)
    grants = [grant["grant_type"] for grant in provider.grants]
    assert grants == ["authorization_code", "refresh_token"]
    tab.page.get_by_role("button", name="Sign out").click()
    tab.choose(FRONTAL)
    expect(tab.page.get_by_role("dialog", name="Sign in")).to_be_visible()
    assert len(provider.grants) == 2


def test_a_renewed_token_closes_nothing(tab: Screen, provider: Provider) -> None:
    """Neither the details of a job, nor its list."""
    tab.page.clock.install()
    provider.claims = {"scope": "openid backfill"}
    signed_in(tab)
    tab.page.get_by_role("link", name="Jobs").click()
    tab.page.get_by_role("button", name="New job").click()
    tab.page.get_by_role("button", name="Start job").click()
    job = tab.page.get_by_role("article").first
    expect(job.get_by_role("status").first).to_have_text("Done")
    job.get_by_role("button", name="Details").click()
    expect(job).to_contain_text("Certificate")
    refusals = iter([401])

    def refuse(route: Route) -> None:
        status = next(refusals, None)
        route.continue_() if status is None else route.fulfill(status=status)

    tab.page.route(re.compile("/v1/backfills$"), refuse)
    with tab.page.expect_response("**/v1/client"):  # with the new token
        tab.page.clock.fast_forward(61_000)
    assert [grant["grant_type"] for grant in provider.grants][-1] == "refresh_token"
    expect(job).to_contain_text("Certificate")
    expect(job.get_by_role("button", name="Details")).to_have_attribute("aria-expanded", "true")


def test_the_policy_names_the_provider_only_where_people_sign_in(
    signing: Live, provider: Provider, tmp_path: Path
) -> None:
    """And the public settings of the client, of which none is a secret."""
    found = httpx2.get(signing.url)
    policy = found.headers["content-security-policy"]
    assert f"connect-src 'self' {provider.issuer};" in policy
    assert policy.count(provider.issuer) == 1
    expected = {"issuer": provider.issuer, "client_id": CLIENT, "scope": "openid classify"}
    assert httpx2.get(f"{signing.url}/ui/sign-in.json").json() == expected
    tokens_only = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE}
    with serving(tmp_path / "log", model="swift/1.1.0", **tokens_only) as live:
        policy = httpx2.get(live.url).headers["content-security-policy"]
        assert "connect-src 'self';" in policy
        assert httpx2.get(f"{live.url}/ui/sign-in.json").json() is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_the_dialog(
    browser: Browser, signing: Live, provider: Provider, theme: str
) -> None:
    """While it waits, and after a refusal; nor on the page that closes itself."""
    options: Any = {"color_scheme": theme, "bypass_csp": True, "viewport": PHONE}
    with shown(browser, signing.url, **options) as screen:
        screen.others.add(provider.issuer)
        screen.page.add_init_script(path=AXE)
        screen.open().page.get_by_role("dialog", name="Sign in").wait_for()
        assert violations(screen) == []
        window = provider_window(screen)
        screen.page.get_by_role("button", name="Cancel").wait_for()
        assert violations(screen) == []
        window.get_by_role("link", name="Refuse").click()
        window.close()
        provider.id_claims = {"nonce": "another"}
        assert "nonce" in refused(screen)
        assert violations(screen) == []
        screen.page.goto(f"{screen.url}/ui/signed-in.html")
        screen.page.get_by_text("You may close this window.").wait_for()
        assert violations(screen) == []
        assert screen.faults == ["Scripts may close only the windows that were opened by them."]
        screen.faults.clear()
