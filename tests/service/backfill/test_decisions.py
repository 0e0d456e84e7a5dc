"""Decisions of persons about images: none is lost, none is changed, and two readers are two."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from service.backfill.ledger.ledger import Ledger
from service.backfill.ledger.readings import (
    MOST_READERS,
    Decision,
    Entry,
    Readings,
    ReviewStateError,
    Role,
    UnknownInstanceError,
    standing,
)

READERS = ("ann", "ben", "eve")
DECISIONS: tuple[Decision | None, ...] = ("frontal", "lateral", "not_chest", "unsure", None)
Act = tuple[int, str, Role, Decision | None]
acts = some.lists(
    some.tuples(
        some.sampled_from((0, 1)),
        some.sampled_from(READERS),
        some.sampled_from(("reader", "adjudicator")),
        some.sampled_from(DECISIONS),
    ),
    max_size=30,
)


@pytest.fixture
def job(ledger: Ledger) -> tuple[str, list[int]]:
    """A job with two images that are done, and their numbers."""
    job = ledger.open_job("key", {}).id
    ledger.add(job, ["a", "\udce9.dcm"])
    lease = ledger.lease(job, 2, 60)
    assert lease is not None
    return job, [item.number for item in lease.items]


def allowed(state: Mapping[str, Any], reader: str, role: Role) -> bool:
    """The rules, written out in another way."""
    readers: dict[str, str] = state["readers"]
    if role == "reader":
        return reader in readers or len(readers) < MOST_READERS
    others = state["adjudicator"] not in {None, reader}
    return len(set(readers.values())) == 2 and reader not in readers and not others


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(acts)
def test_what_stands_follows_from_the_history(
    opened: Callable[[], Ledger], history: list[Act]
) -> None:
    """Of any sequence of decisions: a refused one leaves no entry, others are never changed."""
    ledger = opened()
    job = ledger.open_job(str(len(ledger.jobs())), {}).id
    ledger.add(job, ["a", "b"])
    lease = ledger.lease(job, 2, 60)
    assert lease is not None
    numbers = [item.number for item in lease.items]
    states: list[dict[str, Any]] = [{"readers": {}, "adjudicator": None} for _ in numbers]
    before: list[Entry] = []
    for image, reader, role, decision in history:
        state = states[image]
        own = state["readers"].get(reader) if role == "reader" else None
        if role == "adjudicator" and state["adjudicator"] == reader:
            own = state["decided"]
        changes = decision != own
        if changes and decision is not None and not allowed(state, reader, role):
            with pytest.raises(ReviewStateError):
                ledger.decisions.add(job, numbers[image], reader, role, decision)
            changes = False
        else:
            ledger.decisions.add(job, numbers[image], reader, role, decision)
        found = ledger.decisions.history(job)
        assert found[: len(before)] == before
        assert len(found) == len(before) + changes
        before = found
        if changes and role == "adjudicator":
            state["adjudicator"] = reader if decision else None
            state["decided"] = decision
        elif changes:
            state["readers"].pop(reader, None)
            state["readers"] |= {reader: decision} if decision else {}
    stands = ledger.decisions.standing(job)
    for number, state in zip(numbers, states, strict=True):
        of = stands.get(number, Readings())
        assert of.by_reader == state["readers"]
        views = set(state["readers"].values())
        agreed = next(iter(views), None) if len(views) < 2 else None
        decided = state["decided"] if state["adjudicator"] and len(views) == 2 else agreed
        assert of.final == decided
    ledger.close()


def test_a_decision_is_there_for_every_process(
    opened: Callable[[], Ledger], ledger: Ledger, job: tuple[str, list[int]], clock
) -> None:
    """As soon as it is added, with its reader and time; the same again adds nothing."""
    identifier, (first, second) = job
    added = ledger.decisions.add(identifier, first, "ann", "reader", "frontal")
    clock.seconds += 5
    assert ledger.decisions.add(identifier, first, "ann", "reader", "frontal") == added
    ledger.decisions.add(identifier, second, "ann", "reader", None)  # there is nothing to undo
    again = ledger.decisions.add(identifier, first, "ann", "reader", "unsure")
    assert opened().decisions.history(identifier) == [added, again]
    assert (added.decided, again.decided) == (clock.seconds - 5, clock.seconds)
    assert opened().decisions.locator(identifier, second) == "\udce9.dcm"


def test_images_of_other_jobs_are_unknown(ledger: Ledger, job: tuple[str, list[int]]) -> None:
    """Their numbers open nothing."""
    other = ledger.open_job("another", {}).id
    for number in (job[1][0], 10**18):
        with pytest.raises(UnknownInstanceError):
            ledger.decisions.add(other, number, "ann", "reader", "frontal")
        with pytest.raises(UnknownInstanceError):
            ledger.decisions.locator(other, number)
    assert ledger.decisions.history(other) == []


def test_of_many_readers_at_once_two_decide(
    opened: Callable[[], Ledger], job: tuple[str, list[int]]
) -> None:
    """The first two; the database keeps the others out."""
    identifier, (first, _) = job
    ledgers = [opened() for _ in range(8)]
    refused: list[str] = []

    def decide(number: int) -> None:
        try:
            ledgers[number].decisions.add(identifier, first, f"r{number}", "reader", "frontal")
        except ReviewStateError:
            refused.append(f"r{number}")

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledgers[0].decisions.history(identifier)) == MOST_READERS
    assert len(refused) == 8 - MOST_READERS


def test_a_ledger_of_an_earlier_version_gets_the_table(tmp_path: Path) -> None:
    """And keeps its jobs."""
    url = f"sqlite:///{tmp_path}/ledger"
    ledger = Ledger(url)
    job = ledger.open_job("key", {}).id
    with ledger._database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE decisions")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0004'")
    ledger.close()
    again = Ledger(url)
    assert again.decisions.history(job) == []
    again.close()


def test_a_reading_is_followed_entry_by_entry() -> None:
    """Two readers differ, the adjudicator decides, a reader changes the mind."""
    steps: list[tuple[str, Role, Decision | None, Decision | None]] = [
        ("ann", "reader", "frontal", "frontal"),
        ("ben", "reader", "lateral", None),
        ("eve", "adjudicator", "not_chest", "not_chest"),
        ("eve", "adjudicator", None, None),
        ("ben", "reader", "frontal", "frontal"),
        ("ann", "reader", None, "frontal"),
        ("ben", "reader", None, None),
    ]
    entries = []
    for reader, role, decision, final in steps:
        entries.append(Entry(1, reader, role, decision, len(entries)))
        assert standing(entries)[1].final == final
