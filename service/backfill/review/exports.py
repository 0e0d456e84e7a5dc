"""The decisions of a review as tables: a manifest, corrections, or the whole history."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from model_store import View
from service.backfill.ledger.readings import Entry, Readings
from service.backfill.results.formulas import marked
from service.backfill.sources.names import name_of

# manifest: what `python -m training` reads; corrections: what `cxrview corrections` reads; history:
# each decision, also those that were taken back
Form = Literal["manifest", "corrections", "history"]
FileFormat = Literal["csv", "parquet"]
LABELS = ("frontal", "lateral", "not_chest")
VIEWS = ("frontal", "lateral")
SCHEMAS = {
    "manifest": ("file", "view", "patient_id", "source"),
    "corrections": ("sop_instance_uid", "decision"),
    "history": ("instance", "locator", "sop_instance_uid", "reader", "role", "decision", "time"),
}
TYPES = {"instance": pa.int64(), "time": pa.timestamp("ms", "UTC")}  # others are texts
Rows = Iterable[Mapping[str, Any]]  # of the worklist, in its order


def accepted(rows: Rows, readings: Mapping[int, Readings]) -> dict[str, View]:
    """The final views, by SOP Instance UID, of images whose header disagrees with the model."""
    found = _corrections(rows, readings)
    return {row["sop_instance_uid"]: row["decision"] for row in found}


@dataclass(frozen=True)
class Tables:
    """What tables are made of."""

    source: str  # of the job, as the manifest names it
    rows: Rows
    history: list[Entry]
    readings: Mapping[int, Readings]  # the decisions that stand, by the number of the image


def export(form: Form, file_format: FileFormat, of: Tables) -> bytes:
    """A table as a file.

    Texts of a CSV file are safe in a spreadsheet (see `formulas`), but those of a manifest, whose
    reader takes each text as it is.
    """
    makers: dict[Form, Callable[[], Iterator[dict[str, Any]]]] = {
        "manifest": lambda: _manifest(of.rows, of.readings, of.source),
        "corrections": lambda: _corrections(of.rows, of.readings),
        "history": lambda: _history(of.rows, of.history),
    }
    records = list(makers[form]())
    if file_format == "csv" and form != "manifest":
        records = [{name: _cell(value) for name, value in each.items()} for each in records]
    schema = pa.schema([(name, TYPES.get(name, pa.string())) for name in SCHEMAS[form]])
    table, data = pa.Table.from_pylist(records, schema), io.BytesIO()
    if file_format == "parquet":
        pq.write_table(table, data, compression="zstd")
    else:
        pa_csv.write_csv(table, data, pa_csv.WriteOptions(quoting_style="needed"))
    return data.getvalue()


def _manifest(
    rows: Rows, readings: Mapping[int, Readings], source: str
) -> Iterator[dict[str, Any]]:
    """Results name no patients: a study stands for its patient, else the image for itself."""
    for row in rows:
        view = readings.get(row["instance"], Readings()).final
        if view in LABELS:
            patient = patient_of(row)
            file = _storable(name_of(row["locator"]))
            yield {"file": file, "view": view, "patient_id": patient, "source": source}


def patient_of(row: Mapping[str, Any]) -> str:
    """What stands for the patient of an image."""
    return str(row["study_instance_uid"] or row["key"])


def _corrections(rows: Rows, readings: Mapping[int, Readings]) -> Iterator[dict[str, Any]]:
    for row in rows:
        view = readings.get(row["instance"], Readings()).final
        uid = row["sop_instance_uid"]
        if view in VIEWS and row["disagrees"] and uid:
            yield {"sop_instance_uid": uid, "decision": view}


def _history(rows: Rows, history: list[Entry]) -> Iterator[dict[str, Any]]:
    known = {row["instance"]: row for row in rows}
    for entry in history:
        row = known.get(entry.item, {})
        yield {
            "instance": entry.item,
            "locator": row.get("locator"),
            "sop_instance_uid": row.get("sop_instance_uid"),
            "reader": entry.reader,
            "role": entry.role,
            "decision": entry.decision,
            "time": datetime.fromtimestamp(entry.decided, UTC),
        }


def _cell(value: Any) -> Any:
    return marked(value) if isinstance(value, str) else value


def _storable(name: str) -> str:
    """A name as valid UTF-8; a manifest cannot name a file whose name is not."""
    return name.encode("utf-8", "backslashreplace").decode()
