"""Deliveries over HTTP: an administrator sees what waits and why, and never a payload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from archive_servers import free_port
from live import serving

from service.api.auth.keys import new_key
from service.dicom.outbox import Entry, Outbox

MODEL, PAYLOAD = "swift/1.1.0", b'{"id": "1", "patient": "Doe^John"}'


def destinations(folder: Path) -> Path:
    """One that is away."""
    (folder / "secret").write_text("0123456789abcdef")
    path = folder / "destinations.toml"
    path.write_text(
        f'[destinations.hook]\nkind = "webhook"\nurl = "http://127.0.0.1:{free_port()}"\n'
        'secret_file = "secret"\nfirst_delay_seconds = 600\n'
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deliveries")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx2.Client]:
    """With the permission `admin`, of a service that has five results to deliver."""
    file, keys, audit = destinations(folder), folder / "keys", folder / "audit-key"
    outbox = Outbox(f"sqlite:///{folder}/outbox.sqlite")
    for number in range(5):
        outbox.put(f"1.2.{number}", MODEL, "{}", [Entry("hook", PAYLOAD)])
    outbox.close()
    made = {name: new_key(name, frozenset({name})) for name in ("admin", "classify")}  # type: ignore[arg-type]
    keys.write_text("".join(f"{line}\n" for _, line in made.values()))
    audit.write_bytes(b"k" * 32)
    settings = {"destinations": str(file), "model": MODEL, "keys": str(keys)}
    settings |= {"audit_log": str(folder / "audit.jsonl"), "audit_key": str(audit)}
    with serving(folder / "log.txt", **settings) as live:
        headers = {"Authorization": f"Bearer {made['admin'][0]}"}
        with httpx2.Client(base_url=live.url, headers=headers, timeout=60) as found:
            found.other = {"Authorization": f"Bearer {made['classify'][0]}"}  # type: ignore[attr-defined]
            yield found


def ids(client: httpx2.Client, **query: str | int) -> list[int]:
    found = client.get("/v1/deliveries", params=query)
    assert found.status_code == 200
    assert b"Doe" not in found.content
    return [each["id"] for each in found.json()["deliveries"]]


def test_pages_filters_and_counts(client: httpx2.Client) -> None:
    """The newest first; `next` leads to the rest."""
    everything = ids(client)
    assert everything == sorted(everything, reverse=True)
    assert len(everything) == 5
    first = client.get("/v1/deliveries", params={"limit": 2}).json()
    assert first["next"] == everything[1]
    assert ids(client, limit=9, before=first["next"]) == everything[2:]
    assert client.get("/v1/deliveries").json()["next"] is None
    assert ids(client, destination="other") == ids(client, state="dead") == []
    counts = client.get("/v1/deliveries").json()["counts"]["hook"]
    assert counts["pending"] + counts["leased"] + counts["dropped"] == 5
    assert counts["oldest_seconds"] > 0


def test_a_delivery_is_dropped_and_another_retried(client: httpx2.Client, folder: Path) -> None:
    """Each is recorded in the audit log."""
    last = ids(client)[0]
    dropped = client.delete(f"/v1/deliveries/{last}")
    assert (dropped.status_code, dropped.json()["state"]) == (200, "dropped")
    refused = client.post(f"/v1/deliveries/{last}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "delivery_state")
    other = ids(client)[1]
    retried = client.post(f"/v1/deliveries/{other}/retry")
    assert retried.json().get("state", retried.json().get("code")) in {"pending", "delivery_state"}
    recorded = (folder / "audit.jsonl").read_text()
    assert '"drop"' in recorded
    assert '"hook"' in recorded


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_unknown_delivery(client: httpx2.Client, method: str) -> None:
    """Is named as such; what is no identifier is refused."""
    path = "/retry" if method == "POST" else ""
    found = client.request(method, f"/v1/deliveries/999{path}")
    assert (found.status_code, found.json()["code"]) == (404, "unknown_delivery")
    for wrong in ("x", "0", str(2**63)):
        found = client.request(method, f"/v1/deliveries/{wrong}{path}")
        assert found.status_code == 422
        assert found.json()["detail"].count("delivery: ") == 1


@pytest.mark.parametrize("query", ["state=x", "limit=0", "limit=501", "before=0", "stat=dead"])
def test_a_wrong_filter_is_refused(client: httpx2.Client, query: str) -> None:
    """Rather than ignored."""
    found = client.get(f"/v1/deliveries?{query}")
    assert (found.status_code, found.json()["code"]) == (422, "invalid_request")


def test_only_an_administrator_may(client: httpx2.Client) -> None:
    """Neither list nor change."""
    other = client.other  # type: ignore[attr-defined]
    for method, path in (("GET", ""), ("DELETE", "/1"), ("POST", "/1/retry")):
        found = client.request(method, f"/v1/deliveries{path}", headers=other)
        assert (found.status_code, found.json()["code"]) == (403, "not_permitted")


def test_metrics_have_every_series_of_a_destination(client: httpx2.Client) -> None:
    """From the start, so that alerts see the first change."""
    text = client.get("/metrics").text
    for state in ("pending", "leased", "delivered", "dead", "dropped"):
        assert f'cxrview_deliveries{{destination="hook",state="{state}"}}' in text
    for outcome in ("delivered", "warning", "retry", "dead"):
        series = f'cxrview_delivery_attempts_total{{destination="hook",outcome="{outcome}"}}'
        assert series in text
    assert 'cxrview_delivery_oldest_seconds{destination="hook"}' in text


def test_without_destinations_there_are_none(tmp_path: Path) -> None:
    """404 says which setting is missing."""
    with serving(tmp_path / "log.txt", model=MODEL) as live:
        found = httpx2.get(f"{live.url}/v1/deliveries")
    assert (found.status_code, found.json()["code"]) == (404, "deliveries_disabled")
    assert "CXRVIEW_DESTINATIONS" in found.json()["detail"]
