"""The folder of a job's results, kept consistent with its ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

from service.backfill.ledger.jobs import Part
from service.backfill.results import atomic_files
from service.backfill.results.rows import Row
from service.backfill.results.sinks import RESULTS, Sink

FAILURES = "failures-"
# The lease's id in the name of a part. Parts of failed images do not match: `Ledger.end` replaces
# them
PART_ID = re.compile(r"part-([0-9a-f]+)\.")


class Results:
    """Writes parts, publishes committed ones, and deletes the others.

    Args:
        out: The folder of the job.
        sink: The format of the parts.
        today: Returns the day of processing, in UTC.
    """

    def __init__(
        self,
        out: Path,
        sink: Sink,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._out, self._sink, self._today = out, sink, today

    def write(self, rows: Sequence[Row], part: str) -> Part:
        """Write a part to the disk, hidden from readers."""
        written = self._sink.write_part(rows, self._sink.path(self._out, self._today(), part))
        return Part(written.name, written.rows, written.bytes, written.sha256)

    def publish(self, part: Part) -> None:
        """Make a committed part visible to readers; may be repeated."""
        atomic_files.publish(atomic_files.temporary(self._path(part.name)))

    def discard(self, part: Part) -> None:
        """Delete a part, published or not."""
        for path in (self._path(part.name), atomic_files.temporary(self._path(part.name))):
            path.unlink(missing_ok=True)

    def recover(
        self, leases: Callable[[], Collection[str]], committed: Callable[[], Sequence[Part]]
    ) -> None:
        """Clean up after a crash: publish committed parts, delete the others.

        Other workers may write meanwhile. So the order matters: files are listed before the leases
        and parts are read. A listed file that then has neither a lease nor a part is left over.

        Args:
            leases: Reads the ids of leases that hold images, expired ones included.
            committed: Reads the parts that the ledger has.
        """
        there = list(self._out.glob(f"{RESULTS}/day=*/*"))
        alive, parts = leases(), committed()
        for part in parts:
            with suppress(FileNotFoundError):  # the certificate reports a missing part
                self.publish(part)
        known = {self._path(part.name) for part in parts}
        for path in there:
            final = path.with_name(path.name.removeprefix(".").removesuffix(".tmp"))
            found = PART_ID.match(final.name)
            if found and final not in known and found[1] not in alive:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._out / RESULTS / name
