"""`cxrview deliveries`: what its actions do with the outbox."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from service.cli.console import complain
from service.dicom.entries import STATES, Delivery, OutboxError
from service.dicom.outbox import Outbox

FAILED = 1
REFUSED = 2  # exit code: the command cannot be run
PAGE = 500


def run(options: argparse.Namespace) -> int:
    """Run one action; returns 1 if it failed for a delivery, 2 if the outbox cannot be used."""
    try:
        outbox = Outbox(options.outbox, create=False)
    except OutboxError as error:
        complain(str(error))
        return REFUSED
    try:
        if options.action == "list":
            return _list(outbox, options)
        return _change(outbox, options)
    except OutboxError as error:
        complain(str(error))
        return REFUSED
    finally:
        outbox.close()


def _list(outbox: Outbox, options: argparse.Namespace) -> int:
    numbers = Table("destination", *STATES, "oldest waits")
    counts = outbox.counts()
    for name, found in sorted(counts.items()):
        waits = f"{found.oldest_seconds:.0f} s" if found.oldest_seconds else ""
        numbers.add_row(name, *(str(found.states[each]) for each in STATES), waits)
    table = Table("id", "destination", "state", "attempts", "created", "due", "SOP instance", "why")
    for each in outbox.deliveries(options.state, options.destination, most=options.limit):
        why = " ".join(filter(None, (each.code, each.detail)))
        times = (_time(each.created), _time(each.due))
        table.add_row(
            *(str(each.id), each.destination, each.state, str(each.attempts)),
            *(*times, each.sop_instance_uid, why),
        )
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(numbers)
    console.print(table)
    return _checked_name(counts, options.destination)


def _change(outbox: Outbox, options: argparse.Namespace) -> int:
    change = outbox.retry if options.action == "retry" else outbox.drop
    ids = options.ids or _dead(outbox, options.dead)
    failed = _checked_name(outbox.counts(), options.dead)
    for each in ids:
        failed |= _changed(change, each)
    return failed


def _changed(change: Callable[[int], Delivery], delivery: int) -> int:
    try:
        found = change(delivery)
    except OutboxError as error:
        complain(str(error))
        return FAILED
    sys.stdout.write(f"{found.id} {found.destination} {found.state}\n")
    return 0


def _checked_name(known: Collection[str], destination: str | None) -> int:
    """1, and a line that says so, if a destination is named that has no results."""
    if destination is None or destination in known:
        return 0
    there_are = f"those that have: {', '.join(sorted(known))}" if known else "nor for any other"
    complain(f"no results for a destination {destination!r}, {there_are}")
    return FAILED


def _dead(outbox: Outbox, destination: str) -> list[int]:
    found: list[int] = []
    while page := outbox.deliveries(
        "dead", destination, before=found[-1] if found else None, most=PAGE
    ):
        found += [each.id for each in page]
    return found


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"
