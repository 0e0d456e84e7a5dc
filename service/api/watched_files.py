"""Files that may change at any time, and are read again when they do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

LOOK_SECONDS = 0.5  # between checks of the files

T = TypeVar("T")
LOG = logging.getLogger(__name__)


class WatchedFiles(Generic[T]):
    """What some files hold together.

    If they become invalid, the last valid value stays, and the error is logged once. Requests and
    connections only take `value`, because some file systems can block for ever.

    Args:
        name: Of the value, in the plural, for the log.
        paths: The files; symbolic links may change their target, as Kubernetes does.
        read: Reads all of them.
        fault: What `read` raises for files that cannot be used.
        changed: Called with each value but the first.

    Raises:
        Exception: `fault`, if the files cannot be used now.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        fault: type[Exception],
        changed: Callable[[T], object],
    ) -> None:
        self._name, self._paths = name, tuple(paths)
        self._read, self._fault_type, self._changed = read, fault, changed
        self._looking = Lock()
        self._seen = self._state()
        self.value = read()
        self._fault = ""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Check the files every `LOOK_SECONDS`, in a thread, until the block ends."""
        ended = Event()
        # A daemon thread: one that is blocked by a file system does not keep the process alive
        watcher = Thread(target=self._watch, args=[ended], name=self._name, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()

    def look(self) -> None:
        """Read the files if one has changed or was invalid. May block: not on the event loop."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        seen = self._state()
        if seen == self._seen and not self._fault:
            return
        self._seen = seen
        try:
            value = self._read()
        except self._fault_type as error:
            if str(error) != self._fault:
                LOG.error("the %s stay as they were: %s", self._name, error)  # noqa: TRY400  # it says it all
            self._fault = str(error)
        else:
            self.value, self._fault = value, ""
            self._changed(value)

    def _watch(self, ended: Event) -> None:
        while not ended.wait(LOOK_SECONDS):
            self.look()

    def _state(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_state, self._paths))


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, found.st_size
