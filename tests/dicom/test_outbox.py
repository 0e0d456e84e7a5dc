"""The outbox: every result is delivered to its destination, or an operator knows why not."""

from __future__ import annotations

import re
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from clocks import Clock
from disks import disk, fill

from service.backfill.ledger.ledger import Ledger
from service.dicom.entries import (
    DeliveryStateError,
    Entry,
    OutboxAwayError,
    OutboxError,
    UnknownDeliveryError,
)
from service.dicom.outbox import Outbox
from service.dicom.outbox.tables import ANSWERS, METADATA

MODEL, SECONDS = "swift/1.1.0", 60.0
SECRET = b"Doe^John" * 100


def put(outbox: Outbox, uid: str, *destinations: str, payload: bytes = b"SR") -> bool:
    return outbox.put(uid, MODEL, '{"view": "frontal"}', [Entry(d, payload) for d in destinations])


def states(outbox: Outbox) -> dict[str, str]:
    return {each.sop_instance_uid: each.state for each in outbox.deliveries()}


def test_migrations_lead_to_the_tables(outbox: Outbox) -> None:
    """A database that was brought up step by step is what the code expects."""
    with outbox._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "outbox_version"})
        assert compare_metadata(context, METADATA) == []


def test_ledger_and_outbox_share_a_database(url: str, outbox: Outbox) -> None:
    """Each has its tables, and its own version."""
    ledger = Ledger(url)
    assert ledger.open_job("key", {}).counts["found"] == 0
    ledger.close()
    again = Outbox(url)
    assert put(again, "1.2", "pacs")
    again.close()


def test_an_instance_is_put_once(opened: Callable[[], Outbox]) -> None:
    """Repeated, by whichever process, nothing changes; another model's answer is another."""
    first, second = opened(), opened()
    assert first.answer("1.2", MODEL) is None
    assert put(first, "1.2", "pacs", "ris")
    assert not put(second, "1.2", "pacs", "ris", "folder", payload=b"other")
    assert second.answer("1.2", MODEL) == '{"view": "frontal"}'
    assert second.answer("1.2", "swift/2.0.0") is None
    assert second.put("1.2", "swift/2.0.0", "{}", [Entry("pacs", b"SR 2")])
    assert [each.payload for each in first.lease("pacs", 9, SECONDS)] == [b"SR", b"SR 2"]


def test_a_refusal_is_put_once(outbox: Outbox) -> None:
    """It has no answer, so that the instance is looked at again."""
    assert outbox.put("1.2", MODEL, None, [Entry("ris", b"refused")])
    assert not outbox.put("1.2", MODEL, None, [Entry("ris", b"refused")])
    assert outbox.answer("1.2", MODEL) is None
    assert len(outbox.deliveries()) == 1


def test_what_goes_nowhere_is_remembered(outbox: Outbox) -> None:
    """The answer alone."""
    assert put(outbox, "1.2")
    assert outbox.answer("1.2", MODEL) is not None
    assert outbox.deliveries() == []


def test_deliveries_are_leased_in_their_order(outbox: Outbox, clock) -> None:
    """Of one destination, the longest due first."""
    for number in range(5):
        put(outbox, f"1.{number}", "pacs", "ris")
        clock.seconds += 1
    first = outbox.lease("pacs", 2, SECONDS)
    assert [each.sop_instance_uid for each in first] == ["1.0", "1.1"]
    assert [each.attempts for each in first] == [1, 1]
    assert [each.sop_instance_uid for each in outbox.lease("pacs", 9, SECONDS)] == [
        *("1.2", "1.3", "1.4")
    ]
    assert outbox.lease("pacs", 9, SECONDS) == []
    assert len(outbox.lease("ris", 9, SECONDS)) == 5


def test_a_lease_that_expired_is_given_to_others(opened, clock) -> None:
    """Who had it changes nothing any more; a lease renewed in time is kept."""
    slow, quick = opened(), opened()
    put(slow, "1.2", "pacs")
    put(slow, "1.3", "pacs")
    late, kept = slow.lease("pacs", 2, SECONDS)
    clock.seconds += SECONDS - 1
    assert slow.renew(kept, SECONDS)
    clock.seconds += 1
    (taken,) = quick.lease("pacs", 9, SECONDS)
    assert (taken.id, taken.attempts) == (late.id, 2)
    assert not slow.renew(late, SECONDS)
    assert not slow.delivered(late)
    assert not slow.dead(late, "rejected", "")
    assert not slow.retry_at(late, 0, "busy", "")
    assert not slow.release(late)
    assert states(slow) == {"1.2": "leased", "1.3": "leased"}
    assert quick.delivered(taken)
    assert slow.delivered(kept)
    assert set(states(quick).values()) == {"delivered"}


