"""The counts of a certificate, taken batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from model_store import ROTATIONS, View
from service.backfill.report.bounded_counter import BoundedCounter, Repetitions
from service.backfill.report.certificate import Agreement, Model, Orientations, Share, Shares
from service.backfill.results.rows import INPUTS, OUTCOMES

LARGEST = 20
NAMED = 3  # examples in an error
# The header's claims, and the columns that say whether the answer agrees
VIEW_CLAIMS = ("view_position", "patient_orientation", "view_code", "described_view")
BODY_PART = "body_part_examined"
CLAIMS = (*VIEW_CLAIMS, BODY_PART)
AGREES = {name: f"{name}_agrees" for name in VIEW_CLAIMS} | {BODY_PART: "body_part_agrees"}
VIEWS: tuple[View, ...] = get_args(View)
ORIENTATION = ("rotation_degrees", "inverted", "mirrored")
COUNTED = ("view", "modality", "station", "month", *ORIENTATION)  # of the images that are done
YES_NO = {True: "yes", False: "no"}
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
        names = (*COUNTED, "outcome", "code", "input", "model")
        self._counters = {name: BoundedCounter() for name in names}
        self._header = {name: BoundedCounter() for name in CLAIMS}
        self._asked = 0  # images of which the model says whether they show a chest
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
        for name in COUNTED:
            self._counters[name].add(done[name])
        # Parts of earlier versions lack the column, and had stored images only
        self._counters["input"].add(pc.fill_null(done["input"], "stored"))
        self._counters["model"].add(
            pc.binary_join_element_wise(done["model"], done["model_sha256"], " ")
        )
        for name, column in AGREES.items():
            self._header[name].add(done[column])
        self._asked += done.num_rows - done["chest"].null_count
        self.review += pc.sum(done["review"]).as_py() or 0
        self._keys.add(_texts(done, "key"))
        missing = pc.is_valid(done["code"])
        for name in ANSWER:
            missing = pc.or_(missing, pc.is_null(done[name]))
        self._unanswered += pc.sum(missing).as_py() or 0
        self._contradicted += pc.sum(pc.not_equal(done["view"], _decided(done))).as_py() or 0

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
        views = (*VIEWS, "not_chest") if self._asked else VIEWS
        known = {"outcome": OUTCOMES, "view": views, "input": INPUTS}.get(name, ())
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
        names = CLAIMS if self._asked else VIEW_CLAIMS
        found = {name: self._header[name].counts for name in names}
        return {
            name: Agreement(agrees=of[True], disagrees=of[False], silent=of[None])  # type: ignore[index]
            for name, of in found.items()
        }

    def orientation(self) -> Orientations | None:
        """How the images lie; None if no model says it of any."""
        rotation, inverted, mirrored = (self._counters[name].counts for name in ORIENTATION)
        if not any(value is not None for value in (*rotation, *inverted, *mirrored)):
            return None
        return Orientations(
            rotation={str(degrees): rotation[degrees] for degrees in ROTATIONS},  # type: ignore[index,misc]
            inverted={text: inverted[value] for value, text in YES_NO.items()},  # type: ignore[index,misc]
            mirrored={text: mirrored[value] for value, text in YES_NO.items()},  # type: ignore[index,misc]
        )

    def errors(self, again: Again) -> list[str]:
        """The reasons why not every image has exactly one outcome.

        Args:
            again: Reads all rows a second time; used only if something seems to be repeated.
        """
        checks = (
            (self._unanswered, "rows that are done without an answer, or with a code"),
            (self._contradicted, "rows whose probabilities and thresholds contradict their view"),
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


def _decided(done: pa.RecordBatch) -> pa.Array:
    """The view that the probabilities and thresholds of rows give; null without a PFI."""
    # Null where the model does not say whether an image shows a chest
    is_other = pc.fill_null(pc.less(done["chest"], done["chest_threshold"]), False)
    frontal = pc.greater_equal(done["pfi"], done["threshold"])
    return pc.if_else(is_other, "not_chest", pc.if_else(frontal, "frontal", "lateral"))


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
