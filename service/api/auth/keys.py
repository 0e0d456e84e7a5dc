"""API keys, kept as hashes in a file that may change at any time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from service.api.auth.clients import PERMISSIONS, Client, NotAuthenticatedError, Permission

PREFIX = "cxr_"  # by which a key is told from a token, and found where it should not be
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
WRONG_NAME = "a name has letters, digits, dots, dashes, and at most 64 of them"
DIGEST = re.compile(r"[0-9a-f]{64}")
LOOK_SECONDS = 1.0  # between looks at the file: so soon is a key that was removed worth nothing

LOG = logging.getLogger(__name__)


class KeyFileError(Exception):
    """The file of keys cannot be used."""


def new_key(name: str, permissions: frozenset[Permission]) -> tuple[str, str]:
    """A key, which exists nowhere else, and its line for the file.

    Raises:
        KeyFileError: The name has other characters than letters, digits, dots, dashes.
    """
    if not NAME.fullmatch(name):
        raise KeyFileError(WRONG_NAME)
    # 256 random bits: no other hash than the fastest is needed, as nobody can guess them
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name} {','.join(sorted(permissions))} {_digest(key).hex()}"


class Keys:
    """The keys of a file, read again when it has changed.

    A line holds a name, permissions (of `PERMISSIONS`, joined by commas) and the key's SHA-256 in
    hexadecimal digits; blank lines and those that begin with # are left out. Two lines
    may have the same name, so that a key can be replaced without a gap. A file that breaks while
    the service runs changes nothing, and is logged.

    Args:
        path: The file; a symbolic link may be turned to another, as Kubernetes does.
        now: A clock, in seconds.

    Raises:
        KeyFileError: It cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._looked = now()
        self._seen = self._look()
        self._clients = self._read()

    def client_of(self, key: str) -> Client:
        """Who holds this key.

        Raises:
            NotAuthenticatedError: Nobody.
        """
        self._refresh()
        digest = _digest(key)
        found = None
        for known, client in self._clients.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = client
        if found is None:
            raise NotAuthenticatedError("the key is not known")
        return found

    @property
    def clients(self) -> list[Client]:
        """All that have a key, as the file has them now."""
        self._refresh()
        return list(self._clients.values())

    def look_again(self) -> None:
        """Look at the file before the next request, however short ago that was."""
        self._looked -= LOOK_SECONDS

    def _refresh(self) -> None:
        now = self._now()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._clients = self._read()
            except KeyFileError as error:
                LOG.error("the keys stay as they were: %s", error)  # noqa: TRY400  # it says it all
            else:
                LOG.info("read %d keys", len(self._clients))

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)  # noqa: PTH116  # Path.stat takes twice as long
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> dict[bytes, Client]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{self._path} cannot be read: {error}") from error
        try:
            clients = dict(_parsed(text))
        except KeyFileError as error:
            raise KeyFileError(f"{self._path}, {error}") from error
        if not clients:
            raise KeyFileError(f"{self._path} holds no key: nobody could be answered")
        return clients


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _parsed(text: str) -> Iterator[tuple[bytes, Client]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 3:
            raise KeyFileError(f"line {number}: a name, permissions and a SHA-256 are expected")
        name, listed, digest = fields
        permissions = {known for known in PERMISSIONS if known in listed.split(",")}
        if not NAME.fullmatch(name):
            raise KeyFileError(f"line {number}: {WRONG_NAME}")
        if len(permissions) != len(listed.split(",")):
            raise KeyFileError(f"line {number}: permissions are {', '.join(PERMISSIONS)}")
        if not DIGEST.fullmatch(digest):
            raise KeyFileError(f"line {number}: a SHA-256 has 64 hexadecimal digits")
        yield bytes.fromhex(digest), Client(name, frozenset(permissions))
