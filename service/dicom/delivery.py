"""Delivery of results: a thread for each destination, and one that counts and purges."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread

from service.dicom.destination_worker import DestinationWorker, Outcome
from service.dicom.destinations import Destination
from service.dicom.entries import STATES, Counts, OutboxAwayError
from service.dicom.outbox import Outbox
from service.dicom.senders.opening import open_sender

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
PURGE_SECONDS = 3600.0
DAY = 86400.0
NO_COUNTS = Counts(dict.fromkeys(STATES, 0), 0)


class Deliveries:
    """Delivers what the outbox holds, from `start` to `close`.

    Args:
        outbox: Holds what is to be delivered.
        destinations: Where it goes.
        observe: Called with a destination's name and the outcome of each attempt.
        now: A clock, in seconds since 1970.
    """

    def __init__(
        self,
        outbox: Outbox,
        destinations: Sequence[Destination],
        observe: Callable[[str, Outcome], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._outbox, self._destinations, self._now = outbox, destinations, now
        self._workers = [self._worker(each, observe) for each in destinations]
        self._counts: Mapping[str, Counts] = {}
        self._stopping = Event()
        self._thread = Thread(target=self._look, name="deliveries-look", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        for worker in self._workers:
            worker.start()

    def close(self, seconds: float) -> None:
        """Stop the threads; each may finish the result in progress within so many seconds.

        What is not finished stays in the outbox, and is due when its lease expires.
        """
        self._stopping.set()
        for worker in self._workers:
            worker.stop()
        deadline = time.monotonic() + seconds
        for worker in self._workers:
            if not worker.join(max(deadline - time.monotonic(), 0)):
                LOG.warning("destination %s is still sending", worker.destination.name)
        self._thread.join(max(deadline - time.monotonic(), 0))

    def counts(self, destination: str) -> Counts:
        """Numbers of one destination, up to 5 s old: a scrape must not wait for a database."""
        return self._counts.get(destination, NO_COUNTS)

    def _worker(
        self, destination: Destination, observe: Callable[[str, Outcome], None]
    ) -> DestinationWorker:
        return DestinationWorker(
            self._outbox,
            destination,
            open_sender(destination),
            lambda outcome: observe(destination.name, outcome),
            yields=self._interactive,
            now=self._now,
        )

    def _interactive(self) -> bool:
        """Whether a destination of the lane `interactive` is being sent to."""
        return any(
            worker.sending for worker in self._workers if worker.destination.lane == "interactive"
        )

    def _look(self) -> None:
        purged = -PURGE_SECONDS
        names = {each.name for each in self._destinations}
        while not self._stopping.is_set():
            try:
                self._counts = self._outbox.counts()
                if time.monotonic() - purged >= PURGE_SECONDS:
                    _warn_of(self._counts, names)
                    self._purge()
                    purged = time.monotonic()
            except OutboxAwayError as error:
                LOG.error("deliveries cannot be counted: %s", error)  # noqa: TRY400
            self._stopping.wait(LOOK_SECONDS)

    def _purge(self) -> None:
        keep = {each.name: each.keep_days * DAY for each in self._destinations}
        longest = max(keep.values())
        for name in self._counts:  # of destinations that were removed as well
            self._outbox.purge(name, self._now() - keep.get(name, longest))
        self._outbox.purge_answers(self._now() - longest)


def _warn_of(counts: Mapping[str, Counts], names: set[str]) -> None:
    for name, found in counts.items():
        if name not in names and found.oldest_seconds:
            waiting = found.states["pending"] + found.states["leased"]
            LOG.warning("%d results wait for %s, which is no destination now", waiting, name)
