"""What certifying millions of rows costs: seconds, and megabytes at the peak.

python benchmarks/audit.py [--rows 2000000]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.backfill.report.write import audit
from service.backfill.results.atomic_files import publish, temporary
from service.backfill.results.rows import Row
from service.backfill.results.sinks import Parquet

START = datetime(2026, 3, 4, tzinfo=UTC)
PART_ROWS = 20_000


def main() -> None:
    """Write in this process, audit in a fresh one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--audit", type=Path, help="a folder of results, which is there already")
    options = parser.parse_args()
    if options.audit:
        _audit(options.audit)
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = _write(Path(folder), options.rows)
        found = subprocess.run(
            [sys.executable, __file__, "--audit", folder], capture_output=True, check=True
        )
        print(json.dumps({"write_seconds": seconds} | json.loads(found.stdout), indent=2))


def _write(out: Path, count: int) -> float:
    """Seconds in the sink alone."""
    dice, seconds = random.Random(1), 0.0
    for first in range(0, count, PART_ROWS):
        rows = [_row(n, dice) for n in range(first, min(count, first + PART_ROWS))]
        start = time.perf_counter()
        path = Parquet().path(out, START.date(), f"{first:09d}")
        Parquet().write_part(rows, path)
        publish(temporary(path))
        seconds += time.perf_counter() - start
    return round(seconds, 1)


def _row(number: int, dice: random.Random) -> Row:
    """A row as of an archive: UIDs that share a root, 200 stations, ten years, headers that err."""
    digest = int(hashlib.sha256(b"%d" % number).hexdigest(), 16)
    uid = f"1.2.826.0.1.3680043.8.498.{digest % 10**38}"
    frontal = dice.random() < 0.75
    claimed = dice.choice(["PA", "AP", "LL", None])
    return Row(
        f"s3://archive/{number % 997}/{uid}.dcm",
        "done",
        key=uid,
        sop_instance_uid=uid,
        study_instance_uid=f"{uid}.1",
        series_instance_uid=f"{uid}.2",
        modality="DX",
        station=f"XRAY{number % 200}",
        month=f"{2016 + number % 10}-{1 + number % 12:02d}",
        format="dicom",
        transfer_syntax="1.2.840.10008.1.2.4.90",
        view="frontal" if frontal else "lateral",
        pfi=1 - 0.4 * dice.random() if frontal else 0.4 * dice.random(),
        threshold=0.5,
        review=False,
        view_position=claimed,
        view_position_agrees=None if claimed is None else (claimed != "LL") == frontal,
        bytes=8_000_000,
        seconds=0.3,
        finished=START + timedelta(milliseconds=20 * number),
        model="googlenet/1.0.0",
        model_sha256="ab" * 32,
    )


def _audit(out: Path) -> None:
    before = _peak_megabytes()
    start = time.perf_counter()
    found = audit(out, out)
    assert found.valid, found.errors
    print(
        json.dumps(
            {
                "rows": found.found,
                "disagree": found.header["view_position"].disagrees,
                "audit_seconds": round(time.perf_counter() - start, 1),
                "idle_megabytes": before,
                "peak_megabytes": _peak_megabytes(),
            }
        )
    )


def _peak_megabytes() -> int:
    # Not getrusage, which counts what this process was before its program began
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


if __name__ == "__main__":
    main()
