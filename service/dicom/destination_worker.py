"""The delivery to one destination: its rate, its hours, its retries."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime
from threading import Event, Thread
from typing import Literal

from service.dicom.destinations import Destination
from service.dicom.entries import Leased, OutboxAwayError
from service.dicom.outbox import Outbox
from service.dicom.senders.sender import RejectedError, RetryableError, Sender, Warned

LOG = logging.getLogger(__name__)
Outcome = Literal["delivered", "warning", "retry", "dead"]
LEASED = 20  # deliveries at a time
LEASE_SECONDS = 120.0  # and four of the destination's time limits at least
POLL_SECONDS = 0.5  # how soon a new result is seen
IDLE_SECONDS = 5.0  # after which an association is released
CLOSED_SECONDS = 30.0  # how often the clock is read outside of the hours
AWAY_SECONDS = 5.0  # between two attempts to use the outbox
STEP_SECONDS = 0.1  # how long `backfill` waits for `interactive`
IN_A_ROW = 3  # failures after which the destination counts as away
MAX_RETRY_AFTER_SECONDS = 86400.0
DAMPED = 30  # doublings


class DestinationWorker:
    """Delivers to one destination in a thread of its own, from `start` to `close`.

    Args:
        outbox: Holds what is to be delivered.
        destination: Where it goes.
        sender: Delivers one result.
        observe: Called with the outcome of each attempt.
        yields: Whether others must be served first; only the lane `backfill` asks.
        now: A clock, in seconds since 1970.
    """

    def __init__(
        self,
        outbox: Outbox,
        destination: Destination,
        sender: Sender,
        observe: Callable[[Outcome], None],
        *,
        yields: Callable[[], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.destination, self.sending = destination, False
        self._outbox, self._sender, self._observe = outbox, sender, observe
        self._yields, self._now = yields, now
        self._lease_seconds = max(LEASE_SECONDS, 4 * destination.timeout_seconds)
        self._stopping = Event()
        self._failures = 0  # in a row
        self._next = 0.0  # this and the next two: of the monotonic clock
        self._paused_until = 0.0
        self._idle_since: float | None = None
        self._thread = Thread(target=self._run, name=f"deliver-{destination.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the result in progress, and no other."""
        self._stopping.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread after `stop`; False if it is still sending."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._deliver_some()
            except OutboxAwayError as error:
                LOG.error("destination %s: %s", self.destination.name, error)  # noqa: TRY400
                self._stopping.wait(AWAY_SECONDS)
            except Exception as error:  # noqa: BLE001  # a defect must not end the thread
                self._report(error)
                self._stopping.wait(AWAY_SECONDS)
        try:
            self._sender.close()
        except Exception as error:  # noqa: BLE001  # the process ends
            self._report(error)

    def _report(self, error: Exception) -> None:
        LOG.error("destination %s: %s", self.destination.name, _where(error))

    def _deliver_some(self) -> None:
        if (seconds := self._wait_seconds()) > 0:
            self._idle()
            self._stopping.wait(min(seconds, CLOSED_SECONDS))
            return
        some = self._outbox.lease(self.destination.name, self._most(), self._lease_seconds)
        if not some:
            self._idle()
            self._stopping.wait(POLL_SECONDS)
            return
        self._idle_since, leased = None, time.monotonic()
        for number, each in enumerate(some):
            if not self._turn():
                for other in some[number:]:
                    self._outbox.release(other)
                return
            late = time.monotonic() - leased > self._lease_seconds / 2
            if late and not self._outbox.renew(each, self._lease_seconds):
                continue  # it was dropped, or another process has it
            self.sending = True
            try:
                self._deliver(each)
            finally:
                self.sending = False

    def _most(self) -> int:
        """As many as can be delivered well before their lease expires."""
        rate = self.destination.results_per_second
        in_time = LEASED if rate is None else int(rate * LEASE_SECONDS / 4)
        return max(1, min(LEASED, in_time))

    def _wait_seconds(self) -> float:
        window = self.destination.window
        if window is not None:
            local = datetime.fromtimestamp(self._now()).astimezone()
            if not window.contains(local.time()):
                return CLOSED_SECONDS
        return self._paused_until - time.monotonic()

    def _turn(self) -> bool:
        """Wait for the rate, and for others; False if nothing more may be sent now."""
        while True:
            if self._stopping.is_set() or self._wait_seconds() > 0:
                return False
            if (early := self._next - time.monotonic()) > 0:
                self._stopping.wait(min(early, CLOSED_SECONDS))
            elif self.destination.lane == "backfill" and self._yields():
                self._stopping.wait(STEP_SECONDS)
            else:
                return True

    def _deliver(self, leased: Leased) -> None:
        if (rate := self.destination.results_per_second) is not None:
            self._next = max(self._next, time.monotonic() - 1 / rate) + 1 / rate
        try:
            self._delivered(leased, self._sender.send(leased))
        except RejectedError as error:
            self._dead(leased, error)
        except RetryableError as error:
            self._failed(leased, error)
        except OutboxAwayError:
            raise
        except Exception as error:  # noqa: BLE001  # a defect must not end the thread
            self._report(error)
            self._failed(leased, RetryableError("internal_error", type(error).__name__))

    def _delivered(self, leased: Leased, warned: Warned | None) -> None:
        self._answers()
        code, detail = (None, None) if warned is None else ("warning", warned.detail)
        self._settle(lambda: self._outbox.delivered(leased, code, detail))
        self._observe("delivered" if warned is None else "warning")

    def _dead(self, leased: Leased, error: RejectedError | RetryableError) -> None:
        if isinstance(error, RejectedError):
            self._answers()
        name = self.destination.name
        LOG.error("destination %s: delivery %d is a dead letter: %s", name, leased.id, error)
        self._settle(lambda: self._outbox.dead(leased, error.code, str(error)))
        self._observe("dead")

    def _failed(self, leased: Leased, error: RetryableError) -> None:
        self._failures += 1
        delay = self._delay(leased.attempts, error)
        if error.away or self._failures >= IN_A_ROW:
            pause = self._delay(self._failures, error)
            self._paused_until, delay = time.monotonic() + pause, max(delay, pause)
            if self._failures in {1, IN_A_ROW}:
                LOG.warning("destination %s is away: %s", self.destination.name, error)
        now = self._now()
        since = now if leased.failing_since is None else leased.failing_since
        if now - since >= 3600 * self.destination.give_up_hours:
            self._dead(leased, error)
            return
        self._settle(lambda: self._outbox.retry_at(leased, now + delay, error.code, str(error)))
        self._observe("retry")

    def _answers(self) -> None:
        if self._failures >= IN_A_ROW:
            LOG.info("destination %s answers again", self.destination.name)
        self._failures, self._paused_until = 0, 0.0

    def _delay(self, attempts: int, error: RetryableError) -> float:
        most, first = self.destination.max_delay_seconds, self.destination.first_delay_seconds
        doubled = min(first * 2.0 ** min(attempts - 1, DAMPED), most)
        asked = min(error.after_seconds or 0, MAX_RETRY_AFTER_SECONDS)
        return max(doubled * random.uniform(0.5, 1), asked)

    def _settle(self, store: Callable[[], bool]) -> None:
        """Store an outcome, also if the outbox is away for a while.

        If the process stops first, the lease expires, and the result is sent a second time.
        """
        while True:
            try:
                store()
            except OutboxAwayError as error:
                LOG.error("destination %s: %s", self.destination.name, error)  # noqa: TRY400
                if self._stopping.wait(AWAY_SECONDS):
                    return
            else:
                return

    def _idle(self) -> None:
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= IDLE_SECONDS:
            self._sender.idle()


def _where(error: Exception) -> str:
    """A defect without its text, which may hold PHI."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return type(error).__name__ + place
