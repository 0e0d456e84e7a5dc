"""What tells one of our databases from another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.database.emergency_space import STEP_BYTES


class AwayError(Exception):
    """A base class: the database is locked or full, or does not answer.

    Args:
        detail: The reason, in words for the operator.
        retryable: A second try may succeed, because emergency space was freed.
    """

    def __init__(self, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.retryable = retryable


@dataclass(frozen=True)
class Schema:
    """The tables of one database, and how its errors are named."""

    name: str  # in messages, as "ledger"
    versions: Path  # the folder of the migrations, oldest first
    version_table: str  # differs between schemas, so that they can share a database
    refused: type[Exception]  # raised if the database cannot be opened
    away: type[AwayError]
    # How long SQLite waits for a lock of another process, if the URL has no `timeout`
    busy_seconds: int = 60
    # SQLite's write-ahead log is written back at this size. On a full disk that needs as much space
    log_pages: int = 1000
    # Of the space that is reserved for a full disk, freed at once
    step_bytes: int = STEP_BYTES
    private: bool = False  # SQLite: only the owner may read the file, and deleted rows are erased
