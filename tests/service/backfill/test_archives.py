"""`cxrview backfill` of real archives, which fail and are restarted meanwhile."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archive_servers import instances, orthanc, seaweed
from databases import Postgres
from fault_proxy import proxy
from images import dicom, png, radiograph

from service.backfill.results.columns import as_rows
from service.backfill.results.rows import Row
from service.backfill.results.sinks import read_rows

SECONDS = 60.0  # for a run, or any step of it
PACS_IMAGES = 300
PER_SECOND = 50
QUICK = {"first_delay_seconds": 0.05, "max_delay_seconds": 0.2}
GOOD = 50  # objects of a bucket, besides those below
PIXELS = radiograph(256, 256)


@contextmanager
def backfilling(
    command: list[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which ends well after the block."""
    environment = os.environ | {"NO_PROXY": "127.0.0.1"} | variables
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
        _, text = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, text
    finally:
        process.kill()
        process.communicate()


def command(source: str, out: Path, *words: str, **options: Any) -> list[str]:
    pairs = [f"--option={name}={value}" for name, value in (QUICK | options).items()]
    program = [sys.executable, "-m", "service.cli", "backfill"]
    return [*program, source, f"--out={out}", *words, *pairs]


def until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return as soon as it is so, which must be before the process ends."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows_in(out: Path) -> list[Row]:
    """All there are so far; no image stands there twice."""
    found = [row for batch in read_rows(out / "results") for row in as_rows(batch)]
    assert len({row.locator for row in found}) == len(found)
    keys = [row.key for row in found if row.outcome == "done"]
    assert len(set(keys)) == len(keys)
    return found


def certificate_in(out: Path) -> dict[str, Any]:
    """What the archive came to, and nothing is wrong with it."""
    found: dict[str, Any] = json.loads((out / "certificate.json").read_text())
    assert found["valid"], found["errors"]
    return found


def parts_in(out: Path) -> int:
    return len(list(out.glob("results/day=*/part-*")))


def test_a_pacs_that_fails_and_is_restarted_gives_every_image_once(
    psql: Postgres, tmp_path: Path
) -> None:
    """One answer in ten is 503, it is killed on the way, and it is never asked too fast."""
    words = ["--model=swift/1.0.0", "--chunk=10", f"--ledger={psql.database()}"]
    period = {"since": "2024-05-01", "until": "2024-05-02"}
    limits = {"page_instances": 100, "requests_per_second": PER_SECOND}
    images, out, chance = instances(PACS_IMAGES), tmp_path / "out", random.Random(1)
    with orthanc(tmp_path) as pacs, proxy(pacs.address) as between:
        pacs.store(images.values())
        between.spoil = lambda _: 503 * (chance.random() < 0.1)
        line = command(between.address, out, *words, **period, **limits)
        with backfilling(line, {}) as process:
            until(lambda: parts_in(out) >= 8, process)
            pacs.stop()
            until(lambda: between.away >= 10, process)
            assert 0 < len(rows_in(out)) < PACS_IMAGES
            pacs.start()
    assert certificate_in(out)["outcomes"] == {"done": PACS_IMAGES, "skipped": 0, "failed": 0}
    assert {row.locator for row in rows_in(out)} == set(images)
    assert not list(out.glob("*.sqlite*"))
    assert between.spoiled > PACS_IMAGES / 20
    assert between.most_inside <= 4
    times = between.times
    assert len(times) - 1 <= (times[-1] - times[0] + 0.2) * PER_SECOND
    spans = zip(times, times[PER_SECOND:], strict=False)  # whatever was late came after others
    assert min(later - earlier for earlier, later in spans) > 0.8


def objects() -> dict[str, bytes]:
    """Radiographs, a copy, and what is damaged or no image, by their keys."""
    good = {f"chest/{n:03}.dcm": dicom(PIXELS + n, SOPInstanceUID=f"1.2.{n}") for n in range(GOOD)}
    whole = good["chest/007.dcm"]
    cut = {f"chest/cut {n}.dcm": good[f"chest/{n:03}.dcm"][:9000] for n in range(6)}
    others = {"chest/cut.png": png(PIXELS)[:3000], "chest/copy.dcm": whole, "chest/": b""}
    return good | cut | others | {"chest/notes.txt": b"no image", "other/x.dcm": whole}


def test_a_bucket_whose_store_is_restarted_gives_every_image_once(tmp_path: Path) -> None:
    """Damaged objects are outcomes; an archive that is away for seconds is none."""
    out = tmp_path / "out"
    with seaweed(tmp_path, "backfill", "secret") as store:
        store.fill("archive", objects())
        line = command("s3://archive/chest/", out, "--chunk=4", "--fetchers=2", timeout_seconds=5)
        one = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]  # so it takes a while
        with backfilling([*one, *line], store.variables) as process:
            until(lambda: parts_in(out) >= 1, process)
            store.stop()
            assert 0 < len(rows_in(out)) < GOOD
            store.start()
    certificate = certificate_in(out)
    assert certificate["outcomes"] == {"done": GOOD, "skipped": 2, "failed": 7}
    found = rows_in(out)
    assert {row.locator for row in found} == {
        name for name in objects() if name.startswith("chest/") and name != "chest/"
    }
    codes = Counter(row.code for row in found if row.code)
    assert codes == {"corrupt_image": 7, "duplicate": 1, "unrecognised_format": 1}
