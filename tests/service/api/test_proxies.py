"""Whose address is written down and held to a rate: the peer's, or what a trusted proxy says."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from conftest import DATA
from live import Live, serving
from pydantic import ValidationError

from service.api.settings import Settings

JPEG = (DATA / "frontal-0003.jpg").read_bytes()
OTHER = "198.51.100.7"


def started(folder: Path, *options: str, **more: str) -> dict[str, str]:
    (folder / "secret").write_bytes(bytes(32))
    return {
        "model": "swift/1.0.0",
        "access_log": "true",
        "log_format": "json",
        "audit_log": str(folder / "audit"),
        "audit_key": str(folder / "secret"),
    } | more


def recorded(folder: Path, live: Live, request: str) -> tuple[str | None, str | None]:
    """This request's address in the audit log and in the access log, where it is the client too."""
    audit = json.loads((folder / "audit").read_text().splitlines()[-1])
    assert audit["request_id"] == request
    assert audit["client"] == audit["address"]
    deadline = time.monotonic() + 10
    while (found := [line for line in live.log.read_text().splitlines() if request in line]) == []:
        assert time.monotonic() < deadline  # the line comes after the answer
        time.sleep(0.002)
    return audit["address"], json.loads(found[0])["address"]


def send(url: str, *forwarded: str) -> httpx2.Response:
    headers = [("x-forwarded-for", each.encode("latin-1")) for each in forwarded]
    return httpx2.post(f"{url}/v1/classify", content=JPEG, headers=headers)


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Live]]:
    """A service behind proxies: this machine, and a network."""
    folder = tmp_path_factory.mktemp("behind")
    settings = started(folder, trusted_proxies="127.0.0.1, 10.0.0.0/8,2001:db8:1::/48")
    with serving(folder / "log", **settings) as live:
        yield folder, live


@pytest.mark.parametrize("proxies", ["", "10.0.0.0/8, 192.0.2.1"])
def test_no_proxy_is_believed_by_default(tmp_path: Path, proxies: str) -> None:
    """Not even this machine itself, as long as it is not among the proxies."""
    settings = started(tmp_path, trusted_proxies=proxies, max_client_images_per_second="0.1")
    with serving(tmp_path / "log", **settings) as live:
        answer = send(live.url, OTHER)
        assert answer.status_code == 200
        assert recorded(tmp_path, live, answer.headers["x-request-id"]) == (
            "127.0.0.1",
            "127.0.0.1",
        )
        # Another address each time does not give another rate
        answers = [send(live.url, f"198.51.100.{at}").status_code for at in range(3)]
    assert answers == [429] * 3


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ([OTHER], OTHER),
        ([f"{OTHER}:4711"], OTHER),
        (["192.0.2.1, 198.51.100.7"], OTHER),
        (["192.0.2.1", OTHER], OTHER),
        (["198.51.100.7, 10.1.2.3"], OTHER),
        (["198.51.100.7, 10.1.2.3:80, 127.0.0.1"], OTHER),
        (["198.51.100.7, 2001:db8:1::5"], OTHER),
        (["10.1.2.3, 10.1.2.4"], "10.1.2.3"),
        (["2001:db8::7"], "2001:db8::7"),
        (["2001:DB8:0:0::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["fe80::1%eth0"], "fe80::1"),
        (["fe80::1%Zebra^Quagga"], "fe80::1"),
        (["::ffff:198.51.100.7"], OTHER),
        (["Zebra^Quagga, 198.51.100.7"], OTHER),
    ],
)
def test_a_proxy_says_who_its_client_is(
    behind: tuple[Path, Live], forwarded: list[str], address: str
) -> None:
    """The last address that is no proxy's; with ports, brackets and in all ways to write it."""
    folder, live = behind
    answer = send(live.url, *forwarded)
    assert answer.status_code == 200
    assert recorded(folder, live, answer.headers["x-request-id"]) == (address, address)


@pytest.mark.parametrize(
    "forwarded",
    [
        "Zebra^Quagga", "unknown", "_hidden", "198.51.100.7, Zebra^Quagga", "198.51.100",
        "198.51.100.7.8", "[::1", "::1]:80", "198.51.100.7:x:y", "\xe4", "for=198.51.100.7", "%",
        "198.51.100.7;", "0x7f.1", "127.1", "1" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_written_down(behind: tuple[Path, Live], forwarded: str) -> None:
    """It could be anything, a patient's name too; the image is answered all the same."""
    folder, live = behind
    answer = send(live.url, forwarded)
    assert answer.status_code == 200
    assert recorded(folder, live, answer.headers["x-request-id"]) == (None, None)
    assert "Zebra" not in live.log.read_text() + (folder / "audit").read_text()


@pytest.mark.parametrize("forwarded", [[], [""]])
def test_a_proxy_that_says_nothing_is_the_client(
    behind: tuple[Path, Live], forwarded: list[str]
) -> None:
    """As without a header."""
    folder, live = behind
    answer = send(live.url, *forwarded)
    assert answer.status_code == 200
    assert recorded(folder, live, answer.headers["x-request-id"]) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize("scheme", ["https", "http", "gopher", "https, http", "\xe4", ""])
def test_a_proxy_may_say_its_scheme(behind: tuple[Path, Live], scheme: str) -> None:
    """Whatever it is, nothing breaks."""
    _, live = behind
    headers = {"x-forwarded-proto": scheme.encode("latin-1")}
    assert httpx2.get(f"{live.url}/v1/model", headers=headers).status_code == 200


def test_each_client_of_a_proxy_has_its_rate(tmp_path: Path) -> None:
    """However its address is written, and all that have none together."""
    settings = started(tmp_path, trusted_proxies="127.0.0.0/8", max_client_images_per_second="0.1")
    with serving(tmp_path / "log", **settings) as live:
        assert [send(live.url, each).status_code for each in ("2001:db8::1", "2001:db8::2")] == [
            200
        ] * 2
        again = [send(live.url, each).status_code for each in ("[2001:db8:0::1]:7", "2001:DB8::2")]
        assert again == [429] * 2
        assert [send(live.url, each).status_code for each in ("a", "b", "c")] == [200, 429, 429]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_proxy_is_known_on_a_socket_of_both_kinds(tmp_path: Path) -> None:
    """There a peer of IPv4 has an address of IPv6."""
    settings = started(tmp_path, trusted_proxies="127.0.0.0/8", allow_anonymous="true")
    with serving(tmp_path / "log", "--host", "::", **settings) as live:
        answer = send(live.url, OTHER)
        assert answer.status_code == 200
        assert recorded(tmp_path, live, answer.headers["x-request-id"]) == (OTHER, OTHER)


@pytest.mark.parametrize("wrong", ["*", "10.0.0.1/8", "proxy", "10.0.0.0/8, x", "/tmp/socket"])
def test_a_proxy_is_an_address_or_a_network(wrong: str) -> None:
    """Any other value is a failed start, as its meaning is unclear."""
    with pytest.raises(ValidationError):
        Settings.model_validate({"trusted_proxies": wrong})
