"""How large a ledger is, what it cost to make it, and how large it would be if it were packed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql

Row = dict[str, Any]
RELATIONS = """
    SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'i') AND c.relname LIKE 'items%'
"""
ACTIVITY = """
    SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count
    FROM pg_stat_user_tables WHERE relname = 'items'
"""
LSN = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
SETTLE_SECONDS = 1.0  # PostgreSQL's sessions report what they did when they end


def wal_bytes(url: str) -> float:
    """Written so far, by a PostgreSQL."""
    if url.startswith("sqlite"):
        return 0.0
    with _asking(url) as ask:
        return float(ask(LSN)[0][0])


def size_of(url: str, images: int) -> Row:
    """Right after the job: bytes an image, and on PostgreSQL what its updates left behind."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        return {"bytes_an_image": file.stat().st_size / images}
    time.sleep(SETTLE_SECONDS)
    with _asking(url) as ask:
        sizes = {name: size / images for name, size in ask(RELATIONS)}
        updates, hot, dead, vacuums = ask(ACTIVITY)[0]
    return {
        "bytes_an_image": sum(sizes.values()),
        "bytes_an_image_of": sizes,
        "updates_an_image": updates / images,
        "hot_share": hot / max(updates, 1),
        "dead_an_image": dead / images,
        "autovacuums": vacuums,
    }


def packed(url: str, images: int) -> Row:
    """Bytes an image after VACUUM FULL, and the seconds that VACUUM takes first."""
    vacuum = "VACUUM" if url.startswith("sqlite") else "VACUUM ANALYZE items"
    with _asking(url) as ask:
        begin = time.perf_counter()
        ask(vacuum)
        seconds = time.perf_counter() - begin
        if not url.startswith("sqlite"):
            ask("VACUUM FULL items")
    after = size_of(url, images)
    row = {"vacuum_seconds": seconds, "packed_bytes_an_image": after["bytes_an_image"]}
    if "bytes_an_image_of" in after:
        row["packed_bytes_an_image_of"] = after["bytes_an_image_of"]
    return row


@contextmanager
def _asking(url: str) -> Iterator[Any]:
    engine = sql.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def ask(statement: str) -> list[Any]:
            found = connection.execute(sql.text(statement))
            return list(found) if found.returns_rows else []

        yield ask
    engine.dispose()