def test_an_expired_lease_without_a_successor_is_still_good(outbox: Outbox, clock) -> None:
    """A destination that answered late is not asked again."""
    put(outbox, "1.2", "pacs")
    (late,) = outbox.lease("pacs", 1, SECONDS)
    clock.seconds += 2 * SECONDS
    assert outbox.delivered(late)
    assert outbox.lease("pacs", 1, SECONDS) == []


def test_outcomes_are_kept(outbox: Outbox, clock) -> None:
    """With their time and reason; a failure's first time is kept until it is delivered."""
    put(outbox, "1.2", "pacs")
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    assert outbox.retry_at(leased, clock.seconds + 10, "busy", "HTTP 503")
    (seen,) = outbox.deliveries()
    assert (seen.state, seen.code, seen.detail) == ("pending", "busy", "HTTP 503")
    assert seen.due == clock.seconds + 10
    assert outbox.lease("pacs", 1, SECONDS) == []
    first, clock.seconds = clock.seconds, clock.seconds + 10
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    assert (leased.failing_since, leased.attempts) == (first, 2)
    assert outbox.release(leased)
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    assert leased.attempts == 2
    assert outbox.delivered(leased, "warning", "Warning Reason B000H")
    (seen,) = outbox.deliveries()
    assert (seen.state, seen.code, seen.ended, seen.due) == (
        *("delivered", "warning", clock.seconds),
        None,
    )


def test_a_dead_letter_is_retried_as_new(outbox: Outbox, clock) -> None:
    """With its payload, at once."""
    put(outbox, "1.2", "pacs")
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    outbox.retry_at(leased, clock.seconds, "busy", "HTTP 503")
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    assert outbox.dead(leased, "rejected", "HTTP 422")
    assert outbox.lease("pacs", 1, SECONDS) == []
    assert outbox.retry(leased.id).state == "pending"
    (again,) = outbox.lease("pacs", 1, SECONDS)
    assert (again.payload, again.failing_since) == (b"SR", None)


def test_a_postponed_one_is_retried_at_once(outbox: Outbox, clock) -> None:
    """When the operator knows that the destination is back."""
    put(outbox, "1.2", "pacs")
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    outbox.retry_at(leased, clock.seconds + 9999, "busy", "HTTP 503")
    outbox.retry(leased.id)
    assert outbox.lease("pacs", 1, SECONDS)


def test_what_is_dropped_is_never_delivered(outbox: Outbox) -> None:
    """Also if it is leased, or dead; what was delivered cannot be dropped."""
    for number in range(4):
        put(outbox, f"1.{number}", "pacs")
    leased, dead, delivered = outbox.lease("pacs", 3, SECONDS)
    outbox.dead(dead, "rejected", "")
    outbox.delivered(delivered)
    (pending,) = outbox.deliveries("pending")
    for each in (leased.id, dead.id, pending.id, pending.id):
        assert outbox.drop(each).state == "dropped"
    assert not outbox.delivered(leased)
    with pytest.raises(DeliveryStateError, match="is delivered: it cannot be dropped"):
        outbox.drop(delivered.id)
    for each in (leased.id, delivered.id):
        with pytest.raises(DeliveryStateError, match="it cannot be retried"):
            outbox.retry(each)
    for change in (outbox.retry, outbox.drop, outbox.delivery):
        with pytest.raises(UnknownDeliveryError):
            change(999)


def test_payloads_go_when_they_are_of_no_use(outbox: Outbox) -> None:
    """Delivered or dropped; the row stays."""
    for number in range(3):
        put(outbox, f"1.{number}", "pacs")
    delivered, dropped, dead = outbox.lease("pacs", 3, SECONDS)
    outbox.delivered(delivered)
    outbox.drop(dropped.id)
    outbox.dead(dead, "rejected", "")
    with outbox._database.reading() as connection:
        found = connection.exec_driver_sql("SELECT state, payload FROM deliveries ORDER BY id")
        assert [(row[0], row[1] is None) for row in found] == [
            *(("delivered", True), ("dropped", True), ("dead", False))
        ]


