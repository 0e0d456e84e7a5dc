"""API keys, stored as hashes in a file that may change at any time."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from service.api.auth.clients import PERMISSIONS, Client, NotAuthenticatedError, Permission
from service.api.watched_files import WatchedFiles

PREFIX = "cxr_"  # tells a key from a token, and lets secret scanners find leaked keys
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
WRONG_NAME = "a name has letters, digits, dots, dashes, and at most 64 of them"
DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_FILE_BYTES = 2**20  # some 10,000 keys; each request is compared with all

LOG = logging.getLogger(__name__)


class KeyFileError(Exception):
    """The key file cannot be used."""


def new_key(name: str, permissions: frozenset[Permission]) -> tuple[str, str]:
    """A new key, which is stored nowhere, and its line for the key file.

    Raises:
        KeyFileError: The name is not 1 to 64 letters, digits, dots, dashes or underscores.
    """
    if not NAME.fullmatch(name):
        raise KeyFileError(WRONG_NAME)
    # A fast hash is enough: 256 random bits cannot be guessed
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name} {','.join(sorted(permissions))} {_digest(key).hex()}"


class Keys(WatchedFiles[dict[bytes, Client]]):
    """The keys of a file, which is read again when it changes.

    A line holds a name, permissions (of `PERMISSIONS`, joined by commas) and the key's SHA-256 in
    hexadecimal digits. Blank lines, and lines that begin with #, are ignored. Two lines may have
    the same name, so that a key can be replaced without an interruption.

    Args:
        path: The file.

    Raises:
        KeyFileError: The file cannot be read, or a line is invalid.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("keys", [path], partial(_read, path), KeyFileError, _tell)

    def client_of(self, key: str) -> Client:
        """The client that holds this key.

        Raises:
            NotAuthenticatedError: The key is not in the file.
        """
        digest = _digest(key)
        found = None
        for known, client in self.value.items():  # compare all, so that the time reveals nothing
            if hmac.compare_digest(known, digest):
                found = client
        if found is None:
            raise NotAuthenticatedError("the key is not known")
        return found

    @property
    def clients(self) -> list[Client]:
        """All clients in the key file."""
        return list(self.value.values())


def _tell(clients: dict[bytes, Client]) -> None:
    LOG.info("read %d keys", len(clients))


def read_clients(path: Path) -> dict[bytes, Client]:
    """The clients of a key file, by the SHA-256 of their keys; it may hold none.

    Raises:
        KeyFileError: It cannot be read, or is no key file.
    """
    try:
        text = _regular_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read: {error}") from error
    try:
        return dict(_parsed(text))
    except KeyFileError as error:
        raise KeyFileError(f"{path}, {error}") from error


def _read(path: Path) -> dict[bytes, Client]:
    clients = read_clients(path)
    if not clients:
        raise KeyFileError(f"{path} holds no key, so no client could be answered")
    return clients


def _regular_file(path: Path) -> bytes:
    """The bytes of a regular file; reading a pipe or a device could block.

    Raises:
        OSError: It cannot be read, is not a regular file, or has more than `MAX_FILE_BYTES`.
    """
    _require_regular(path.stat())  # before opening, which may have effects on a device
    # O_NONBLOCK, in case a pipe has replaced the file since
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        _require_regular(os.fstat(file.fileno()))
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(f"it has more than {MAX_FILE_BYTES} bytes")
    return data


def _require_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"it is no regular file ({stat.filemode(found.st_mode)})")


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
