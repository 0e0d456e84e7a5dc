"""The images of a job that a person should see: the most certain errors first."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.backfill.report.counts import CLAIMS
from service.backfill.report.header_audit import (
    any_disagrees,
    certainty_of,
    disagreeing_claims,
    distance_of,
)
from service.backfill.results import atomic_files
from service.backfill.results.columns import SCHEMA
from service.backfill.results.sinks import read_rows

# Why an image is on the worklist: its header names another view or body part, the model says that
# it is no chest radiograph, or the answer lies in the review band
Reason = Literal["header", "not_chest", "review"]
REASONS: tuple[Reason, ...] = get_args(Reason)

FILE = "review.parquet"
OF = b"cxrview_certificate"  # the certificate that the file belongs to
# More than persons decide; further images, the least certain of the last reason, are left out
MOST = 100_000
COLUMNS = (
    "locator", "key", "sop_instance_uid", "study_instance_uid", "station", "month",
    "view", "pfi", "threshold", "chest", "chest_threshold", "review", *CLAIMS,
)  # fmt: skip
# Certain answers first, of these those whose header disagrees, and the most certain first
ORDER = ("review", "silent", "uncertainty", "locator")

Numbers = Callable[[Collection[str]], Mapping[str, int]]


class Worklist:
    """The entries of a worklist, by their place: 0 is the first.

    Args:
        table: One row for each entry, with `COLUMNS`, `instance`, `disagrees` and `certainty`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @cached_property
    def places(self) -> dict[int, int]:
        """The place of each image, by its number in the ledger."""
        return {number: at for at, number in enumerate(self._table["instance"].to_pylist())}

    def first_reasons(self) -> dict[Reason, int]:
        """The numbers of entries by the first of their reasons."""
        of_header = pc.not_equal(self._table["disagrees"], "")
        of_other = pc.and_not(pc.equal(self._table["view"], "not_chest"), of_header)
        header, other = (pc.sum(each).as_py() or 0 for each in (of_header, of_other))
        return {"header": header, "not_chest": other, "review": len(self) - header - other}

    def entries(self, places: list[int]) -> Iterator[dict[str, Any]]:
        """The rows at these places, with `place` and `reasons`."""
        rows = self._table.take(pa.array(places, pa.int64())).to_pylist()
        for place, row in zip(places, rows, strict=True):
            yield row | {"place": place, "reasons": _reasons(row)}


def worklist_of(results: Path, file: Path, certificate: str, numbers: Numbers) -> Worklist:
    """The worklist of a job that is done, from its file, or made and written to it.

    Args:
        results: The folder of the job's parts.
        file: The file of the worklist, beside the header audit, because it has identifiers, too.
        certificate: What tells the job's certificate from another one of the same job.
        numbers: Returns the numbers of images in the ledger by their keys.

    Raises:
        NotADirectoryError, PartError, OSError: The results cannot be read, or the file not written.
    """
    if (found := _read(file, certificate)) is None:
        found = _numbered(_chosen(results), numbers)
        data = io.BytesIO()
        pq.write_table(found.replace_schema_metadata({OF: certificate}), data, compression="zstd")
        atomic_files.publish(atomic_files.write(file, data.getvalue()))
    return Worklist(found)


def _read(file: Path, certificate: str) -> pa.Table | None:
    try:
        found = pq.read_table(file)
    except (OSError, pa.ArrowException):  # there is none yet, or it is damaged
        return None
    made_of = (found.schema.metadata or {}).get(OF)
    return found if made_of == certificate.encode() else None


def _chosen(results: Path) -> pa.Table:
    """The first `MOST` of the rows that a person should see, in their order."""
    kept = _wanted(SCHEMA.empty_table())
    for batch in read_rows(results):
        kept = pa.concat_tables([kept, _wanted(pa.Table.from_batches([batch]))])
        if kept.num_rows > 2 * MOST:
            kept = _first(kept)
    return _first(kept)


def _first(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in ORDER]).slice(0, MOST)


def _wanted(rows: pa.Table) -> pa.Table:
    """The rows that are done and have a reason, with the columns of the order."""
    done = rows.filter(pc.equal(rows["outcome"], "done"))
    of_other = pc.equal(done["view"], "not_chest")
    doubted = pc.or_(of_other, pc.fill_null(done["review"], False))
    found = done.filter(pc.or_(any_disagrees(done, CLAIMS), doubted))
    certainty = _certainty(found)
    added = {
        "disagrees": disagreeing_claims(found),
        "certainty": pa.array(certainty),
        "silent": pa.array(np.isinf(certainty_of(found))),
        "uncertainty": pa.array(-certainty),
    }
    found = found.select(list(COLUMNS))
    for name, column in added.items():
        found = found.append_column(name, column)
    return found


def _certainty(rows: pa.Table) -> npt.NDArray[np.float64]:
    """In logits: of the answer that the header disagrees with, else of the one that decided."""
    of_other = pc.equal(rows["view"], "not_chest").to_numpy()
    deciding = np.where(of_other, distance_of(rows, "chest"), distance_of(rows, "pfi"))
    disagreeing = certainty_of(rows)
    return np.where(np.isinf(disagreeing), deciding, disagreeing)


def _numbered(table: pa.Table, numbers: Numbers) -> pa.Table:
    """The entries with the numbers of their images in the ledger."""
    keys = table["key"].to_pylist()
    known = numbers(keys)
    instances = pa.array([known.get(key) for key in keys], pa.int64())
    found = table.append_column("instance", instances)
    return found.filter(pc.is_valid(found["instance"])).drop_columns(["silent", "uncertainty"])


def _reasons(row: Mapping[str, Any]) -> list[Reason]:
    given = {"header": row["disagrees"], "not_chest": row["view"] == "not_chest"}
    return [name for name in REASONS if (given | {"review": row["review"]})[name]]
