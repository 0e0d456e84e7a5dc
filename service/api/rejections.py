"""Rejected associations in the audit log, so few lines that no peer can fill a disk."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import NamedTuple

from service.api.audit import Asker, Audit

Record = Callable[[str, str, str], object]  # given a reason, an AE title or "", and an address
WINDOW_SECONDS = 60.0
# What is told apart in a window. Peers beyond are counted together, without their names
MAX_PEERS = 100
MAX_TITLES = 10  # of one address, because any peer can claim any AE title


@contextmanager
def recorded(audit: Audit | None) -> Iterator[Record]:
    """What records a rejection until the block ends; nothing without an audit log."""
    if audit is None:
        yield lambda *_: None
        return
    rejections = Rejections(audit)
    try:
        yield rejections.add
    finally:
        rejections.flush()


class Rejected(NamedTuple):
    """What lines tell apart."""

    reason: str
    address: str  # empty: of several
    title: str  # the AE title that the peer claims; empty: none yet, or several


class Rejections:
    """Records the first of each kind at once, and after a minute how many more there were.

    So the counts of all lines add up to the number of rejections, and a minute never has more than
    some 200 lines.

    Args:
        audit: The audit log.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._lock = Lock()
        self._counts: Counter[Rejected] = Counter()
        self._timer: Timer | None = None

    def add(self, reason: str, title: str, address: str) -> None:
        """Count a rejection; in any thread."""
        with self._lock:
            found = self._told_apart(Rejected(reason, address, title))
            self._counts[found] += 1
            is_first = self._counts[found] == 1
            if self._timer is None:
                self._timer = Timer(WINDOW_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        if is_first:
            self._write(found, 1)

    def flush(self) -> None:
        """End the window: record those that had no line."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for found, count in counts.items():
            if count > 1:
                self._write(found, count - 1)

    def _told_apart(self, asked: Rejected) -> Rejected:
        if asked in self._counts:
            return asked
        if len(self._counts) >= MAX_PEERS:
            return Rejected(asked.reason, "", "")
        titles = sum(each.address == asked.address for each in self._counts)
        return asked if titles < MAX_TITLES else asked._replace(title="")

    def _write(self, found: Rejected, count: int) -> None:
        client = f"ae:{found.title}" if found.title else ""
        asker = Asker(secrets.token_hex(16), client, found.address)
        self._audit.rejected(asker, {"code": found.reason, "count": count})
