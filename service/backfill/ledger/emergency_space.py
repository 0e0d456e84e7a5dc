"""Disk space that is freed when the disk is full, so that a job can record why it stops."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# To give back what is leased takes about 600 KiB for two chunks of a thousand images; to say that
# a job is stopped, or to open the ledger, takes a step or two
EMERGENCY_BYTES = 2 * 2**20
STEP_BYTES = 2**16


class EmergencySpace:
    """A file without contents beside the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Have all of it, or as much as there was before where there is no room for more."""
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            before = os.fstat(file).st_size
            try:
                os.posix_fallocate(file, 0, EMERGENCY_BYTES)
            except OSError:
                os.ftruncate(file, before)
            finally:
                os.close(file)

    def give_up(self) -> bool:
        """Leave a step of it to whoever has something to write; False where nothing is left."""
        with suppress(OSError):
            size = self._path.stat().st_size
            os.truncate(self._path, max(size - STEP_BYTES, 0))
            return size > 0
        return False
