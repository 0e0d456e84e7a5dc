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
    # An answer is told to us after its room was given to the next, in each of the fetchers
    assert archive.most <= max(limit, largest) + FETCHERS * largest
    assert archive.inside == 0


def test_who_waits_for_room_heeds_a_pause() -> None:
    """Rather than wait for answers that nobody gives any more."""
    room = InFlightLimiter(2, 10)
    assert room.enter(lambda: False)
    assert room.hold(8, lambda: False)
    assert not room.hold(8, lambda: True)
    room.leave(8)
    assert room.hold(11, lambda: True)  # larger than all of it, and alone
    assert not room.enter(lambda: True)
    assert room.enter(lambda: False)
    assert room.enter(lambda: False)
    assert not room.enter(lambda: True)


def test_a_full_room_is_entered_when_half_of_it_is_empty() -> None:
    """So that nobody is woken for each file."""
    room = InFlightLimiter(4, 100)
    for _ in range(4):
        assert room.enter(lambda: False)
    room.leave(0)
    looks: list[bool] = []

    def halted() -> bool:
        looks.append(True)
        return len(looks) > 1

    assert not room.enter(halted)
    room.leave(0)
    assert room.enter(lambda: False)
    assert room.enter(lambda: False)
    assert not room.enter(lambda: True)
