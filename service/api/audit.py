"""The audit log: which client asked about which image or archive, and the answer or refusal."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import ClassVar, Literal, NamedTuple

from service.inference import Classification

STANDARD_OUTPUT = Path("-")
LEAST_KEY_BYTES = 32  # the size of the hash
DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
# Refused before the image was read, perhaps thousands a second: metrics count them
NOT_RECORDED = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}
# Ends a line that was written in part, on a full disk or at the end of a process
INCOMPLETE = b" [incomplete]\n"
# O_NONBLOCK: writing to a pipe without a reader fails at once; waiting would stop all requests
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY

LOG = logging.getLogger(__name__)


class AuditError(Exception):
    """The audit log cannot be written, or its key cannot be used."""

    code: ClassVar[str] = "audit_failed"


class Asker(NamedTuple):
    """Of whose request a record is."""

    request_id: str
    client: str  # empty: not known
    address: str  # empty: not known


class Audit:
    """Appends one JSON object a line, each in one write, so that records never mix.

    A full disk, or the end of a process, may leave an incomplete line. The next record, of any
    process, first ends that line with `INCOMPLETE`, and begins a new one.

    Args:
        path: The file, which must also be readable; `-` for standard output. Its folder must
            exist.
        key: At least 32 secret bytes. Holders of the key can find the entries of a known SOP
            Instance UID; without the key, the entries do not identify images.

    Raises:
        AuditError: The file cannot be opened, or the key is too short.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        if len(key) < LEAST_KEY_BYTES:
            raise AuditError(f"the key of the audit log must have {LEAST_KEY_BYTES} bytes or more")
        self._path = path
        self._key = key
        self._lock = Lock()
        self._wrote_half = False  # of this process; used for pipes, which cannot be read back
        self._file = self._open()

    def classified(self, asker: Asker, answer: Classification) -> None:
        """Record an answer.

        Raises:
            AuditError: The record could not be written.
        """
        uid = answer.sop_instance_uid
        entry = {
            "sop_instance_uid_hmac": None if uid is None else hash_of(uid, self._key),
            "view": answer.view,
            "pfi": answer.pfi,
            "chest": answer.chest,
            "review": answer.review,
            "model": f"{answer.model.name}/{answer.model.version}",
            "model_sha256": answer.model.sha256,
        }
        self._write("classified", asker, entry)

    def asked(
        self,
        what: Literal["backfill", "delivery", "review"],
        asker: Asker,
        entry: Mapping[str, object],
    ) -> None:
        """Record a request about a job, a delivery or a review, before it is carried out.

        Raises:
            AuditError: The record could not be written.
        """
        self._write(what, asker, entry)

    def hash(self, text: str) -> str:
        """The keyed hash of a text that must not appear in the log."""
        return hash_of(text, self._key)

    def failed(self, asker: Asker, code: str, status: int) -> None:
        """Record that an image was not classified, or that a client was refused.

        If the record cannot be written, the error is logged and the client's answer stays the same.
        """
        if status not in NOT_RECORDED:
            self._write_or_log("denied" if status in DENIED else "failed", asker, {"code": code})

    def rejected(self, asker: Asker, entry: Mapping[str, object]) -> None:
        """Record rejected associations.

        If the record cannot be written, the error is logged, and they stay rejected.
        """
        self._write_or_log("rejected", asker, entry)

    def _write_or_log(self, event: str, asker: Asker, entry: Mapping[str, object]) -> None:
        try:
            self._write(event, asker, entry)
        except AuditError as error:
            LOG.error("%s", error)  # noqa: TRY400  # it says it all

    def reopen(self) -> None:
        """Reopen the file at the configured path, for example after log rotation moved it."""
        if self._path == STANDARD_OUTPUT:
            return
        try:
            file = self._open()
        except AuditError as error:
            LOG.error("the audit log stays where it was: %s", error)  # noqa: TRY400
            return
        with self._lock:
            old, self._file = self._file, file
            if self._ends_in_half(old):
                _end(old)
            self._wrote_half = False
        os.close(old)

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return sys.stdout.fileno()
        try:
            return os.open(self._path, FLAGS, 0o600)
        except OSError as error:
            raise AuditError(f"the audit log cannot be opened: {error}") from error

    def _write(self, event: str, asker: Asker, entry: Mapping[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = {"time": now, "event": event, "request_id": asker.request_id}
        who = {"client": asker.client or None, "address": asker.address or None}
        line = json.dumps(head | who | dict(entry)).encode() + b"\n"
        with self._lock:
            self._append(line)

    def _append(self, line: bytes) -> None:
        if self._ends_in_half(self._file):
            line = INCOMPLETE + line
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise AuditError(f"the audit log cannot be written: {error.strerror}") from error
        self._wrote_half = not line[:written].endswith(b"\n")
        if written < len(line):  # a full disk takes a part
            raise AuditError("the audit log cannot be written: it is full")

    def _ends_in_half(self, file: int) -> bool:
        """Whether the last line is incomplete; read from a file, which others may also write to."""
        try:
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode):
                return found.st_size > 0 and os.pread(file, 1, found.st_size - 1) != b"\n"
        except OSError:  # standard output is often write-only
            pass
        return self._wrote_half


def _end(file: int) -> None:
    try:
        os.write(file, INCOMPLETE)
    except OSError as error:
        LOG.error("the last line of the old audit log is incomplete: %s", error)  # noqa: TRY400


def hash_of(text: str, key: bytes) -> str:
    """HMAC-SHA256 of a SOP Instance UID, or of a job's source, in hexadecimal digits."""
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
