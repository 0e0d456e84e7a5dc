"""Rows of a backfill as a test wants them, and folders of parts made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from service.backfill.results.atomic_files import publish
from service.backfill.results.rows import Row
from service.backfill.results.sinks import Parquet, PartFile, Sink

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
DAY = NOON.date()


def done(number: int, **others) -> Row:
    """A frontal radiograph; each number is another one."""
    values = {
        "key": f"1.2.3.{number}",
        "sop_instance_uid": f"1.2.3.{number}",
        "modality": "DX",
        "station": "XRAY1",
        "month": "2025-11",
        "format": "dicom",
        "input": "stored",
        "view": "frontal",
        "pfi": 0.99,
        "threshold": 0.5,
        "review": False,
        "bytes": 1000,
        "seconds": 0.5,
        "finished": NOON + timedelta(seconds=number),
        "model": "googlenet/1.0.0",
        "model_sha256": "ab" * 32,
    }
    return replace(Row(f"images/{number}.dcm", "done"), **values | others)


# What a model with all heads says of an upright chest radiograph
CHEST = {
    "chest": 0.98,
    "chest_threshold": 0.5,
    "rotation_degrees": 0,
    "rotation_probability": 0.9,
    "inverted": False,
    "inverted_probability": 0.1,
    "mirrored": False,
    "mirrored_probability": 0.2,
}


def not_chest(number: int, **others) -> Row:
    """An image that is no chest radiograph, by a model that can say so."""
    values = {"view": "not_chest", "chest": 0.02, "chest_threshold": 0.5, "pfi": 0.6}
    return done(number, **values | others)


def refused(number: int, outcome="failed", code="corrupt_image", **others) -> Row:
    return replace(Row(f"images/{number}.dcm", outcome, code), finished=NOON, **others)


def published(
    rows: Sequence[Row], out: Path, name: str = "1", sink: Sink | None = None, day: date = DAY
) -> PartFile:
    """One part, as the work loop leaves it."""
    sink = sink or Parquet()
    path = sink.path(out, day, name)
    part = sink.write_part(rows, path)
    publish(path.with_name(f".{path.name}.tmp"))
    return part
