"""Work on an archive: every image has one outcome, and one row, however the work goes."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import hostile_decoder
import needs
import pytest
from images import dicom, png, radiograph

from model_store import ModelVersion, Prediction, PreprocessSpec, Store
from service.backfill.engines.fetching import LOOK_SECONDS
from service.backfill.engines.local import LEAST_FOR_SHARE, LocalEngine, TooManyFailuresError
from service.backfill.ledger.jobs import Job, own_ids
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.columns import as_rows
from service.backfill.results.folder import Results
from service.backfill.results.rows import ItemError, Row, SourceError
from service.backfill.results.sinks import SINKS, read_rows
from service.imaging import read_radiograph
from service.inference import Image, Pipeline, PredictionError, local_pipeline, open_pipeline

IMAGES = 60


def image(number: int) -> bytes:
    return dicom(radiograph(300, 280, seed=number), SOPInstanceUID=f"1.2.{number}")


class Archive:
    """Files in memory: good ones, two of one image, what is none, and what cannot be had."""

    def __init__(self, good: int = IMAGES, missing: int = 0) -> None:
        self.files: dict[str, bytes | Exception] = {
            f"{number:04d}.dcm": dicom(
                radiograph(300, 280, seed=number), SOPInstanceUID=f"1.2.{number}"
            )
            for number in range(good)
        }
        self.files["copy/0000.dcm"] = self.files["0000.dcm"]
        self.files["a.png"] = self.files["b.png"] = png(radiograph(300, 280))
        self.files["notes.txt"] = b"no image"
        self.files["cut.dcm"] = image(good)[:-1000]
        self.files |= {f"gone/{number}": ItemError("not_found", "") for number in range(missing)}
        self.listed_times = 0
        self.read_times: Counter[str] = Counter()
        self.closed = threading.Event()

    def find(self) -> Iterator[str]:
        self.listed_times += 1
        yield from self.files

    def read(self, locator: str) -> bytes:
        self.read_times[locator] += 1
        found = self.files[locator]
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self.closed.set()


@dataclass(frozen=True)
class Meeting:
    """An archive as one of two workers sees it, who reads nothing before the other has come."""

    archive: Archive
    came: threading.Event
    other_came: threading.Event

    def find(self) -> Iterator[str]:
        return self.archive.find()

    def read(self, locator: str) -> bytes:
        self.came.set()
        assert self.other_came.wait(30)
        return self.archive.read(locator)

    def close(self) -> None:
        self.archive.close()


EXPECTED = {"done": IMAGES + 1, "skipped": 3, "failed": 1}
CODES = {"duplicate": 2, "unrecognised_format": 1, "corrupt_image": 1}


@pytest.fixture(scope="module")
def swift() -> ModelVersion:
    return Store().load("swift/1.0.0")


@pytest.fixture(scope="module")
def pipeline(swift: ModelVersion) -> Iterator[Pipeline]:
    with open_pipeline(swift) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive()


class Bench:
    """What work is done with, again and again."""

    def __init__(
        self, ledger: Ledger, out: Path, pipeline: Pipeline, version: ModelVersion
    ) -> None:
        self.ledger, self.out = ledger, out
        self._pipeline, self._card = pipeline, version.card
        self.job = ledger.open_job("job", {}).id

    def work(self, source: object, **options: object) -> LocalEngine:
        results = Results(self.out, SINKS["parquet"])
        options = {"chunk_images": 16, "submit": self._pipeline.submit} | options
        return LocalEngine(
            self.ledger, self.job, source, card=self._card, results=results, **options
        )

    def rows(self) -> list[Row]:
        return [row for batch in read_rows(self.out / "results") for row in as_rows(batch)]

    def check(self, job: Job, source: Archive) -> None:
        """The ledger and the files agree, and each image has one row."""
        rows = self.rows()
        assert job.state == "done"
        assert job.open == 0
        assert Counter(row.locator for row in rows) == Counter(source.files.keys())
        counts = Counter(row.outcome for row in rows)
        assert {name: job.counts[name] for name in EXPECTED} == counts
        keys = [row.key for row in rows if row.outcome == "done"]
        assert len(set(keys)) == len(keys)
        named = {each.name for each in self.ledger.parts(self.job)}
        found = {
            path.relative_to(self.out / "results").as_posix()
            for path in (self.out / "results").rglob("*")
            if path.is_file()
        }
        assert found == named


@pytest.fixture
def bench(ledger: Ledger, tmp_path: Path, pipeline: Pipeline, swift: ModelVersion) -> Bench:
    return Bench(ledger, tmp_path / "out", pipeline, swift)


def test_who_has_nothing_left_to_lease_does_not_ask_after_each_answer(
    bench: Bench, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But now and then, as more may be found."""
    asked, lease = [], bench.ledger.lease

    def counted(*words: object) -> object:
        asked.append(time.monotonic())
        return lease(*words)

    monkeypatch.setattr(bench.ledger, "lease", counted)
    begin = time.monotonic()
    bench.check(bench.work(archive, chunk_images=1000).run(), archive)
    assert len(asked) <= 4 + (time.monotonic() - begin) / LOOK_SECONDS


