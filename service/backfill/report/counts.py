"""The counts of a certificate, taken batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from model_store import ROTATIONS, AnsweredView
from service.backfill.report.bounded_counter import BoundedCounter, Repetitions
from service.backfill.report.certificate import Agreement, Model, Orientations, Share, Shares
from service.backfill.results.outcomes import ROW_CODES
from service.backfill.results.rows import INPUTS, OUTCOMES

LARGEST = 20
NAMED = 3  # examples in an error
# The header's claims, and the columns that say whether the answer agrees
VIEW_CLAIMS = ("view_position", "patient_orientation", "view_code", "described_view")
BODY_PART = "body_part_examined"
CLAIMS = (*VIEW_CLAIMS, BODY_PART)
AGREES = {name: f"{name}_agrees" for name in VIEW_CLAIMS} | {BODY_PART: "body_part_agrees"}
ORIENTATION = ("rotation_degrees", "inverted", "mirrored")
COUNTED = ("view", "modality", "station", "month", *ORIENTATION)  # of the images that are done
YES_NO = {True: "yes", False: "no"}
# The values that columns may have. Others come from a later version; the certificate counts none
KNOWN: dict[str, tuple[str, ...]] = {
    "outcome": OUTCOMES,
    "view": get_args(AnsweredView),
    "input": INPUTS,
}
# Columns that every row that is done must have
ANSWER = ("key", "view", "pfi", "threshold", "review")
NAMES = ("key", "model", "model_sha256")  # these must not be empty either
IN_UNIT_INTERVAL = (
    "pfi", "threshold", "chest", "chest_threshold",
    "rotation_probability", "inverted_probability", "mirrored_probability",
)  # fmt: skip
SURE = {
    "rotation_degrees": "rotation_probability",
    "inverted": "inverted_probability",
    "mirrored": "mirrored_probability",
}

Broken = Callable[[pa.RecordBatch], pa.Array]  # by row, whether it breaks a rule; null: no
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
        self._broken: Counter[str] = Counter()  # rows by rule
        self._examples: dict[str, str] = {}  # by rule, the locator of the first such row

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        self.rows += batch.num_rows
        of = self._counters
        of["outcome"].add(batch["outcome"])
        self._check(batch, RULES)
        self._locators.add(_texts(batch, "locator"))
        self._add_times(batch)
        refused = batch.filter(pc.is_in(batch["outcome"], pa.array(["skipped", "failed"])))
        of["code"].add(refused["code"])
        self._check(refused, REFUSED_RULES)
        self._add_done(batch.filter(pc.equal(batch["outcome"], "done")))

    def _check(self, rows: pa.RecordBatch, rules: Mapping[str, Broken]) -> None:
        for said, broken in rules.items():
            found = rows.filter(broken(rows), null_selection_behavior="drop")
            if found.num_rows:
                self._broken[said] += found.num_rows
                self._examples.setdefault(said, found["locator"][0].as_py())

    def _add_done(self, done: pa.RecordBatch) -> None:
        for name in COUNTED:
            self._counters[name].add(done[name])
        # Parts of earlier versions lack the column, and had stored images only
        self._counters["input"].add(pc.fill_null(done["input"], "stored"))
        self._counters["model"].add(
            pc.binary_join_element_wise(done["model"], done["model_sha256"], " ")
        )
        for name in VIEW_CLAIMS:
            self._header[name].add(done[AGREES[name]])
        asked = done.filter(pc.is_valid(done["chest"]))
        self._header[BODY_PART].add(asked[AGREES[BODY_PART]])
        self._asked += asked.num_rows
        self.review += pc.sum(done["review"]).as_py() or 0
        self._keys.add(_texts(done, "key"))
        self._check(done, DONE_RULES)

    def _add_times(self, batch: pa.RecordBatch) -> None:
        ends = batch["finished"]
        lasted = pc.multiply(pc.fill_null(batch["seconds"], 0), 1e6)
        starts = pc.subtract(ends, pc.cast(pc.round(lasted), pa.int64()).cast(pa.duration("us")))
        first, last = pc.min(starts).as_py(), pc.max(ends).as_py()
        if last is not None:
            self.started = first if self.started is None else min(self.started, first)
            self.ended = last if self.ended is None else max(self.ended, last)

    def counts(self, name: str) -> dict[Any, int]:
        """Counts by value of a column with few values; of those in KNOWN, by known values."""
        counter = self._counters[name]
        if name in KNOWN:
            found = {value: counter.counts[value] for value in KNOWN[name]}
            if not (self._asked or found.get("not_chest")):
                found.pop("not_chest", None)
            return found
        counts, others = counter.largest(1000)
        named: dict[Any, int] = {value: n for value, n in counts.items() if value is not None}
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
        errors = [
            f"rows {said}: {count}, as {self._examples[said]}"
            for said, count in self._broken.items()
        ]
        locators = (list(_texts(batch, "locator")) for batch in again())
        keys = (
            list(_texts(batch.filter(pc.equal(batch["outcome"], "done")), "key"))
            for batch in again()
        )
        errors += _repeated("locator", "rows", *self._locators.find(locators))
        errors += _repeated("key", "done rows", *self._keys.find(keys))
        return errors


def _any(masks: Iterable[pa.Array]) -> pa.Array:
    return reduce(pc.or_, masks)


def _unknown(name: str) -> Broken:
    known = pa.array(KNOWN[name])
    return lambda rows: pc.and_(pc.is_valid(rows[name]), pc.invert(pc.is_in(rows[name], known)))


def _given(name: str) -> Broken:
    return lambda rows: pc.is_valid(rows[name])


def _only_one(one: str, other: str) -> Broken:
    return lambda rows: pc.xor(pc.is_valid(rows[one]), pc.is_valid(rows[other]))


def _of(view: str, broken: Broken) -> Broken:
    return lambda done: pc.and_(pc.equal(done["view"], view), broken(done))


def _unanswered(done: pa.RecordBatch) -> pa.Array:
    lacking = [pc.is_null(done[name]) for name in ANSWER]
    empty = [pc.fill_null(pc.equal(done[name], ""), True) for name in NAMES]
    return _any([*lacking, *empty, pc.is_valid(done["code"])])


def _no_probability(done: pa.RecordBatch) -> pa.Array:
    """Null is none to judge; NaN is within no limits."""
    values = [pc.fill_null(done[name], 0.0) for name in IN_UNIT_INTERVAL]
    within = [pc.and_(pc.greater_equal(each, 0), pc.less_equal(each, 1)) for each in values]
    return _any(map(pc.invert, within))


def _lies(done: pa.RecordBatch) -> pa.Array:
    """Whether a row says how its image lies."""
    return _any(pc.is_valid(done[name]) for pair in SURE.items() for name in pair)


def _unsure(done: pa.RecordBatch) -> pa.Array:
    return _any(_only_one(*pair)(done) for pair in SURE.items())


def _turned_oddly(done: pa.RecordBatch) -> pa.Array:
    degrees = done["rotation_degrees"]
    known = pa.array(ROTATIONS, degrees.type)
    return pc.and_(pc.is_valid(degrees), pc.invert(pc.is_in(degrees, known)))


def _contradicts(done: pa.RecordBatch) -> pa.Array:
    return pc.not_equal(done["view"], _decided(done))


def _unexplained(refused: pa.RecordBatch) -> pa.Array:
    return pc.invert(pc.is_in(refused["code"], pa.array(sorted(ROW_CODES))))


def _unasked(done: pa.RecordBatch) -> pa.Array:
    return pc.and_(pc.is_valid(done[AGREES[BODY_PART]]), pc.is_null(done["chest"]))


# What no row may be, as the certificate's error says it after `rows`
RULES: dict[str, Broken] = {"of an unknown outcome": _unknown("outcome")}
DONE_RULES: dict[str, Broken] = {
    "that are done without an answer, or with a code": _unanswered,
    "of an unknown view": _unknown("view"),
    "of an unknown input": _unknown("input"),
    "with a probability or a threshold that is not within 0 to 1": _no_probability,
    "with only one of chest and chest_threshold": _only_one("chest", "chest_threshold"),
    "whose probabilities and thresholds contradict their view": _contradicts,
    "whose rotation is none of 0, 90, 180, 270": _turned_oddly,
    "with an answer without its probability, or the reverse": _unsure,
    "of not_chest that say how an image lies": _of("not_chest", _lies),
    "of laterals that say whether they are mirrored": _of("lateral", _given("mirrored")),
    "with body_part_agrees without chest": _unasked,
}
REFUSED_RULES: dict[str, Broken] = {
    "that are skipped or failed without a code, or with an unknown code": _unexplained,
}


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
