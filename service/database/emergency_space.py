"""Reserved disk space. It is freed when the disk is full, so that the reason can be recorded."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Releasing two leases of 1000 images writes about 600 KiB; stopping a job, or opening the ledger,
# takes one or two steps
EMERGENCY_BYTES = 2 * 2**20
STEP_BYTES = 2**16


class EmergencySpace:
    """A file of unused space beside the database.

    Args:
        path: The file.
        step_bytes: What is freed at once.
    """

    def __init__(self, path: Path, step_bytes: int) -> None:
        self._path, self._step_bytes = path, step_bytes

    def is_whole(self) -> bool:
        """Whether nothing of it is freed; what was is allocated again, if the disk has space."""
        if self._size() < EMERGENCY_BYTES:
            disk = os.statvfs(self._path.parent)
            # As much again stays free: to try for the last byte would fail who needs it meanwhile
            if disk.f_bavail * disk.f_frsize >= 2 * EMERGENCY_BYTES:
                self.keep()
        return self._size() >= EMERGENCY_BYTES

    def keep(self) -> None:
        """Allocate the file in full; if the disk is full, keep the size that it had."""
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
        """Free a step; False if no reserved space was left."""
        with suppress(OSError):
            size = self._size()
            os.truncate(self._path, max(size - self._step_bytes, 0))
            return size > 0
        return False

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0
