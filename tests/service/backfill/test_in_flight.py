"""Memory of a job: however large its images are, and however slow their answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import dicom, radiograph

from model_store import Store
from service.backfill.engines.in_flight import InFlightLimiter
from service.backfill.engines.local import LocalEngine
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.folder import Results
from service.backfill.results.sinks import SINKS
from service.inference import Image, Pipeline, open_pipeline

IMAGES, FETCHERS = 40, 4
SWIFT = "swift/1.0.0"


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with open_pipeline(Store().load(SWIFT)) as pipeline:
        yield pipeline


class Measured:
    """An archive of images of two sizes, and the bytes that are inside at any time."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        sizes = (128, 300)
        self.files = {
            f"{number:03d}": dicom(radiograph(sizes[number % 2]), SOPInstanceUID=f"1.2.{number}")
            for number in range(IMAGES)
        }
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def find(self) -> Iterator[str]:
        yield from self.files

    def read(self, locator: str) -> bytes:
        return self.files[locator]

    def close(self) -> None:
        pass

    def submit(self, image: Image) -> None:
        """Count it until it is answered."""
        size = len(image.data or b"")
        self._change(size)
        self._pipeline.submit(image)
        image.answer.add_done_callback(lambda _: self._change(-size))

    def _change(self, size: int) -> None:
        with self._lock:
            self.inside += size
            self.most = max(self.most, self.inside)


@pytest.mark.parametrize("images", [0.5, 1, 3])
def test_a_job_holds_no_more_than_its_limit(
    images: float, pipeline: Pipeline, tmp_path: Path
) -> None:
    """Few large images are inside at a time; one that is larger than the limit is there alone."""
    archive = Measured(pipeline)
    largest = max(map(len, archive.files.values()))
    limit = int(images * largest)
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    work = LocalEngine(
        ledger, ledger.open_job("job", {}).id, archive, archive.submit, Store().load(SWIFT).card,
        results=Results(tmp_path, SINKS["parquet"]), fetchers=FETCHERS, held_bytes=limit,
    )  # fmt: skip
    job = work.run()
    ledger.close()
    assert Counter(job.counts) == {"found": IMAGES, "done": IMAGES, "skipped": 0, "failed": 0}
    # Each fetcher may start the next file just before this test hears of the last answer
    assert archive.most <= max(limit, largest) + FETCHERS * largest
    assert archive.inside == 0


def test_a_wait_for_a_slot_ends_at_a_pause() -> None:
    """It does not wait for answers that never come."""
    limiter = InFlightLimiter(2, 10)
    assert limiter.enter(lambda: False)
    assert limiter.hold(8, lambda: False)
    assert not limiter.hold(8, lambda: True)
    limiter.leave(8)
    assert limiter.hold(11, lambda: True)  # larger than all of it, and alone
    assert not limiter.enter(lambda: True)
    assert limiter.enter(lambda: False)
    assert limiter.enter(lambda: False)
    assert not limiter.enter(lambda: True)


def test_a_full_limiter_admits_when_half_of_it_is_free() -> None:
    """So threads are not woken for each file."""
    limiter = InFlightLimiter(4, 100)
    for _ in range(4):
        assert limiter.enter(lambda: False)
    limiter.leave(0)
    looks: list[bool] = []

    def halted() -> bool:
        looks.append(True)
        return len(looks) > 1

    assert not limiter.enter(halted)
    limiter.leave(0)
    assert limiter.enter(lambda: False)
    assert limiter.enter(lambda: False)
    assert not limiter.enter(lambda: True)