def test_all_of_an_archive_comes_to_an_end(bench: Bench, archive: Archive) -> None:
    """Good files are answered, copies and other files skipped, bad ones failed; once."""
    work = bench.work(archive)
    job = work.run()
    bench.check(job, archive)
    assert {name: job.counts[name] for name in EXPECTED} == EXPECTED
    assert bench.ledger.codes(bench.job) == CODES
    rows = {row.locator: row for row in bench.rows()}
    good = rows["0005.dcm"]
    assert (good.key, good.format, good.model) == ("1.2.5", "dicom", "swift/1.0.0")
    assert good.view in {"frontal", "lateral"}
    assert good.finished is not None
    assert (good.seconds or 0) > 0
    assert good.bytes == len(archive.files["0005.dcm"])  # type: ignore[arg-type]
    assert (rows["a.png"].key or rows["b.png"].key or "").startswith("sha256:")
    assert {rows["a.png"].outcome, rows["b.png"].outcome} == {"done", "skipped"}
    assert (rows["cut.dcm"].code, rows["notes.txt"].code) == (
        "corrupt_image",
        "unrecognised_format",
    )
    assert work.progress.images == len(archive.files)
    again = bench.work(archive)
    bench.check(again.run(), archive)
    assert again.progress.images == 0


def test_a_pause_loses_nothing(bench: Bench) -> None:
    """Stopped again and again, in the middle of chunks, it comes to the same end."""

    class Interrupted(Archive):
        def read(self, locator: str) -> bytes:
            if sum(self.read_times.values()) % 10 == 9:
                work.pause()
            return super().read(locator)

    archive, states = Interrupted(), []
    while "done" not in states:
        work = bench.work(archive, chunk_images=30)
        states.append(work.run().state)
        assert bench.ledger.leases(bench.job) == set()
    assert set(states[:-1]) == {"paused"}
    assert len(states) > 3
    assert set(archive.read_times.values()) == {1}
    bench.check(bench.ledger.job(bench.job), archive)


def test_a_pause_ends_all_waiting(bench: Bench) -> None:
    """Of a source that waits for the evening, for example; that is no failure of it."""

    class Closed(Archive):
        def read(self, locator: str) -> bytes:
            threading.Timer(0.05, work.pause).start()
            assert self.closed.wait(20)
            raise SourceError(f"closed before {locator} came")

    work = bench.work(Closed())
    job = work.run()
    assert (job.state, job.counts["done"], job.reason) == ("paused", 0, None)


def ended(work: LocalEngine) -> Job | Exception:
    """The job after its work, or the error that stopped it; work that hangs fails the test."""
    found: list[Job | Exception] = []

    def run() -> None:
        try:
            found.append(work.run())
        except Exception as error:  # noqa: BLE001  # for the test to look at
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert found, "the work hangs"
    return found[0]


class Answering:
    """A pipeline that gives one of the images an answer of its own."""

    def __init__(self, pipeline: Pipeline, answer: Callable[[Image], None]) -> None:
        self._pipeline, self._answer = pipeline, answer
        self._images = count()

    def submit(self, image: Image) -> None:
        if next(self._images) == 20:
            image.radiograph = read_radiograph(image.data or b"", PreprocessSpec())
            self._answer(image)
        else:
            self._pipeline.submit(image)


