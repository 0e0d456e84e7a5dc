"""The log of corrections: JSON lines, on the disk before and after each call that changes Orthanc.

It holds UIDs of instances and what was asked of Orthanc. A correction whose call was not answered
has its first line, so that it can be undone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from service.dicom.corrections import CorrectionsError

BEGIN = b'{"time"'  # of every line
Action = Literal["correct", "undo"]


@dataclass(frozen=True)
class Made:
    """A copy that may have been made."""

    orthanc: str  # the URL
    sop_instance_uid: str  # of the source
    copy_uid: str


class CorrectionLog:
    """One log file; it is created with the first line, for its owner alone.

    Args:
        path: The file.

    Raises:
        CorrectionsError: The file cannot be read, or is no such log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: dict[Made, None] = {}  # in the order of the file
        self._torn = 0  # bytes of a line without an end
        for record in self._records():
            made = Made(record["orthanc"], record["sop_instance_uid"], record["copy_uid"])
            self._remember(record["action"], record["event"], made)

    def made(self) -> list[Made]:
        """The copies that may have been made and were not deleted since, in their order."""
        return list(self._made)

    @contextmanager
    def around(
        self, action: Action, made: Made, now: datetime, **details: Any
    ) -> Iterator[Callable[[str], None]]:
        """Log the beginning and the end of a call; the block calls what it gets if it failed."""
        reasons: list[str] = []
        self._append(action, "begin", made, now, **details)
        try:
            yield reasons.append
        except BaseException as error:
            self._append(action, "failed", made, now, reason=str(error) or type(error).__name__)
            raise
        if reasons:
            self._append(action, "failed", made, now, reason=reasons[0])
        else:
            self._append(action, "end", made, now)

    def _remember(self, action: str, event: str, made: Made) -> None:
        if (action, event) == ("correct", "begin"):
            self._made.pop(made, None)  # it is the last one now
            self._made[made] = None
        elif (action, event) == ("undo", "end"):
            self._made.pop(made, None)

    def _append(
        self, action: Action, event: str, made: Made, now: datetime, **details: Any
    ) -> None:
        record = {"time": now.isoformat(), "action": action, "event": event, **asdict(made)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(opened, "ab") as file:
            if self._torn:
                file.truncate(self.path.stat().st_size - self._torn)
                self._torn = 0
            file.write(json.dumps(record | details).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(action, event, made)

    def _records(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        try:
            *lines, torn = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise CorrectionsError(f"{self.path} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            yield self._record(number, line)
        # A crash cut it off, so its call was never made: the next line replaces it
        self._torn = len(torn)
        if not torn.startswith(BEGIN[: self._torn]):
            raise CorrectionsError(f"{self.path}, line {len(lines) + 1}: no entry of a log")

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            names = {"action", "event", "orthanc", "sop_instance_uid", "copy_uid"}
            if not names <= record.keys():
                raise ValueError
        except (ValueError, AttributeError):
            raise CorrectionsError(f"{self.path}, line {number}: no entry of a log") from None
        return dict(record)
