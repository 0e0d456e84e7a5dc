"""The ledger: every image has one outcome, whichever workers take it and whenever they stop."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.backfill.ledger.jobs import (
    JobConflictError,
    LeaseLostError,
    LedgerError,
    Part,
    Settled,
)
from service.backfill.ledger.ledger import Ledger
from service.backfill.ledger.tables import ITEMS, JOBS, METADATA, SCHEMA
from service.database.migrations import migrate

SECONDS = 60.0


def part(name: str, rows: int = 1) -> Part:
    return Part(name, rows, 10 * rows, "0" * 64)


@pytest.fixture
def job(ledger: Ledger) -> str:
    """A job with five images, all of which were found."""
    job = ledger.open_job("key", {"source": "folder"}).id
    assert ledger.add(job, "abcde") == 5
    ledger.complete(job)
    return job


def test_migrations_lead_to_the_tables(ledger: Ledger) -> None:
    """A database that was brought up step by step is what the code expects."""
    with ledger._database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_job_is_made_once(opened: Callable[[], Ledger]) -> None:
    """The same again is the same job; other contents under its key are refused."""
    first, second = opened(), opened()
    job = first.open_job("key", {"source": "a", "model": "m"})
    assert second.open_job("key", {"model": "m", "source": "a"}) == job
    with pytest.raises(JobConflictError):
        second.open_job("key", {"source": "b", "model": "m"})
    other = second.open_job("another", {"source": "b"})
    assert {each.id for each in first.jobs()} == {job.id, other.id}
    with pytest.raises(LedgerError, match="no job x"):
        first.job("x")


def test_what_is_found_twice_is_one_image(ledger: Ledger, job: str) -> None:
    """However often an archive is listed; odd names are names like others."""
    odd = ["b", "c", "f", "ü/ß\n", "\udce9.dcm", "x" * 5000, ""]
    assert ledger.add(job, odd) == 5
    assert ledger.add(job, odd) == 0
    assert ledger.add(job, []) == 0
    assert ledger.job(job).counts["found"] == 10
    other = ledger.open_job("another", {}).id
    assert ledger.add(other, "ab") == 2


def test_all_images_come_to_an_end(ledger: Ledger, job: str, clock) -> None:
    """Leased in order, committed with their part, counted; then nothing is left."""
    first = ledger.lease(job, 3, SECONDS)
    second = ledger.lease(job, 3, SECONDS)
    assert [item.locator for item in first.items] == ["a", "b", "c"]
    assert [item.locator for item in second.items] == ["d", "e"]
    assert ledger.lease(job, 3, SECONDS) is None
    assert ledger.leases(job) == {first.id, second.id}
    a, b, c = (item.number for item in first.items)
    settled = [
        Settled(a, "done", key="k1"),
        Settled(b, "skipped", "duplicate"),
        Settled(c, "failed", "corrupt_image"),
    ]
    ledger.commit(first, settled, part("p1", 3))
    ledger.commit(second, [Settled(item.number, "done") for item in second.items], part("p2", 2))
    found = ledger.job(job)
    assert found.counts == {"found": 5, "done": 3, "skipped": 1, "failed": 1}
    assert found.open == 0
    assert ledger.codes(job) == {"duplicate": 1, "corrupt_image": 1}
    assert list(ledger.failures(job)) == [("c", "corrupt_image", 1)]
    assert ledger.parts(job) == [part("p1", 3), part("p2", 2)]
    assert ledger.leases(job) == set()
    assert ledger.known(job, ["k1", "k2"]) == {"k1"}


def test_a_lease_that_ran_out_is_given_to_others(
    opened: Callable[[], Ledger], ledger: Ledger, job: str, clock
) -> None:
    """The worker that had it commits nothing; a lease renewed in time is kept."""
    slow = opened().lease(job, 3, SECONDS)
    kept = ledger.lease(job, 2, SECONDS)
    clock.seconds += SECONDS - 1
    ledger.renew(kept, SECONDS)
    assert ledger.lease(job, 5, SECONDS) is None
    clock.seconds += 2
    taken = ledger.lease(job, 5, SECONDS)
    assert [item.locator for item in taken.items] == ["a", "b", "c"]
    assert {item.attempts for item in taken.items} == {2}
    assert taken.crashes == 1
    late = [Settled(item.number, "done") for item in slow.items]
    with pytest.raises(LeaseLostError):
        ledger.commit(slow, late, part("late", 3))
    assert ledger.parts(job) == []
    ledger.commit(taken, late, part("p"))
    ledger.commit(kept, [Settled(item.number, "done") for item in kept.items], None)
    assert ledger.job(job).counts["done"] == 5


def test_what_comes_back_is_leased_after_the_rest(
    opened: Callable[[], Ledger], job: str, clock
) -> None:
    """However far a worker's own leases are; first what was only given back, then what ran out."""
    first, second = opened(), opened()
    given, _ = first.lease(job, 1, SECONDS), first.lease(job, 1, SECONDS)
    second.lease(job, 2, SECONDS)
    first.release(given)
    clock.seconds += SECONDS + 1
    leases = [second.lease(job, 5, SECONDS) for _ in range(3)]
    found = [[item.locator for item in lease.items] for lease in leases]
    assert found == [["e"], ["a"], ["b", "c", "d"]]
    assert [lease.crashes for lease in leases] == [0, 0, 1]
    assert second.lease(job, 5, SECONDS) is None