@pytest.mark.parametrize(
    "answer",
    [
        lambda image: image.answer.set_result(Prediction(math.nan)),
        lambda image: image.answer.set_result(None),
        lambda image: image.answer.set_exception(PredictionError("NaN")),
    ],
    ids=["a NaN", "no prediction", "an error of this image"],
)
def test_an_image_of_which_no_row_can_be_made_fails_alone(
    bench: Bench, pipeline: Pipeline, answer: Callable[[Image], None]
) -> None:
    """Whatever goes wrong when its answer comes: it has one outcome, and the job goes on."""
    archive = Archive()
    job = ended(bench.work(archive, submit=Answering(pipeline, answer).submit))
    assert isinstance(job, Job)
    bench.check(job, archive)
    assert bench.ledger.codes(bench.job)["internal_error"] == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("no memory"), "no memory"), (SystemExit(), "AssertionError")],
    ids=["an error of the network", "no error at all"],
)
def test_an_error_that_is_not_about_an_image_stops_the_work(
    bench: Bench, pipeline: Pipeline, error: BaseException, reason: str
) -> None:
    """With its reason; the images that have no outcome are open, and the next run takes them."""
    archive = Archive()
    submit = Answering(pipeline, lambda image: image.answer.set_exception(error)).submit
    assert isinstance(ended(bench.work(archive, submit=submit)), Exception)
    job = bench.ledger.job(bench.job)
    assert (job.state, job.reason) == ("stopped", reason)
    assert bench.ledger.leases(bench.job) == set()
    bench.check(bench.work(archive).run(), archive)


def test_files_that_are_no_images_take_no_memory_of_others(bench: Bench) -> None:
    """However many there are: what a refused file held is free again."""
    archive = Archive(good=10)
    archive.files |= {f"{number:04d}.txt": b"no image" * 100 for number in range(200)}
    job = ended(bench.work(archive, held_bytes=100_000))
    assert isinstance(job, Job)
    bench.check(job, archive)
    assert job.counts["skipped"] == 203


def test_images_without_a_valid_uid_are_told_apart_by_their_content(bench: Bench) -> None:
    """Neither a text that all of them share nor a UID with a stray character makes them one."""
    archive = Archive(good=1)
    told = {f"{number}.dcm": uid for number, uid in enumerate(["ANON", "ANON", "1.2.3\n4"])}
    told["whole.dcm"] = "1.2.34"
    for number, (name, uid) in enumerate(told.items(), 100):
        pixels = radiograph(300, 280, seed=number)
        archive.files[name] = dicom(pixels, SOPInstanceUID=uid)
    archive.files["again.dcm"] = archive.files["0.dcm"]
    bench.check(bench.work(archive).run(), archive)
    rows = {row.locator: row for row in bench.rows()}
    assert {rows[name].outcome for name in told} - {"skipped"} == {"done"}
    assert {rows["0.dcm"].code, rows["again.dcm"].code} == {None, "duplicate"}
    assert [rows[name].outcome for name in ("1.dcm", "2.dcm", "whole.dcm")] == ["done"] * 3
    assert (rows["2.dcm"].sop_instance_uid, rows["2.dcm"].key[:7]) == (None, "sha256:")
    assert rows["whole.dcm"].key == "1.2.34"


def test_a_limit_is_kept(bench: Bench, archive: Archive) -> None:
    """And the next run goes on."""
    first = bench.work(archive, limit=20)
    job = first.run()
    assert (first.progress.images, job.state) == (20, "paused")
    bench.check(bench.work(archive).run(), archive)


def test_what_is_new_is_found_by_the_next_run(bench: Bench) -> None:
    """Of a job that was done, or paused after all had been found."""
    archive = Archive(good=20)
    bench.check(bench.work(archive).run(), archive)
    archive.files["new.dcm"] = image(77)
    bench.work(archive, limit=0).run()
    archive.files["newer.dcm"] = image(78)
    bench.check(bench.work(archive).run(), archive)


def test_a_chunk_may_take_longer_than_its_lease(
    url: str, tmp_path: Path, pipeline: Pipeline, swift: ModelVersion
) -> None:
    """It is renewed meanwhile, also where an answer comes before each look at the time."""

    class Slow(Archive):
        def read(self, locator: str) -> bytes:
            time.sleep(0.1)
            return super().read(locator)

    ledger, archive = Ledger(url), Slow(good=40)
    bench = Bench(ledger, tmp_path / "out", pipeline, swift)
    bench.check(bench.work(archive, fetchers=1, chunk_images=35, lease_seconds=2).run(), archive)
    assert {row.attempts for row in bench.rows()} == {1}
    assert set(archive.read_times.values()) == {1}
    ledger.close()


