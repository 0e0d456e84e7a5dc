"""The folder of a job's results, kept consistent with its ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

from service.backfill.ledger.jobs import Part, own_ids
from service.backfill.results import atomic_files
from service.backfill.results.rows import Row
from service.backfill.results.sinks import RESULTS, Sink

FAILURES = "failures-"
# The lease's id in the name of a draft. Parts of failed images do not match: `Ledger.end` replaces
# them
DRAFT = re.compile(r"\.part-([0-9a-f]+)\.\w+\.tmp")


class Results:
    """Writes parts, publishes committed ones, and deletes drafts that never were.

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
        self,
        job: str,
        leases: Callable[[], Collection[str]],
        committed: Callable[[], Sequence[Part]],
    ) -> None:
        """Clean up after a crash: publish committed parts, delete the job's other drafts.

        Other workers may write meanwhile. So the order matters: drafts are listed before the leases
        and parts are read. A listed draft that then has neither a lease nor a part is left over.
        Files of other jobs, and all that readers see, are never deleted: the certificate names
        parts that are not this job's.

        Args:
            job: The job's id.
            leases: Reads the ids of leases that hold images, expired ones included.
            committed: Reads the parts that the ledger has.
        """
        drafts = list(self._out.glob(f"{RESULTS}/day=*/.part-{own_ids(job)}*.tmp"))
        alive, parts = leases(), committed()
        for part in parts:
            with suppress(FileNotFoundError):  # the certificate reports a missing part
                self.publish(part)
        known = {atomic_files.temporary(self._path(part.name)) for part in parts}
        for path in drafts:
            found = DRAFT.fullmatch(path.name)
            if found and path not in known and found[1] not in alive:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._out / RESULTS / name
