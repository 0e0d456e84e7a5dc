"""The header audit: headers that contradict the pixels, by station and month and by image."""

from __future__ import annotations

import csv
import heapq
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.backfill.report.bounded_counter import BoundedCounter
from service.backfill.report.counts import AGREES, BODY_PART, CLAIMS, VIEW_CLAIMS
from service.backfill.results import atomic_files
from service.backfill.results.formulas import marked

GROUPS = "header-audit.csv"
WORKLIST = "worklist.csv"
MOST_GROUPS = 200_000  # pairs of station and month; further ones are counted as `OTHERS`
OTHERS = ("others", "others")
RUN_ROWS = 100_000
READ_ROWS = 1000  # rows of each sorted run in memory, while the runs are merged
# Keeps the logit of a PFI of 0 or 1 finite; about the resolution of single precision
LEAST_PFI = 1e-7

GROUP_COLUMNS = ("station", "month", "attribute", "agrees", "disagrees", "silent", "share")
WORKLIST_COLUMNS = (
    "locator", "sop_instance_uid", "study_instance_uid", "series_instance_uid", "modality",
    "station", "month", "disagrees", *CLAIMS, "claimed_by",
    "view", "pfi", "threshold", "chest", "chest_threshold", "certainty", "review",
)  # fmt: skip

# Sort order of the worklist: review cases last, and the most certain first
ORDER = ("review", "uncertainty", "locator")

# (attributes, 3) images: agrees, disagrees, silent
Counts = npt.NDArray[np.int64]
Group = tuple[str | None, str | None]


@dataclass(frozen=True)
class Line:
    """One line of a table on the page."""

    name: str | None
    images: int
    counts: Counts

    def disagrees(self, attribute: int) -> int:
        """Images whose header attribute claims another view or part than their pixels show."""
        return int(self.counts[attribute, 1])

    def share(self, attribute: int) -> float | None:
        """The share of these, 0..1, of images whose attribute is compared; None of none."""
        return share(*self.counts[attribute, :2].tolist())


def share(agrees: int, disagrees: int) -> float | None:
    """The share of disagreeing images, 0..1, of those that are compared; None of none."""
    compared = agrees + disagrees
    return disagrees / compared if compared else None


