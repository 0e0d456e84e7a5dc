"""The counts of a certificate, taken batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from model_store import View
from service.backfill.report.bounded_counter import BoundedCounter, Repetitions
from service.backfill.report.certificate import Agreement, Model, Share, Shares
from service.backfill.results.rows import INPUTS, OUTCOMES

LARGEST = 20
NAMED = 3  # examples in an error
HEADER = ("view_position", "patient_orientation", "view_code", "described_view")
VIEWS: tuple[View, ...] = get_args(View)
# Columns that every row that is done must have
ANSWER = ("key", "view", "pfi", "threshold", "review")

Again = Callable[[], Iterator[pa.RecordBatch]]


class CertificateCounts:
    """Counts rows; takes 16 bytes of memory a row."""

    def __init__(self) -> None:
        self.rows = 0
        self.review = 0
        self.started: datetime | None = None
        self.ended: datetime | None = None
        names = ("outcome", "code", "view", "input", "modality", "station", "month", "model")
        self._counters = {name: BoundedCounter() for name in names}
        self._header = {name: BoundedCounter() for name in HEADER}
        self._locators, self._keys = Repetitions(), Repetitions()
        self._unanswered = self._unexplained = self._contradicted = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        self.rows += batch.num_rows
        of = self._counters
        of["outcome"].add(batch["outcome"])
        self._locators.add(_texts(batch, "locator"))
        self._add_times(batch)
        is_done = pc.equal(batch["outcome"], "done")
        refused, done = batch.filter(pc.invert(is_done)), batch.filter(is_done)
        of["code"].add(refused["code"])
        self._unexplained += refused["code"].null_count
        self._add_done(done)

    def _add_done(self, done: pa.RecordBatch) -> None:
        for name in ("view", "modality", "station", "month"):
            self._counters[name].add(done[name])
        # Parts of earlier versions lack the column, and had stored images only
        self._counters["input"].add(pc.fill_null(done["input"], "stored"))
        self._counters["model"].add(
            pc.binary_join_element_wise(done["model"], done["model_sha256"], " ")
        )
        for name in HEADER:
            self._header[name].add(done[f"{name}_agrees"])
        self.review += pc.sum(done["review"]).as_py() or 0
        self._keys.add(_texts(done, "key"))
        missing = pc.is_valid(done["code"])
        for name in ANSWER:
            missing = pc.or_(missing, pc.is_null(done[name]))
        self._unanswered += pc.sum(missing).as_py() or 0
        frontal = pc.equal(done["view"], "frontal")
        above = pc.greater_equal(done["pfi"], done["threshold"])
        self._contradicted += pc.sum(pc.not_equal(frontal, above)).as_py() or 0

    def _add_times(self, batch: pa.RecordBatch) -> None:
        ends = batch["finished"]
        lasted = pc.multiply(pc.fill_null(batch["seconds"], 0), 1e6)
        starts = pc.subtract(ends, pc.cast(pc.round(lasted), pa.int64()).cast(pa.duration("us")))
        first, last = pc.min(starts).as_py(), pc.max(ends).as_py()
        if last is not None:
            self.started = first if self.started is None else min(self.started, first)
            self.ended = last if self.ended is None else max(self.ended, last)

    def counts(self, name: str) -> dict[Any, int]:
        """Counts by value of a column with few values."""
        known = {"outcome": OUTCOMES, "view": VIEWS, "input": INPUTS}.get(name, ())
        counts, others = self._counters[name].largest(1000)
        named: dict[Any, int] = dict.fromkeys(known, 0) | {
            value: count for value, count in counts.items() if value is not None
        }
        return named | ({"others": others} if others else {})

    def shares(self, name: str) -> Shares:
        """The most frequent values of a column."""
        largest, others = self._counters[name].largest(LARGEST)
        shares = [Share(value=value, images=count) for value, count in largest.items()]
        return Shares(largest=tuple(shares), others=others)

    def months(self) -> dict[str, int]:
        """Counts by month, in order."""
        counts, others = self._counters["month"].largest(1000)
        named = sorted((month or "", count) for month, count in counts.items())
        return dict(named) | ({"others": others} if others else {})

    def models(self) -> tuple[Model, ...]:
        """The models that answered, the most frequent first."""
        counts, _ = self._counters["model"].largest(LARGEST)
        split = [((text or "").rpartition(" "), count) for text, count in counts.items()]
        return tuple(Model(name=name, sha256=sha, images=n) for (name, _, sha), n in split)

    def header(self) -> dict[str, Agreement]:
        """Agreement with the pixels, by header attribute."""
        found = {name: counter.counts for name, counter in self._header.items()}
        return {
            name: Agreement(agrees=of[True], disagrees=of[False], silent=of[None])  # type: ignore[index]
            for name, of in found.items()
        }

    def errors(self, again: Again) -> list[str]:
        """The reasons why not every image has exactly one outcome.

        Args:
            again: Reads all rows a second time; used only if something seems to be repeated.
        """
        checks = (
            (self._unanswered, "rows that are done without an answer, or with a code"),
            (self._contradicted, "rows whose PFI and threshold contradict their view"),
            (self._unexplained, "rows that are skipped or failed without a code"),
        )
        errors = [f"{what}: {count}" for count, what in checks if count]
        locators = (list(_texts(batch, "locator")) for batch in again())
        keys = (
            list(_texts(batch.filter(pc.equal(batch["outcome"], "done")), "key"))
            for batch in again()
        )
        errors += _repeated("locator", "rows", *self._locators.find(locators))
        errors += _repeated("key", "done rows", *self._keys.find(keys))
        return errors


def _repeated(name: str, rows: str, count: int, texts: dict[str, int]) -> list[str]:
    if not count:
        return []
    largest = sorted(texts.items(), key=lambda one: (-one[1], one[0]))[:NAMED]
    examples = ", ".join(f"{text} ({times} times)" for text, times in largest)
    return [f"{rows} that repeat the {name} of another: {count}, as {examples}"]


def _texts(batch: pa.RecordBatch, name: str) -> Iterator[str]:
    return iter(batch[name].drop_null().to_pylist())


def rate(rows: int, started: datetime | None, ended: datetime | None) -> float | None:
    """Images a second; None if the time is unknown or zero."""
    if started is None or ended is None or ended - started <= timedelta(0):
        return None
    return rows / (ended - started).total_seconds()
