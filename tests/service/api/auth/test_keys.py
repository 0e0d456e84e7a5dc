"""API keys: who gets in, and for what; while the file of keys changes."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.auth.keys import (
    PERMISSIONS,
    KeyFileError,
    Keys,
    NotAuthenticatedError,
    Permission,
    new_key,
)
from service.api.auth.permissions import AuthoriseLane
from service.cli import main

BODY = (DATA / "frontal-0003.jpg").read_bytes()
LARGE = bytes(2**21)


def made(path: Path, *permissions: Permission, name: str = "pacs") -> str:
    """A new key, whose line is now in the file."""
    key, line = new_key(name, frozenset(permissions))
    with path.open("a") as file:
        file.write(f"{line}\n")
    return key


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A key of each kind, and where their file is."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    return {
        "classify": made(path, "classify"),
        "backfill": made(path, "backfill"),
        "both": made(path, *PERMISSIONS),
        "path": str(path),
    }


@pytest.fixture(scope="module")
def client(start, light, keys: dict[str, str]) -> Iterator[httpx2.Client]:
    with (
        start(light.model_copy(update={"keys": Path(keys["path"])})) as service,
        service.client() as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/v1/classify", {"classify"}),
        ("/v1/classify?lane=interactive", {"classify"}),
        ("/v1/classify?lane=backfill", {"backfill"}),
        ("/v1/classify?lane=%62ackfill", {"backfill"}),
        ("/v1/classify?lane=backfill&lane=interactive", {"classify", "backfill"}),
        ("/v1/classify?lane=unheard-of", {"classify", "backfill"}),
        ("/v1/classify/batch", {"backfill"}),
    ],
)
def test_each_request_needs_its_permission(
    client: httpx2.Client, keys: dict[str, str], path: str, needed: set[str]
) -> None:
    """A key without it gets 403, one with it gets in; none, or a wrong one, gets 401."""
    for name, has in (("classify", {"classify"}), ("backfill", {"backfill"})):
        answer = client.post(path, content=BODY, headers=bearer(keys[name]))
        if needed - has:
            assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
            assert all(each in answer.json()["detail"] for each in needed - has)
        else:
            assert answer.status_code not in {401, 403}
    both = client.post(path, content=BODY, headers=bearer(keys["both"]))
    assert both.status_code not in {401, 403}
    for headers in (
        {},
        bearer("x"),
        bearer(keys["both"][:-1]),
        bearer(keys["both"] + "x"),
        {"authorization": f"Basic {keys['both']}"},
        {"authorization": keys["both"]},
        {"x-api-key": keys["both"]},
        {b"authorization": b"Bearer \xff"},
    ):
        answer = client.post(path, content=BODY, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_card_needs_any_key_and_probes_none(client: httpx2.Client, keys: dict[str, str]) -> None:
    """Nothing of images is open; what is not there is so for everybody."""
    assert client.get("/v1/model").status_code == 401
    for path in ("/v1/nothing", "/v1/classify/", "/v1/"):
        assert client.get(path).status_code == 404
    assert client.get("/v1/model", headers=bearer(keys["classify"])).status_code == 200
    assert client.get("/v1/nothing", headers=bearer(keys["classify"])).status_code == 404
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_the_description_says_what_needs_a_key(client: httpx2.Client) -> None:
    """As a bearer token, with the answers of those who have none."""
    api = client.get("/openapi.json").json()
    assert api["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, methods in api["paths"].items():
        for described in methods.values():
            guarded = path.startswith(("/v1/", "/dicom-web/"))
            assert ("security" in described) == guarded
            assert ("401" in described["responses"]) == guarded


def test_who_is_refused_may_try_again_on_the_same_connection(
    client: httpx2.Client, keys: dict[str, str]
) -> None:
    """The large body of a refused request is no request of its own."""
    for _ in range(3):
        assert client.post("/v1/classify", content=LARGE).status_code == 401
        good = client.post("/v1/classify", content=BODY, headers=bearer(keys["classify"]))
        assert good.status_code == 200


def test_no_key_is_ever_shown(client: httpx2.Client, keys: dict[str, str]) -> None:
    """Not in a problem, nor in a metric."""
    key = keys["classify"]
    answer = client.post("/v1/classify/batch", content=BODY, headers=bearer(key))
    wrong = client.get("/v1/model", headers=bearer(key[:-3]))
    for text in (answer.text, wrong.text, client.get("/metrics").text):
        assert key[:-3] not in text


@given(st.lists(st.sampled_from(["lane=", "backfill", "interactive", "&", "%62", ";", "+", "x"])))
def test_no_query_asks_for_less_than_the_route_would_read(pieces: list[str]) -> None:
    """However it is spelt, a query whose lane could be read as backfill needs that permission."""
    query = "".join(pieces)
    lanes = httpx2.QueryParams(query).get_list("lane")
    request = Request({"type": "http", "query_string": query.encode()})
    needed = AuthoriseLane(PERMISSIONS).needed(request)
    assert needed
    if "backfill" in lanes:
        assert "backfill" in needed
    if not lanes or "interactive" in lanes:
        assert "classify" in needed


def test_keys_change_while_the_service_runs(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new key gets in within a second, a removed one no more; a broken file changes nothing."""
    first = made(path, "classify", name="old")
    keys = Keys(path)
    second = made(path, "backfill", name="new")
    with pytest.raises(NotAuthenticatedError):
        keys.client_of(second)
    keys.look()
    assert keys.client_of(second).name == "new"
    lines = path.read_text().splitlines()
    path.write_text(lines[1])
    keys.look()
    with pytest.raises(NotAuthenticatedError):
        keys.client_of(first)
    for broken in (b"nonsense", b"", b"\xff"):
        path.write_bytes(broken)
        with caplog.at_level(logging.ERROR):
            keys.look()
            assert keys.client_of(second).permissions == {"backfill"}
        assert "stay as they were" in caplog.text
        caplog.clear()
        keys.look()
        keys.client_of(second)
        assert not caplog.text  # once is enough
    path.unlink()
    keys.look()
    assert keys.client_of(second).name == "new"


