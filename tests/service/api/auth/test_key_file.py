"""The file of keys becomes something else while the service runs: requests notice nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from live import serving

from service.api.auth.keys import (
    MAX_FILE_BYTES,
    KeyFileError,
    Keys,
    NotAuthenticatedError,
    new_key,
)
from service.api.watched_files import LOOK_SECONDS


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/tty")


def endless_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def nothing(path: Path) -> None:
    path.unlink()


def huge(path: Path) -> None:
    os.truncate(path, 10 * 2**30)  # without a block of the disk


def a_little_too_large(path: Path) -> None:
    line = path.read_text()
    path.write_text(line + "#" * (MAX_FILE_BYTES + 1 - len(line)))


def without_end(path: Path) -> None:
    """As a file of /proc: of no size, and with content."""
    path.unlink()
    path.symlink_to("/proc/self/maps")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(4096))


def utf_16(path: Path) -> None:
    path.write_text(path.read_text(), encoding="utf-16")


ODD: list[Callable[[Path], None]] = [
    *(fifo, folder, device, terminal, endless_link, nothing, huge, a_little_too_large),
    *(without_end, half, empty, zeros, utf_16),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def made(path: Path, name: str = "pacs") -> str:
    """A key, which is the only one in its file."""
    key, line = new_key(name, frozenset({"classify"}))
    path.write_text(f"{line}\n")
    return key


def put_back(path: Path, line: str) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    new = path.with_name("new")
    new.write_text(line)
    new.rename(path)


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_the_old_keys_stay(
    path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, however often it is looked at; the next good file is read."""
    key = made(path)
    line = path.read_text()
    keys = Keys(path)
    make(path)
    for _ in range(3):
        keys.look()
        assert keys.client_of(key).name == "pacs"
    (only,) = caplog.records
    assert only.levelno == logging.ERROR
    assert "the keys stay as they were" in only.message
    put_back(path, line.replace("pacs", "renamed"))
    keys.look()
    assert keys.client_of(key).name == "renamed"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_it_must_be_right_at_the_start(path: Path, make: Callable[[Path], None]) -> None:
    """Otherwise the start fails, at once."""
    made(path)
    make(path)
    with pytest.raises(KeyFileError):
        Keys(path)


@contextmanager
def as_another_user() -> Iterator[None]:
    """Without the rights of root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_any_more(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its rights alone have changed: the old keys stay, and are read again when they are back."""
    key = made(path)
    keys = Keys(path)
    for folder in path.parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    path.chmod(0)
    with as_another_user():
        for _ in range(2):
            keys.look()
    (only,) = caplog.records
    assert "Permission denied" in only.message
    assert keys.client_of(key).name == "pacs"
    other, line = new_key("other", frozenset({"classify"}))
    path.write_text(line)
    path.chmod(0o600)
    keys.look()
    assert keys.client_of(other).name == "other"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: f"\ufeff{text}",
        lambda text: f"\ufeff# by Notepad\r\n\r\n{text.strip()}",
        lambda text: text.strip(),
        lambda text: f"\n# keys\n\n{text}",
        lambda text: text.replace(" ", "\t  "),
    ],
)
def test_editors_of_all_systems_will_do(path: Path, change: Callable[[str], str]) -> None:
    """Line ends, a byte order mark, blank lines and tabs change nothing."""
    key = made(path)
    path.write_bytes(change(path.read_text()).encode())
    assert Keys(path).client_of(key).name == "pacs"


def test_a_service_answers_while_its_file_is_a_pipe(path: Path, tmp_path: Path) -> None:
    """With the old keys and one line in the log; a removed key is worth nothing a second later."""
    key = made(path)
    with (
        serving(tmp_path / "log", model="swift/1.0.0", keys=str(path)) as live,
        httpx2.Client(base_url=live.url, timeout=2) as client,
    ):

        def sent() -> int:
            headers = {"authorization": f"Bearer {key}"}
            return client.get("/v1/model", headers=headers).status_code

        assert sent() == 200
        fifo(path)
        ended = time.monotonic() + 4 * LOOK_SECONDS
        while time.monotonic() < ended:
            assert sent() == 200
            assert client.get("/livez").status_code == 200
        assert live.log.read_text().count("the keys stay as they were") == 1
        path.unlink()
        other = made(path, "other")
        ended = time.monotonic() + 10
        while sent() == 200:
            assert time.monotonic() < ended
        headers = {"authorization": f"Bearer {other}"}
        assert client.get("/v1/model", headers=headers).status_code == 200
        fifo(path)
        assert live.end() == 0


def test_a_file_is_watched_until_the_service_ends(path: Path) -> None:
    """In a thread, so that a removed key is worth nothing even if no request came since."""
    key = made(path)
    keys = Keys(path)
    with keys.watched():
        other = made(path, "other")
        ended = time.monotonic() + 10
        while keys.clients[0].name != "other":
            assert time.monotonic() < ended
            time.sleep(0.01)
    assert keys.client_of(other).name == "other"
    with pytest.raises(NotAuthenticatedError):
        keys.client_of(key)
