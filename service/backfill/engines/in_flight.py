"""A limit for the files that a job holds in memory, by count and by bytes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

LOOK_SECONDS = 0.2  # how often waiting threads check whether to stop


class InFlightLimiter:
    """Limits the files that were read and have no answer yet, by count and by bytes.

    Once the limit of files is reached, no further file is admitted until half of them are answered:
    waking a thread for each file costs more than reading it.

    Args:
        files: The most files in flight.
        size: The most bytes in flight; a larger file is admitted alone.
    """

    def __init__(self, files: int, size: int) -> None:
        self._files, self._size = files, size
        self._inside, self._held = 0, 0
        self._full = False
        self._waiting = 0  # threads in `hold`
        self._changed = Condition()

    def enter(self, halted: Callable[[], bool]) -> bool:
        """Wait until one more file may be read; False if work stops first."""
        with self._changed:
            while self._full:
                if halted():
                    return False
                self._changed.wait(LOOK_SECONDS)
            if halted():
                return False
            self._inside += 1
            self._full = self._inside >= self._files
            return True

    def hold(self, count: int, halted: Callable[[], bool]) -> bool:
        """Wait until `count` more bytes fit; False if work stops first."""
        with self._changed:
            self._waiting += 1
            try:
                while self._held and self._held + count > self._size:
                    if halted():
                        return False
                    self._changed.wait(LOOK_SECONDS)
            finally:
                self._waiting -= 1
            self._held += count
            return True

    def leave(self, count: int) -> None:
        """Remove one file and its `count` bytes."""
        with self._changed:
            self._inside -= 1
            self._held -= count
            emptied = self._full and self._inside <= self._files // 2
            if emptied:
                self._full = False
            if emptied or self._waiting:
                self._changed.notify_all()