def test_an_older_ledger_keeps_its_images(url: str, opened: Callable[[], Ledger]) -> None:
    """What was found before the last migration is leased and committed after it."""
    engine = sql.create_engine(url)
    migrate(engine, SCHEMA, "0002")
    with engine.begin() as connection:
        job = {"id": "j", "key": "k", "description": "{}", "state": "running", "created": 1.0}
        connection.execute(sql.insert(JOBS).values(**job, found=2))
        for place, state in ((b"a", "done"), (b"b", "pending")):
            values = {"job": "j", "place": place, "locator": place, "state": state}
            connection.execute(sql.insert(ITEMS).values(**values))
    engine.dispose()
    ledger = opened()
    lease = ledger.lease("j", 5, SECONDS)
    assert [item.locator for item in lease.items] == ["b"]
    ledger.commit(lease, [Settled(lease.items[0].number, "done", key="k")], part("p"))
    assert ledger.known("j", ["k"]) == {"k"}


def test_one_worker_lists_the_archive(opened: Callable[[], Ledger], clock) -> None:
    """Until it has, stops, or has not been heard of for long; a job that begins anew is listed."""
    first, second = opened(), opened()
    job = first.open_job("key", {}).id
    assert first.claim_listing(job, "a", SECONDS)
    assert not second.claim_listing(job, "b", SECONDS)
    clock.seconds += SECONDS - 1
    assert first.claim_listing(job, "a", SECONDS)
    clock.seconds += 2
    assert not second.claim_listing(job, "b", SECONDS)
    clock.seconds += SECONDS
    assert second.claim_listing(job, "b", SECONDS)
    first.release_listing(job, "a")  # it has lost it
    assert not first.claim_listing(job, "a", SECONDS)
    second.release_listing(job, "b")
    assert first.claim_listing(job, "a", SECONDS)
    first.take_back(job)
    assert second.claim_listing(job, "b", SECONDS)
    second.complete(job)
    assert not first.claim_listing(job, "a", SECONDS)
    first.set_state(job, "running")
    assert first.job(job).complete
    first.set_state(job, "paused")
    second.set_state(job, "running")
    assert first.claim_listing(job, "a", SECONDS)


def test_what_was_not_tried_is_given_back(ledger: Ledger, job: str) -> None:
    """By a commit of a part of a lease, or without any; it does not count as an attempt."""
    lease = ledger.lease(job, 4, SECONDS)
    ledger.commit(lease, [Settled(lease.items[0].number, "done")], part("p"))
    again = ledger.lease(job, 4, SECONDS)
    assert [item.locator for item in again.items] == ["b", "c", "d", "e"]
    ledger.release(again)
    third = ledger.lease(job, 4, SECONDS)
    assert {item.attempts for item in third.items} == {1}
    ledger.commit(third, [], None)
    assert ledger.job(job).open == 4