def test_the_file_holds_no_payload_that_went(tmp_path: Path) -> None:
    """SQLite erases what it frees; only the owner may read the file."""
    outbox = Outbox(f"sqlite:///{tmp_path}/outbox.sqlite")
    put(outbox, "1.2", "pacs", payload=SECRET)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"outbox.sqlite", "outbox.sqlite-wal", "outbox.sqlite-shm"} < modes.keys()
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    outbox.delivered(leased)
    outbox.close()
    assert all(b"Doe^John" not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    """When the outbox is opened."""
    (tmp_path / "outbox.sqlite").touch(0o644)
    Outbox(f"sqlite:///{tmp_path}/outbox.sqlite").close()
    assert stat.S_IMODE((tmp_path / "outbox.sqlite").stat().st_mode) == 0o600


def test_another_file_keeps_its_mode(tmp_path: Path) -> None:
    """One that is named by mistake and is no database."""
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "passwd").chmod(0o644)
    with pytest.raises(OutboxError, match="not a database"):
        Outbox(f"sqlite:///{tmp_path}/passwd")
    (only,) = tmp_path.iterdir()
    assert stat.S_IMODE(only.stat().st_mode) == 0o644
    assert only.read_text() == "root:x:0:0:root:/root:/bin/bash\n"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_memory_is_no_place_for_an_outbox(url: str) -> None:
    """It does not survive a crash, and each connection would have its own."""
    with pytest.raises(OutboxError, match="needs a file: sqlite:///FILE"):
        Outbox(url)


def test_a_lock_holds_all_writers_up_together(tmp_path: Path) -> None:
    """Not one after the other."""
    url = f"sqlite:///{tmp_path}/outbox.sqlite?timeout=1"
    outbox = Outbox(url)
    with (
        closing(sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        asked = [threads.submit(put, outbox, str(uid), "pacs") for uid in range(8)]
        errors = [each.exception() for each in asked]
        took = time.monotonic() - began
        other.execute("ROLLBACK")
        assert {type(error) for error in errors} == {OutboxAwayError}
        assert took < 5  # of 8 if each waited
        assert put(outbox, "0", "pacs")
    outbox.close()


def test_an_outbox_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """After a step back to an older version of the service."""
    url = f"sqlite:///{tmp_path}/outbox.sqlite"
    Outbox(url).close()
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)) as other:
        other.execute("UPDATE outbox_version SET version_num = '9999'")
    with pytest.raises(OutboxError, match="a newer cxrview has made this outbox"):
        Outbox(url)


def test_a_lock_does_not_stop_readers(tmp_path: Path) -> None:
    """Of an outbox that is up to date; a writer is told who holds it up, within its patience."""
    url = f"sqlite:///{tmp_path}/outbox.sqlite"
    Outbox(url).close()
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outbox = Outbox(f"{url}?timeout=0")
        assert outbox.deliveries() == []
        with pytest.raises(OutboxAwayError, match="locked by another process"):
            put(outbox, "1.2", "pacs")
        outbox.close()


def test_pages_and_filters(outbox: Outbox) -> None:
    """The newest first."""
    for number in range(7):
        put(outbox, f"1.{number}", "pacs", *(["ris"] if number % 2 else []))
    first = outbox.deliveries(most=4)
    rest = outbox.deliveries(before=first[-1].id, most=9)
    ids = [each.id for each in first + rest]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 10
    assert len(outbox.deliveries(destination="ris")) == 3
    (leased,) = outbox.lease("ris", 1, SECONDS)
    assert [each.id for each in outbox.deliveries("leased")] == [leased.id]
    assert outbox.deliveries("leased", "pacs") == []


def test_counts(outbox: Outbox, clock) -> None:
    """By destination and state; the age is of the oldest that is still tried."""
    assert outbox.counts() == {}
    put(outbox, "1.0", "pacs")
    clock.seconds += 30
    put(outbox, "1.1", "pacs", "ris")
    clock.seconds += 10
    found = outbox.counts()
    assert (found["pacs"].states["pending"], found["pacs"].oldest_seconds) == (2, 40)
    (leased,) = outbox.lease("pacs", 1, SECONDS)
    assert outbox.counts()["pacs"].oldest_seconds == 40
    outbox.dead(leased, "rejected", "")
    found = outbox.counts()
    assert found["pacs"].states == {
        "pending": 1,
        "leased": 0,
        "delivered": 0,
        "dead": 1,
        "dropped": 0,
    }
    assert found["pacs"].oldest_seconds == 10


def test_what_ended_is_purged(outbox: Outbox, clock) -> None:
    """And nothing else; what was purged is forgotten, so that it may come again."""
    for number in range(4):
        put(outbox, f"1.{number}", "pacs", "ris")
    delivered, dead, _ = outbox.lease("pacs", 3, SECONDS)
    outbox.delivered(delivered)
    outbox.dead(dead, "rejected", "")
    assert outbox.purge("pacs", clock.seconds) == 0
    clock.seconds += 1
    assert outbox.purge("ris", clock.seconds) == 0
    assert outbox.purge("pacs", clock.seconds) == 2
    assert len(outbox.deliveries(destination="pacs")) == 2
    assert outbox.purge_answers(clock.seconds - 1) == 0
    assert outbox.purge_answers(clock.seconds) == 4
    assert put(outbox, "1.0", "pacs", "ris")
    assert len(outbox.deliveries(destination="ris")) == 4