class HeaderAudit:
    """Counts disagreements, and sorts them, in temporary files if they are many.

    Args:
        folder: Holds the temporary files. They contain patients' identifiers, so they stay beside
            the results, and have no names, so that a crash leaves none.
        run_rows: The most disagreements that are sorted in memory.
    """

    def __init__(self, folder: Path, run_rows: int = RUN_ROWS) -> None:
        self._folder, self._run_rows = folder, run_rows
        self._runs: list[IO[bytes]] = []
        self._unsorted: list[pa.Table] = []
        self.groups: dict[Group, Counts] = {}
        self.disagreements = 0
        self._asked = 0  # images of which the model says whether they show a chest
        # Wrong body parts, by what the header says
        self.not_chest, self.chest = BoundedCounter(), BoundedCounter()

    @property
    def claims(self) -> tuple[str, ...]:
        """The attributes that are audited: the body part only where a model can say it."""
        return CLAIMS if self._asked else VIEW_CLAIMS

    def close(self) -> None:
        """Close the temporary files."""
        for run in self._runs:
            run.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows that are done, and keep the rows that disagree."""
        done = pa.Table.from_batches([batch.filter(pc.equal(batch["outcome"], "done"))])
        self._count(done)
        found = done.filter(any_disagrees(done, CLAIMS))
        if found.num_rows:
            self._unsorted.append(_worked(found))
            self.disagreements += found.num_rows
        if sum(table.num_rows for table in self._unsorted) >= self._run_rows:
            self._sort_run()

    def _count(self, done: pa.Table) -> None:
        self._asked += done.num_rows - done["chest"].null_count
        wrong = done.filter(any_disagrees(done, (BODY_PART,)))
        is_chest = pc.not_equal(wrong["view"], "not_chest")
        self.chest.add(wrong.filter(is_chest)[BODY_PART])
        self.not_chest.add(wrong.filter(pc.invert(is_chest))[BODY_PART])
        flags = []
        for name, column in AGREES.items():
            agrees = done[column]
            flags += [pc.fill_null(agrees, False), pc.fill_null(pc.invert(agrees), False)]
            silent = pc.is_null(agrees)
            # A model that cannot tell a chest makes no body part silent
            flags += [pc.and_(silent, pc.is_valid(done["chest"])) if name == BODY_PART else silent]
        names = [str(at) for at in range(len(flags))]
        table = pa.table([done["station"], done["month"], *flags], ["station", "month", *names])
        sums = table.group_by(["station", "month"]).aggregate([(each, "sum") for each in names])
        for row in sums.to_pylist():
            group = row["station"], row["month"]
            if group not in self.groups and len(self.groups) >= MOST_GROUPS:
                group = OTHERS
            counts = np.array([row[f"{each}_sum"] for each in names]).reshape(len(CLAIMS), 3)
            self.groups[group] = self.groups.get(group, 0) + counts

    def _sort_run(self) -> None:
        table = pa.concat_tables(self._unsorted)
        ordered = table.sort_by([(name, "ascending") for name in ORDER])
        run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # until `close`
        self._runs.append(run)
        with pa.ipc.new_stream(run, ordered.schema) as stream:
            stream.write_table(ordered, max_chunksize=READ_ROWS)
        self._unsorted = []

    def lines(self, by: int) -> list[Line]:
        """The counts by station (0) or by month (1), sorted by name."""
        found: dict[str | None, Counts] = {}
        for group, counts in self.groups.items():
            found[group[by]] = found.get(group[by], np.zeros_like(counts)) + counts
        return [
            Line(name, int(found[name][0].sum()), found[name])
            for name in sorted(found, key=lambda one: (one is None, one))
        ]

    def write(self, folder: Path) -> None:
        """Write both CSV files."""
        atomic_files.publish(atomic_files.write(folder / GROUPS, self._groups_csv()))
        if self._unsorted:
            self._sort_run()
        with (
            atomic_files.writing(folder / WORKLIST) as draft,
            draft.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(WORKLIST_COLUMNS)
            for record in heapq.merge(*map(_records, self._runs), key=_order):
                writer.writerow([_cell(record[name]) for name in WORKLIST_COLUMNS])
        atomic_files.publish(draft)

    def _groups_csv(self) -> bytes:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow(GROUP_COLUMNS)
        for station, month in sorted(self.groups, key=lambda one: (one[0] or "", one[1] or "")):
            shown = self.groups[station, month][: len(self.claims)].tolist()
            for name, counts in zip(self.claims, shown, strict=True):
                of_compared = share(counts[0], counts[1])
                writer.writerow(map(_cell, (station, month, name, *counts, of_compared)))
        return buffer.getvalue().encode()


def _worked(disagreeing: pa.Table) -> pa.Table:
    """The columns of `WORKLIST_COLUMNS`, and those that they are sorted by."""
    certainty = pa.chunked_array([pa.array(certainty_of(disagreeing))])
    columns = {"disagrees": disagreeing_claims(disagreeing), "certainty": certainty}
    table = disagreeing.select([name for name in WORKLIST_COLUMNS if name not in columns])
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table.append_column("uncertainty", pc.negate(certainty))


def disagreeing_claims(rows: pa.Table) -> pa.ChunkedArray:
    """The names of the attributes that disagree, joined by spaces, by row."""
    names = [
        pc.if_else(pc.equal(rows[column], False), name, pa.scalar(None, pa.string()))
        for name, column in AGREES.items()
    ]
    # With the empty text, because pyarrow drops rows that have nothing to be joined
    joined = pc.binary_join_element_wise("", *names, " ", null_handling="skip")
    return pc.utf8_ltrim_whitespace(joined)


def any_disagrees(rows: pa.Table, claims: Sequence[str]) -> pa.ChunkedArray:
    """Whether one of these attributes disagrees, by row."""
    found = pc.fill_null(pc.invert(rows[AGREES[claims[0]]]), False)
    for name in claims[1:]:
        found = pc.or_(found, pc.fill_null(pc.invert(rows[AGREES[name]]), False))
    return found


def certainty_of(rows: pa.Table) -> npt.NDArray[np.float64]:
    """The distance in logits from the threshold of the answer that disagrees; of two, the less.

    Infinite for rows whose header disagrees with no answer.
    """
    distances = []
    for claims, distance in (
        (VIEW_CLAIMS, distance_of(rows, "pfi")),
        ((BODY_PART,), distance_of(rows, "chest")),
    ):
        distances.append(np.where(any_disagrees(rows, claims).to_numpy(), distance, np.inf))
    return np.minimum(*distances)


def distance_of(rows: pa.Table, head: Literal["pfi", "chest"]) -> npt.NDArray[np.float64]:
    """The distance of a head's answers from its threshold, in logits; NaN without that head."""
    threshold = {"pfi": "threshold", "chest": "chest_threshold"}[head]
    return np.abs(_logit(rows[head]) - _logit(rows[threshold]))


def _logit(pfi: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values = pfi.to_numpy().astype(np.float64)  # null becomes NaN, which is sorted to the end
    within = np.clip(values, LEAST_PFI, 1 - LEAST_PFI)
    return np.asarray(np.log(within / (1 - within)))


def _records(run: IO[bytes]) -> Iterator[dict[str, Any]]:
    run.seek(0)
    for batch in pa.ipc.open_stream(run):
        yield from batch.to_pylist()


def _order(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ORDER)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return marked(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else value