def test_an_image_is_done_once(ledger: Ledger, job: str) -> None:
    """A key that another one was done with meanwhile undoes the whole commit."""
    first, second = ledger.lease(job, 2, SECONDS), ledger.lease(job, 2, SECONDS)
    ledger.commit(first, [Settled(first.items[0].number, "done", key="k")], part("p1"))
    twice = [Settled(item.number, "done", key="k") for item in second.items[:1]]
    with pytest.raises(LeaseLostError, match="second time"):
        ledger.commit(second, twice, part("p2"))
    assert ledger.job(job).counts["done"] == 1
    assert [each.name for each in ledger.parts(job)] == ["p1"]
    other = ledger.open_job("another", {}).id
    ledger.add(other, "a")
    lease = ledger.lease(other, 1, SECONDS)
    ledger.commit(lease, [Settled(lease.items[0].number, "done", key="k")], None)


def test_what_failed_may_be_tried_again(ledger: Ledger, job: str) -> None:
    """With its attempts counted on; parts are put in the place of others at once."""
    lease = ledger.lease(job, 5, SECONDS)
    failed = [Settled(item.number, "failed", "not_found") for item in lease.items[:2]]
    done = [Settled(item.number, "done") for item in lease.items[2:]]
    ledger.commit(lease, failed + done, part("p"))
    assert ledger.end(job, [part("f1", 2)]) == []
    assert ledger.end(job, [part("f9", 2)]) is None  # another process did
    assert ledger.retry_failed(job) == 2
    ledger.set_state(job, "running")
    assert ledger.job(job).counts == {"found": 5, "done": 3, "skipped": 0, "failed": 0}
    again = ledger.lease(job, 5, SECONDS)
    assert [(item.locator, item.attempts) for item in again.items] == [("a", 2), ("b", 2)]
    assert ledger.end(job, [part("f2", 1)]) == [part("f1", 2)]
    assert [each.name for each in ledger.parts(job)] == ["f2", "p"]
    assert ledger.job(job).state == "done"


def test_workers_share_without_taking_twice(opened: Callable[[], Ledger], job: str) -> None:
    """Four at the same time settle 400 images, each one once."""
    opened().add(job, map(str, range(395)))
    ledgers = [opened() for _ in range(4)]
    taken: list[int] = []

    def work(ledger: Ledger) -> None:
        while lease := ledger.lease(job, 7, SECONDS):
            taken.extend(item.number for item in lease.items)
            ledger.commit(lease, [Settled(item.number, "done") for item in lease.items], None)

    threads = [threading.Thread(target=work, args=[ledger]) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 400
    assert ledgers[0].job(job).counts["done"] == 400


def test_states_and_times_are_kept(ledger: Ledger, job: str, clock) -> None:
    """When it began for the first time, when it last ended, and why."""
    ledger.set_state(job, "running")
    clock.seconds += 10
    ledger.set_state(job, "stopped", "the archive does not answer")
    stopped = ledger.job(job)
    assert (stopped.state, stopped.reason) == ("stopped", "the archive does not answer")
    assert stopped.ended == clock.seconds
    clock.seconds += 10
    ledger.set_state(job, "running")
    again = ledger.job(job)
    assert (again.started, again.ended, again.reason) == (clock.seconds - 20, None, None)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/ledger", "nonsense", "oracle://x/y"])
def test_a_ledger_that_cannot_be_opened_is_named(url: str) -> None:
    """Rather than a trace of the database's own."""
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(url)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    """And left as it is."""
    (tmp_path / "x").write_bytes(b"no database" * 100)
    with pytest.raises(LedgerError):
        Ledger(f"sqlite:///{tmp_path}/x")
    assert (tmp_path / "x").read_bytes() == b"no database" * 100


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    """The progress of a running job can be read."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger")
    job = ledger.open_job("key", {}).id
    with sqlite3.connect(tmp_path / "ledger") as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert ledger.job(job).counts["found"] == 0
    writer.close()
    ledger.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_the_usual_url_of_postgresql_is_understood(scheme: str) -> None:
    """SQLAlchemy would look for a driver that is not installed; the one that is, is asked."""
    with pytest.raises(LedgerError) as error:
        Ledger(f"{scheme}://user@127.0.0.1:1/ledger")
    assert "psycopg" not in str(error.value)
    assert "127.0.0.1" in str(error.value)