def test_much_is_purged_in_several_transactions(outbox: Outbox) -> None:
    """So that others need not wait for long."""
    rows = [{"sop_instance_uid": str(n), "model": MODEL, "created": n} for n in range(2500)]
    with outbox._database.transaction() as connection:
        connection.execute(sql.insert(ANSWERS), rows)
    assert outbox.purge_answers(2400) == 2400
    assert outbox.purge_answers(2400) == 0


def test_threads_and_processes_put_each_once(opened) -> None:
    """Each instance is put by eight threads of two outboxes; one of them is told so."""
    outboxes, told = [opened(), opened()], []

    def put_all(outbox: Outbox) -> None:
        told.extend([uid for uid in map(str, range(30)) if put(outbox, uid, "pacs")])

    threads = [threading.Thread(target=put_all, args=(outboxes[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told, key=int) == [str(each) for each in range(30)]
    assert len(outboxes[0].deliveries()) == 30


def test_two_lease_different_ones(opened) -> None:
    """Whatever their order."""
    outboxes, found = [opened(), opened()], []
    for number in range(60):
        put(outboxes[0], str(number), "pacs")

    def lease(outbox: Outbox) -> None:
        while some := outbox.lease("pacs", 3, SECONDS):
            found.extend(each.id for each in some)

    threads = [threading.Thread(target=lease, args=(each,)) for each in outboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 60


def test_a_locked_outbox_is_away(tmp_path: Path) -> None:
    """Nothing is put; afterwards it goes on."""
    outbox = Outbox(f"sqlite:///{tmp_path}/outbox.sqlite?timeout=0.1")
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutboxAwayError, match="the outbox is locked by another process"):
        put(outbox, "1.2", "pacs")
    assert outbox.answer("1.2", MODEL) is None
    other.rollback()
    other.close()
    assert put(outbox, "1.2", "pacs")
    outbox.close()


@pytest.mark.parametrize("waiting", [1, 40, 400])
def test_a_full_disk_stops_no_delivery(tmp_path: Path, clock: Clock, waiting: int) -> None:
    """What was accepted is delivered, in the reserved space, whatever senders go on to send."""
    report = b"SR" * 4000
    with disk(tmp_path / "small", 12 * 1024):
        outbox = Outbox(f"sqlite:///{tmp_path}/small/outbox.sqlite", clock)
        send = (partial(put, outbox, str(uid), "pacs", payload=report) for uid in count())
        for _ in range(waiting):
            assert next(send)()
        filler = fill(tmp_path / "small")
        told = waiting
        while (error := failure(next(send))) is None:
            told += 1
        assert re.search("the disk is full: the outbox .* cannot grow", str(error))
        delivered = failures = 0
        while delivered < told:
            if delivered < waiting + 50:
                told += failure(next(send)) is None  # what deliveries leave free may be used
            try:
                for leased in outbox.lease("pacs", 5, SECONDS):
                    delivered += outbox.delivered(leased)
            except OutboxAwayError:
                failures += 1
                assert failures < 3
                clock.seconds += SECONDS + 1
        filler.unlink()
        assert next(send)()
        outbox.close()


def failure(act: Callable[[], object]) -> OutboxAwayError | None:
    try:
        act()
    except OutboxAwayError as error:
        return error
    return None


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_server_that_goes_away_is_away(outbox: Outbox, psql) -> None:
    """And is used again when it is back."""
    put(outbox, "1.2", "pacs")
    psql.tell(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname LIKE 'database%';"
    )
    with pytest.raises(OutboxAwayError, match="the outbox cannot be used"):
        put(outbox, "1.3", "pacs")
    assert put(outbox, "1.3", "pacs")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/outbox", "the outbox cannot be opened"),
        ("nonsense", "the outbox cannot be opened"),
        ("oracle://x/y", "cannot be opened: it needs sqlite:///FILE or postgresql://"),
    ],
)
def test_an_outbox_that_cannot_be_opened_is_named(url: str, said: str) -> None:
    """Rather than a trace of the database's own."""
    with pytest.raises(OutboxError, match=said):
        Outbox(url)


def test_no_repr_has_a_payload() -> None:
    """It would end in a log."""
    assert "Doe" not in repr(Entry("pacs", SECRET))
