"""What persons say about images: two readers, and an adjudicator where these differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from service.backfill.ledger.jobs import LedgerError

Decision = Literal["frontal", "lateral", "not_chest", "unsure"]
Role = Literal["reader", "adjudicator"]

MOST_READERS = 2  # of one image


class UnknownInstanceError(LedgerError):
    """The worklist of the job has no such image."""

    code: ClassVar[str] = "unknown_instance"


class ReviewStateError(LedgerError):
    """The decisions about an image that stand do not allow this one."""

    code: ClassVar[str] = "review_state"


@dataclass(frozen=True)
class Entry:
    """One decision, or one that was taken back. Entries are only added, never changed."""

    item: int  # the number of the image in the ledger
    reader: str  # the name of the client
    role: Role
    decision: Decision | None  # None: the reader takes the one before back
    decided: float  # seconds since 1970


@dataclass
class Readings:
    """The decisions about one image that stand."""

    by_reader: dict[str, Decision] = field(default_factory=dict)  # in the order of the first ones
    adjudication: Entry | None = None
    decided: float | None = None  # the time of the last entry, in seconds since 1970

    @property
    def differ(self) -> bool:
        """Whether two readers have decided in two ways."""
        return len(set(self.by_reader.values())) > 1

    @property
    def final(self) -> Decision | None:
        """What is taken for true; None: undecided, or the readers differ."""
        if self.differ:
            return self.adjudication.decision if self.adjudication else None
        return next(iter(self.by_reader.values()), None)

    def add(self, entry: Entry) -> None:
        """Follow the history by one entry."""
        self.decided = entry.decided
        if entry.role == "adjudicator":
            self.adjudication = entry if entry.decision else None
        elif entry.decision is None:
            self.by_reader.pop(entry.reader, None)
        else:
            self.by_reader[entry.reader] = entry.decision

    def of(self, reader: str, role: Role) -> Decision | None:
        """What this person has decided in this role."""
        if role == "reader":
            return self.by_reader.get(reader)
        own = self.adjudication is not None and self.adjudication.reader == reader
        return self.adjudication.decision if self.adjudication and own else None

    def check(self, reader: str, role: Role) -> None:
        """Check whether this person may decide in this role.

        Raises:
            ReviewStateError: Two others have read the image, or it has no conflict that this person
                may decide.
        """
        if role == "reader":
            if reader not in self.by_reader and len(self.by_reader) >= MOST_READERS:
                raise ReviewStateError("two readers have decided about this image already")
        elif not self.differ:
            raise ReviewStateError("the readers of this image do not differ")
        elif reader in self.by_reader:
            raise ReviewStateError("an adjudicator is none of the two readers")
        elif self.adjudication and self.adjudication.reader != reader:
            raise ReviewStateError("another adjudicator has decided about this image already")


def standing(entries: Iterable[Entry]) -> dict[int, Readings]:
    """The decisions that stand, by image, from a history in its order."""
    found: dict[int, Readings] = {}
    for entry in entries:
        found.setdefault(entry.item, Readings()).add(entry)
    return found