def test_an_archive_that_does_not_answer_stops_the_work(bench: Bench) -> None:
    """With an error; what was committed stays, and the next run goes on."""
    archive = Archive()
    good = archive.files["0040.dcm"]
    archive.files["0040.dcm"] = SourceError("the archive does not answer")
    with pytest.raises(SourceError):
        bench.work(archive).run()
    stopped = bench.ledger.job(bench.job)
    assert (stopped.state, stopped.reason) == ("stopped", "the archive does not answer")
    assert 0 < stopped.open < len(archive.files)
    archive.files["0040.dcm"] = good
    bench.check(bench.work(archive).run(), archive)


def test_an_archive_that_cannot_be_listed_stops_the_work(bench: Bench) -> None:
    """Nothing is taken for the end of the archive that is none."""

    class Broken(Archive):
        def find(self) -> Iterator[str]:
            yield "0000.dcm"
            raise SourceError("the list breaks off")

    with pytest.raises(SourceError):
        bench.work(Broken()).run()
    assert not bench.ledger.job(bench.job).complete


def test_only_what_this_job_left_is_deleted(bench: Bench, archive: Archive) -> None:
    """Its drafts that were never committed; no part, and no draft, of another job."""
    bench.work(archive, limit=16).run()
    folder = bench.out / "results" / "day=2020-01-01"
    folder.mkdir()
    own = own_ids(bench.job)
    strangers = {f"part-{'0' * 32}.parquet", f".part-{'0' * 32}.parquet.tmp", "part-0.csv"}
    # What readers see is kept, also under this job's own name
    kept = {*strangers, f"part-{own}{'0' * 24}.parquet"}
    for name in (*kept, f".part-{own}{'1' * 24}.parquet.tmp"):
        (folder / name).write_bytes(b"rows")
    bench.work(archive).run()
    assert {path.name for path in folder.iterdir()} == kept


def test_too_many_failures_stop_the_work(bench: Bench) -> None:
    """As soon as their share means something."""
    archive = Archive(good=1, missing=2 * LEAST_FOR_SHARE)
    with pytest.raises(TooManyFailuresError, match=r"more than 1\.0%"):
        bench.work(archive, max_failed_share=0.01).run()
    assert bench.ledger.job(bench.job).open > 0


def test_what_failed_is_tried_again(bench: Bench) -> None:
    """When it is there by then, its row takes the place of the failure's."""
    archive = Archive(good=3, missing=4)
    bench.work(archive).run()
    archive.files["gone/0"] = image(99)
    assert bench.ledger.retry_failed(bench.job) == 5
    job = bench.work(archive).run()
    bench.check(job, archive)
    rows = {row.locator: row for row in bench.rows()}
    assert (rows["gone/0"].outcome, rows["gone/0"].attempts) == ("done", 2)
    assert (rows["gone/1"].outcome, rows["gone/1"].attempts) == ("failed", 2)
    assert archive.read_times["0000.dcm"] == 1


def test_workers_share_a_job(
    bench: Bench, opened, tmp_path: Path, pipeline: Pipeline, swift: ModelVersion
) -> None:
    """Two at the same time, with one folder and one ledger: no image twice."""
    archive = Archive(good=120)
    others = Bench(opened(), tmp_path / "out", pipeline, swift)
    one, other = threading.Event(), threading.Event()
    works = [
        bench.work(Meeting(archive, one, other)),
        others.work(Meeting(archive, other, one)),
    ]
    jobs: list[Job] = []
    threads = [threading.Thread(target=lambda work=work: jobs.append(work.run())) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job.state for job in jobs] == ["done", "done"]
    assert min(work.progress.images for work in works) > 0
    assert archive.listed_times == 1
    assert set(archive.read_times.values()) == {1}
    bench.check(bench.ledger.job(bench.job), archive)


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_an_image_that_ends_its_decoder_fails_alone(
    ledger: Ledger, tmp_path: Path, swift: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an outcome like any other; its neighbours are done, and the job comes to its end."""
    monkeypatch.setattr(
        local_pipeline, "Pipeline", partial(Pipeline, decode="hostile_decoder:decode")
    )
    source = Archive()
    harms = {f"harm/{number}": hostile_decoder.PNG + b"segfault" for number in range(5)}
    source.files |= harms
    with open_pipeline(swift) as pipeline:
        bench = Bench(ledger, tmp_path / "out", pipeline, swift)
        job = bench.work(source).run()
        bench.check(job, source)
    assert bench.ledger.codes(bench.job) == CODES | {"decoder_failed": len(harms)}
    assert job.counts["done"] == EXPECTED["done"]