def test_a_link_turned_to_another_file_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted Secret."""
    link = tmp_path / "keys"
    old, new = tmp_path / "1", tmp_path / "2"
    made(old, "classify")
    key = made(new, "classify")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    link.symlink_to(old)
    keys = Keys(link)
    (tmp_path / "next").symlink_to(new)
    (tmp_path / "next").rename(link)
    keys.look()
    assert keys.client_of(key).permissions == {"classify"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a classify", "a name, permissions and a SHA-256 are expected"),
        (f"a/b classify {'0' * 64}", "a name has"),
        (f"a classify,root {'0' * 64}", "permissions are"),
        (f"a classify, {'0' * 64}", "permissions are"),
        (f"a classify {'0' * 63}g", "64 hexadecimal digits"),
    ],
)
def test_a_wrong_line_is_named(path: Path, line: str, reason: str) -> None:
    """With its number; comments and blank lines count."""
    path.write_text(f"# who may\n\n{line}\n")
    with pytest.raises(KeyFileError, match=rf"keys, line 3: .*{reason}"):
        Keys(path)


def test_the_command_makes_a_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the key and writes its hash to the file, which only the owner may read."""
    assert main(["key", "pacs-1", *PERMISSIONS, "--file", str(path)]) == 0
    key = capsys.readouterr().out.strip()
    assert Keys(path).client_of(key).permissions == set(PERMISSIONS)
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["key", "a b", "classify", "--file", str(path)]) == 2
    assert "a name has letters" in " ".join(capsys.readouterr().err.split())
    assert main(["key", "a", "classify", "--file", str(path / "x")]) == 2
    assert len(path.read_text().splitlines()) == 1


def test_the_command_changes_no_other_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is named by mistake."""
    path.write_text("root:x:0:0:root:/root:/bin/bash\n")
    assert main(["key", "pacs-1", "classify", "--file", str(path)]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "line 1: a name, permissions and a SHA-256" in " ".join(found.err.split())
    assert path.read_text() == "root:x:0:0:root:/root:/bin/bash\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "pacs.example"])
def test_another_address_needs_authentication(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without keys the service starts on this machine's own addresses only."""
    monkeypatch.delenv("CXRVIEW_KEYS", raising=False)
    assert main(["serve", "--host", host]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "CXRVIEW_KEYS" in error
    assert "CXRVIEW_ALLOW_ANONYMOUS" in error


def test_a_broken_file_of_keys_is_a_failed_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service does not start with no key, or without authentication."""
    monkeypatch.setenv("CXRVIEW_KEYS", str(path))
    assert main(["serve"]) == 2
    assert "cannot be read" in " ".join(capsys.readouterr().err.split())
