"""From bytes to predictions, lane by lane."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import needs
import numpy as np
import pytest
from garbage import no_search_for_garbage
from images import png

from model_store import Prediction, PreprocessSpec
from service.imaging import CorruptImageError, UnrecognisedFormatError, image_to_tensor
from service.inference import (
    Batcher,
    BatcherClosedError,
    BatchReport,
    Buffer,
    Image,
    Lane,
    Pipeline,
    Runner,
)
from service.inference.lanes import DECODE_NICENESS, LANES
from service.inference.pipeline import MOST_PATIENCE_SECONDS

SPEC = PreprocessSpec(size=32)
PICTURE = png(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))


class Mean:
    """A network whose PFI is the mean of the tensor over 255; it can be held shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.images = 0

    def run(self, tensors: np.ndarray[Any, Any]) -> list[Prediction]:
        self.entered.set()
        assert self.open.wait(5)
        self.images += len(tensors)
        return [Prediction(float(mean) / 255) for mean in tensors.mean(axis=(1, 2, 3))]


@contextmanager
def running(network: Mean, workers: int = 1, **kwargs: Any) -> Iterator[Pipeline]:
    pipeline = Pipeline(SPEC, Batcher([Runner(lambda: network.run)], 8), workers, **kwargs)
    pipeline.start()
    try:
        yield pipeline
    finally:
        network.open.set()
        pipeline.close()


def submit(pipeline: Pipeline, data: Buffer = PICTURE, lane: Lane = "interactive") -> Image:
    image = Image(data, lane)
    pipeline.submit(image)
    return image


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def decoders_held(pipeline: Pipeline, lane: Lane = "interactive") -> Iterator[None]:
    """Keep a lane's only decode thread busy: it waits within the callback of a refused image."""
    release = threading.Event()
    holder = Image(b"no image", lane)
    holder.answer.add_done_callback(lambda _: release.wait(5))
    pipeline.submit(holder)
    until(holder.answer.done)
    try:
        yield
    finally:
        release.set()


@pytest.mark.parametrize("lane", ["interactive", "backfill"])
def test_bytes_become_a_pfi(lane: Lane) -> None:
    """The answer is the network's, of the tensor that `image_to_tensor` makes."""
    with running(Mean()) as pipeline:
        image = submit(pipeline, lane=lane)
        expected = image_to_tensor(PICTURE, SPEC).mean() / 255
        assert image.answer.result(5).pfi == pytest.approx(expected, abs=1e-5)
        assert image.radiograph is not None
        assert image.radiograph.format == "png"
        assert image.since < image.answer.at <= time.perf_counter()


def test_a_bad_file_is_its_own_problem() -> None:
    """It gets its error; the thread goes on to its neighbours."""
    with running(Mean()) as pipeline:
        bad, good = submit(pipeline, b"no image"), submit(pipeline)
        with pytest.raises(UnrecognisedFormatError):
            bad.answer.result(5)
        assert 0 < good.answer.result(5).pfi < 1


def test_an_image_whose_client_has_gone_is_not_decoded() -> None:
    """Cancelled while it waits for a thread, it costs nothing more."""
    stages: Counter[str] = Counter()
    network = Mean()
    with running(network, observe=lambda stage, _: stages.update([stage])) as pipeline:
        with decoders_held(pipeline):
            gone, peer = submit(pipeline), submit(pipeline)
            assert pipeline.waiting("interactive") == 2
            gone.answer.cancel()
        peer.answer.result(5)
    assert stages["decode"] == network.images == 1
    assert gone.radiograph is None


def test_an_image_whose_client_goes_after_decoding_is_not_run() -> None:
    """Cancelled while it waits for the network, it never gets there."""
    network = Mean()
    with running(network) as pipeline:
        network.open.clear()
        first = submit(pipeline)
        assert network.entered.wait(5)
        gone = submit(pipeline)
        until(lambda: gone.radiograph is not None)
        gone.answer.cancel()
        network.open.set()
        first.answer.result(5)
        with pytest.raises(CancelledError):
            gone.answer.result(5)
    assert network.images == 1


