"""Finished backfills with a worklist, and a person's decisions about it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from results import done, published

from service.backfill.report.write import audit

STUDY, SERIES = "1.2.3.1", "1.2.3.1.1"


def finished(run: Path, headers: Mapping[str, Mapping[str, object]]) -> Path:
    """A run whose worklist has an image for each SOP Instance UID, with these claims."""
    rows = [
        done(
            number,
            key=uid,
            sop_instance_uid=uid,
            study_instance_uid=STUDY,
            series_instance_uid=SERIES,
            described_view_agrees=False,
            **claims,
        )
        for number, (uid, claims) in enumerate(headers.items())
    ]
    published(rows, run / "results")
    assert audit(run / "results", run).valid
    return run


def decided(path: Path, decisions: Mapping[str, str]) -> Path:
    """A file of decisions, as a review page writes it: with columns of its own."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["reviewer", "sop_instance_uid", "decision"])
        writer.writerows(["A", *each] for each in decisions.items())
    return path