def test_a_client_that_goes_while_its_file_fails_affects_no_other() -> None:
    """An error without a waiting client is dropped; the thread goes on."""
    with running(Mean()) as pipeline:
        with decoders_held(pipeline):
            bad = submit(pipeline, b"no image")
            bad.answer.cancel()
        assert 0 < submit(pipeline).answer.result(5).pfi < 1


def test_lanes_decode_in_threads_of_their_own() -> None:
    """While backfill's decoders are busy, an interactive image is answered."""
    with running(Mean()) as pipeline, decoders_held(pipeline, "backfill"):
        waits = submit(pipeline, lane="backfill")
        assert 0 < submit(pipeline).answer.result(5).pfi < 1
        assert not waits.answer.done()
        assert pipeline.waiting("backfill") == 1


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_decoding_backfill_yields_to_all() -> None:
    """The scheduler gives these threads only what those before them leave."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found: dict[str, int] = {}

    def observe(_: str, __: float) -> None:
        priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        found[threading.current_thread().name] = priority

    with running(Mean(), observe=observe) as pipeline:
        for lane in LANES:
            submit(pipeline, lane=lane).answer.result(5)
    backfill = min(19, own + DECODE_NICENESS["backfill"])
    assert found == {"decode-interactive": own, "decode-backfill": backfill}
    assert own < backfill


def test_backfill_waits_while_people_are_served_but_not_for_ever() -> None:
    """Its next image is left alone for a while; then it goes on, so that it never stands still."""
    waited: list[float] = []

    def observe(stage: str, seconds: float) -> None:
        if stage == "wait_decode":
            waited.append(seconds)

    network = Mean()
    with running(network, observe=observe) as pipeline:
        network.open.clear()
        people = submit(pipeline)
        assert network.entered.wait(5)
        archive = submit(pipeline, lane="backfill")
        until(lambda: archive.radiograph is not None)
        assert waited[-1] >= MOST_PATIENCE_SECONDS
        network.open.set()
        people.answer.result(5)
        archive.answer.result(5)
        assert pipeline._quiet.is_set()


def test_the_bytes_go_as_soon_as_they_are_decoded() -> None:
    """A file is a hundred times its tensor: nothing keeps it while its tensor waits."""
    network = Mean()
    with running(network) as pipeline:
        network.open.clear()
        image = submit(pipeline)
        until(lambda: image.radiograph is not None and image.data is None)
        assert not image.answer.done()
        network.open.set()
        image.answer.result(5)


def test_a_bad_file_goes_with_its_error() -> None:
    """A reference to the error keeps no reference to the file through the error's frames."""
    picture = np.frombuffer(PICTURE, np.uint8).copy()
    picture[len(picture) // 2 :] = 0
    gone = weakref.ref(picture)
    with running(Mean()) as pipeline, no_search_for_garbage():
        image = submit(pipeline, memoryview(picture))
        error = image.answer.exception(5)
        del picture
        assert isinstance(error, CorruptImageError)
        assert error.__traceback__ is not None  # where it came from stays
        until(lambda: gone() is None)


def test_an_answered_image_goes_at_once() -> None:
    """Its answer no longer holds those who waited for it, who know the image."""
    with running(Mean()) as pipeline, no_search_for_garbage():
        image = submit(pipeline)
        image.answer.add_done_callback(lambda _, waiting=image: waiting.data)
        image.answer.result(5)
        gone = weakref.ref(image)
        del image
        submit(pipeline).answer.result(5)  # which takes the first one's place in its decode thread
        until(lambda: gone() is None)


def test_an_image_that_is_never_submitted_goes_at_once() -> None:
    """As one that is refused after it was read."""
    with no_search_for_garbage():
        gone = weakref.ref(Image(PICTURE, "interactive"))
        assert gone() is None


def test_batches_fill_up_while_there_is_enough_to_decode() -> None:
    """Of four files for one thread, three know that more will come; one alone never waits."""
    reports: list[BatchReport] = []
    network = Mean()
    batcher = Batcher([Runner(lambda: network.run)], 8, patience_seconds=60, observe=reports.append)
    pipeline = Pipeline(SPEC, batcher, workers=1)
    pipeline.start()
    try:
        submit(pipeline).answer.result(5)
        with decoders_held(pipeline):
            images = [submit(pipeline) for _ in range(4)]
        assert all(0 < image.answer.result(5).pfi < 1 for image in images)
    finally:
        pipeline.close()
    assert [len(report.waited_seconds) for report in reports] == [1, 4]


def test_what_is_being_decoded_is_counted() -> None:
    """The gauge shows the threads that are busy, and none afterwards."""
    with running(Mean(), workers=2) as pipeline:
        with decoders_held(pipeline):
            assert pipeline.decoding() == 1
        submit(pipeline).answer.result(5)
        until(lambda: pipeline.decoding() == 0)


def test_closing_answers_all_that_was_taken_and_takes_no_more() -> None:
    """Nothing accepted is lost, wherever it was; what comes later is told so."""
    with running(Mean()) as pipeline:
        with decoders_held(pipeline):
            inside = [submit(pipeline), submit(pipeline, lane="backfill")]
            closing = threading.Thread(target=pipeline.close)
            closing.start()
            until(lambda: not pipeline.alive)
            with pytest.raises(BatcherClosedError):
                submit(pipeline)
        assert all(0 < image.answer.result(5).pfi < 1 for image in inside)
        closing.join(5)


def test_it_can_be_closed_before_it_was_started() -> None:
    """A start-up that fails half-way can still clean up."""
    Pipeline(SPEC, Batcher([Runner(lambda: Mean().run)], 8), 2).close()


def test_a_decoder_that_never_returns_is_told() -> None:
    """By its lane and its time; files that wait behind it or come later do not count."""
    at_once: dict[Lane, float] = {"interactive": 0, "backfill": 600}
    with running(Mean()) as pipeline:
        with decoders_held(pipeline):
            behind = submit(pipeline)
            (reason,) = pipeline.stuck(at_once)
            assert reason.startswith("a file of the lane interactive has been in its decoder for")
            assert pipeline.stuck() == []
        behind.answer.result(5)
        until(lambda: pipeline.stuck(at_once) == [])
        with decoders_held(pipeline, "backfill"):
            assert pipeline.stuck(at_once) == []


def test_a_network_that_never_returns_is_told() -> None:
    """Of a batch too; and a pipeline that closes waits for it, so that it is no news any more."""
    at_once: dict[Lane, float] = {"interactive": 0, "backfill": 0}
    with running(network := Mean()) as pipeline:
        network.open.clear()
        image = submit(pipeline)
        assert network.entered.wait(5)
        until(lambda: pipeline.decoding() == 0)
        (reason,) = pipeline.stuck(at_once)
        assert reason.startswith("a batch of the lane interactive has run for")
        assert pipeline.stuck() == []
        closing = threading.Thread(target=pipeline.close)
        closing.start()
        until(lambda: not pipeline.alive)
        assert pipeline.stuck(at_once) == []
        network.open.set()
        image.answer.result(5)
        closing.join(5)


def test_a_heap_of_images_is_not_stuck() -> None:
    """However many wait, and however long: it is the one being worked on that counts."""
    with running(network := Mean()) as pipeline:
        network.open.clear()
        images = [submit(pipeline, lane=lane) for lane in LANES for _ in range(200)]
        for image in images:
            image.since -= 3600
        until(lambda: pipeline.waiting("interactive") == pipeline.decoding() == 0)
        assert pipeline.stuck() == []
        assert pipeline.alive
        network.open.set()
        assert all(0 < image.answer.result(20).pfi < 1 for image in images)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_told() -> None:
    """What no handler caught has ended it: its images would wait for ever."""

    def end(stage: str, _: float) -> None:
        if stage == "wait_decode":
            raise SystemExit  # which ends the thread

    with running(Mean(), observe=end) as pipeline:
        assert pipeline.alive
        submit(pipeline)
        until(lambda: pipeline.stuck() == ["a thread that decodes has ended"])
        assert not pipeline.alive


def test_before_it_starts_nothing_is_stuck() -> None:
    """Its threads are not there yet, which is no death."""
    assert Pipeline(SPEC, Batcher([Runner(lambda: Mean().run)], 8), 2).stuck() == []
