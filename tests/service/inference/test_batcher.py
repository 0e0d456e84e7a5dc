"""The batcher's promises to those who wait."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from typing import Any

import needs
import numpy as np
import pytest

from model_store import Prediction
from service.inference import (
    STUCK_SECONDS,
    Batcher,
    BatcherClosedError,
    BatchReport,
    Lane,
    PredictionError,
    Run,
    Runner,
)


def tensor(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((1, 2, 2), value, dtype=np.uint8)


class BlockableNetwork:
    """A network that answers the first pixel over 255, and blocks while `unblocked` is clear."""

    def __init__(self, seconds: float = 0) -> None:
        self.unblocked = threading.Event()
        self.unblocked.set()
        self.batches: list[list[int]] = []
        self._seconds = seconds

    def run(self, tensors: np.ndarray[Any, Any]) -> list[Prediction]:
        assert self.unblocked.wait(5)
        time.sleep(self._seconds * len(tensors))
        self.batches.append(tensors[:, 0, 0, 0].tolist())
        if 13 in self.batches[-1]:
            raise RuntimeError("the network stumbles over 13")
        return [Prediction(float(value) / 255) for value in tensors[:, 0, 0, 0]]


INVALID = [
    Prediction(float("nan")),
    Prediction(1.5),
    Prediction(-0.1),
    Prediction(0.5, chest=float("inf")),
    Prediction(0.5, rotation=(0.5, float("nan"), 0.5, 0.0)),
    Prediction(0.5, inverted=float("nan")),
    Prediction(0.5, mirrored=2.0),
]
VALID = Prediction(0.0, 1.0, (0.0, 0.0, 0.0, 1.0), 0.5, 1.0)


@contextmanager
def running(*runners: Runner, most: int = 8, **kwargs: Any) -> Iterator[Batcher]:
    batcher = Batcher(runners, most, **kwargs)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()


def only(network: BlockableNetwork) -> Runner:
    return Runner(lambda: network.run)


def submit(
    batcher: Batcher, *values: int, lane: Lane = "interactive", more: bool = False
) -> list[Future[Prediction]]:
    answers: list[Future[Prediction]] = [Future() for _ in values]
    for value, answer in zip(values, answers, strict=True):
        batcher.submit(tensor(value), lane, answer, more)
    return answers


def results(answers: list[Future[Prediction]]) -> list[float]:
    """Their PFIs."""
    return [answer.result(5).pfi for answer in answers]


def blocked(network: BlockableNetwork, batcher: Batcher) -> Future[Prediction]:
    """Block the network at one image, so that all later images wait."""
    network.unblocked.clear()
    (first,) = submit(batcher, 0)
    deadline = time.monotonic() + 5
    while batcher.waiting("interactive"):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return first


def test_each_caller_gets_its_own_answer() -> None:
    """A hundred images in one go come back to those who sent them, in warmed batch sizes only."""
    network = BlockableNetwork()
    with running(only(network)) as batcher:
        first = blocked(network, batcher)
        answers = submit(batcher, *range(20, 120))
        network.unblocked.set()
        assert results([first, *answers]) == pytest.approx(
            [0, *(value / 255 for value in range(20, 120))]
        )
    assert {len(batch) for batch in network.batches} <= set(Batcher.sizes(8)) == {1, 2, 4, 8}
    assert max(map(len, network.batches)) == 8


def test_an_idle_network_waits_for_no_second_image() -> None:
    """One image alone is run at once, as a batch of one."""
    network = BlockableNetwork()
    with running(only(network)) as batcher:
        assert results(submit(batcher, 51)) == pytest.approx([0.2])
    assert network.batches == [[51]]


def test_a_batch_waits_for_images_that_are_sure_to_come() -> None:
    """Until it is full, or the last has come; and it is run by then."""
    network = BlockableNetwork()
    with running(only(network), most=4, patience_seconds=60) as batcher:
        some = submit(batcher, 20, 21, more=True)
        time.sleep(0.05)
        assert not any(answer.done() for answer in some)
        results(some + submit(batcher, 22))
        results(submit(batcher, 30, 31, 32, 33, more=True))
    assert network.batches == [[20, 21], [22], [30, 31, 32, 33]]


def test_its_patience_ends() -> None:
    """Who should have come may have gone, or their files may be bad."""
    network = BlockableNetwork()
    with running(only(network), patience_seconds=0.05) as batcher:
        start = time.perf_counter()
        results(submit(batcher, 20, more=True))
        assert time.perf_counter() - start > 0.04


def test_no_image_waits_for_more_than_a_batch_may_take() -> None:
    """Where time allows two images a batch, two are full; closing ends all patience."""
    network = BlockableNetwork(seconds=0.02)
    with running(only(network), patience_seconds=60, max_batch_seconds=0.05) as batcher:
        results(submit(batcher, 20))  # how long one takes is known from here on
        results(submit(batcher, 30, 31, more=True))
        last = submit(batcher, 40, more=True)
    assert network.batches == [[20], [30, 31], [40]]
    assert results(last) == pytest.approx([40 / 255])


def test_interactive_images_come_before_backfill() -> None:
    """No interactive image waits behind an archive, whichever came first; no batch mixes lanes."""
    network = BlockableNetwork()
    with running(only(network), most=4) as batcher:
        first = blocked(network, batcher)
        backfill = submit(batcher, *range(20, 28), lane="backfill")
        people = submit(batcher, *range(40, 46))
        assert (batcher.waiting("backfill"), batcher.waiting("interactive")) == (8, 6)
        network.unblocked.set()
        results([first, *backfill, *people])
    assert network.batches == [
        [0],
        [40, 41, 42, 43],
        [44, 45],
        [20, 21, 22, 23],
        [24, 25, 26, 27],
    ]


def test_lanes_with_runners_of_their_own_do_not_wait_for_each_other() -> None:
    """While backfill's network is held, interactive images are answered, and the other way."""
    networks: dict[Lane, BlockableNetwork] = {
        "interactive": BlockableNetwork(),
        "backfill": BlockableNetwork(),
    }

    def runner(lane: Lane) -> Runner:
        return Runner(lambda: networks[lane].run, (lane,))

    with running(runner("interactive"), runner("backfill")) as batcher:
        pairs: list[tuple[Lane, Lane]] = [
            ("backfill", "interactive"),
            ("interactive", "backfill"),
        ]
        for held, free in pairs:
            networks[held].unblocked.clear()
            waits = submit(batcher, 1, lane=held)
            assert results(submit(batcher, 2, lane=free)) == pytest.approx([2 / 255])
            assert not waits[0].done()
            networks[held].unblocked.set()
            assert results(waits) == pytest.approx([1 / 255])


def test_two_batches_can_be_in_flight() -> None:
    """With two runners, a second batch runs while the first one is not done."""
    meeting = threading.Barrier(2, timeout=5)

    def run(tensors: np.ndarray[Any, Any]) -> list[Prediction]:
        meeting.wait()  # one batch alone would wait here
        return [Prediction(0)] * len(tensors)

    with running(Runner(lambda: run), Runner(lambda: run), most=1) as batcher:
        assert results(submit(batcher, 1, 2)) == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_a_nice_runner_yields_and_opens_its_network_at_its_first_batch() -> None:
    """What it opens starts threads, which inherit its priority; unused, it costs no memory."""
    seen: list[int] = []

    def open_run() -> Run:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return BlockableNetwork().run

    before = os.getpriority(os.PRIO_PROCESS, 0)
    runners = (
        Runner(lambda: BlockableNetwork().run, ("interactive",)),
        Runner(open_run, ("backfill",), 4),
    )
    with running(*runners) as batcher:
        results(submit(batcher, 1))
        assert seen == []
        results(submit(batcher, 1, lane="backfill"))
        results(submit(batcher, 1, lane="backfill"))
    assert seen == [min(19, before + 4)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_network_that_does_not_open_is_told_and_tried_again() -> None:
    """Its first callers get the reason; the next ones are answered."""
    attempts = iter([RuntimeError("no memory"), None])

    def open_run() -> Run:
        if (error := next(attempts)) is not None:
            raise error
        return BlockableNetwork().run

    with running(Runner(open_run)) as batcher:
        with pytest.raises(RuntimeError, match="no memory"):
            results(submit(batcher, 1))
        assert results(submit(batcher, 51)) == pytest.approx([0.2])
        assert batcher.alive


def test_batches_are_bounded_in_time() -> None:
    """Once it is known that an image takes 20 ms, no batch is begun that would last over 50 ms."""
    network = BlockableNetwork(seconds=0.02)
    with running(only(network), max_batch_seconds=0.05) as batcher:
        results(submit(batcher, 1))
        first = blocked(network, batcher)
        answers = submit(batcher, *range(20, 28))
        network.unblocked.set()
        results([first, *answers])
    assert max(len(batch) for batch in network.batches[1:]) <= 2


def test_an_image_whose_client_has_gone_never_reaches_the_network() -> None:
    """A cancelled caller is dropped before the model sees its image; its peers are answered."""
    network = BlockableNetwork()
    with running(only(network)) as batcher:
        first = blocked(network, batcher)
        gone, peer = submit(batcher, 77, 78)
        assert gone.cancel()
        network.unblocked.set()
        assert results([first, peer]) == pytest.approx([0, 78 / 255])
        with pytest.raises(CancelledError):
            gone.result(5)
    assert 77 not in [value for batch in network.batches for value in batch]


def test_a_client_that_goes_while_its_batch_runs_affects_no_other() -> None:
    """Cancellation in the middle of a batch leaves the thread and the next image alone."""
    network = BlockableNetwork()
    with running(only(network)) as batcher:
        blocked(network, batcher).cancel()
        network.unblocked.set()
        assert results(submit(batcher, 5)) == pytest.approx([5 / 255])


def test_the_thread_survives_any_exception() -> None:
    """A batch that fails tells each of its callers who is still there; the next one is answered."""
    network = BlockableNetwork()
    with running(only(network)) as batcher:
        with pytest.raises(RuntimeError, match="stumbles over 13"):
            results(submit(batcher, 13))
        first = blocked(network, batcher)
        doomed = submit(batcher, 13, 14)
        network.unblocked.set()
        assert first.result(5).pfi == 0
        for answer in doomed:
            with pytest.raises(RuntimeError, match="stumbles over 13"):
                answer.result(5)
        network.unblocked.clear()
        (running_one,) = submit(batcher, 13)
        running_one.cancel()
        network.unblocked.set()
        assert results(submit(batcher, 15)) == pytest.approx([15 / 255])
        assert batcher.alive


def test_an_answer_that_is_no_probability_fails_its_image_alone() -> None:
    """Others of its batch are answered, and no caller sees a NaN."""

    def run(tensors: np.ndarray[Any, Any]) -> list[Prediction]:
        return [INVALID[value] if value < 7 else VALID for value in tensors[:, 0, 0, 0]]

    with running(Runner(lambda: run)) as batcher:
        bad, good = submit(batcher, *range(7), more=True), submit(batcher, 7)
        assert good[0].result(5) == VALID
        for answer, prediction in zip(bad, INVALID, strict=True):
            with pytest.raises(PredictionError, match=re.escape(str(prediction))):
                answer.result(5)
        assert batcher.alive


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_network_with_too_few_answers_leaves_none_waiting(count: int) -> None:
    """Or with too many; each image has an answer or an error, and the thread lives."""
    with running(Runner(lambda: lambda _: [VALID] * count), patience_seconds=5) as batcher:
        answers = submit(batcher, 1, more=True) + submit(batcher, 2)
        assert not wait(answers, 5).not_done
        assert batcher.alive


def test_a_metric_that_fails_leaves_none_waiting() -> None:
    """Its error is told, and the next batch is run."""

    def observe(_: BatchReport) -> None:
        raise OSError("no metrics")

    with running(only(BlockableNetwork()), observe=observe) as batcher:
        for _ in range(2):
            with pytest.raises(OSError, match="no metrics"):
                results(submit(batcher, 1))
        assert batcher.alive


def test_closing_answers_all_that_wait_and_takes_no_more() -> None:
    """Nothing accepted is lost when the service stops; what comes later is told so."""
    network = BlockableNetwork()
    with running(only(network)) as batcher:
        first = blocked(network, batcher)
        inside = submit(batcher, 1, 2) + submit(batcher, 3, lane="backfill")
        closing = threading.Thread(target=batcher.close)
        closing.start()
        while batcher.alive:
            time.sleep(0.001)
        with pytest.raises(BatcherClosedError):
            submit(batcher, 4)
        network.unblocked.set()
        assert results([first, *inside]) == pytest.approx([0, 1 / 255, 2 / 255, 3 / 255])
        closing.join(5)
        assert not closing.is_alive()


def test_every_batch_is_reported() -> None:
    """The reports add up to all images, each with its wait and the batch's time."""
    reports: list[BatchReport] = []
    with running(only(BlockableNetwork()), observe=reports.append) as batcher:
        results(submit(batcher, *range(20, 30), lane="backfill"))
    assert sum(len(report.waited_seconds) for report in reports) == 10
    for report in reports:
        assert report.lane == "backfill"
        assert min(report.waited_seconds) >= 0
        assert report.run_seconds > 0


def test_it_can_be_closed_before_it_was_started() -> None:
    """A start-up that fails half-way can still clean up."""
    Batcher([only(BlockableNetwork())], 8).close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_told() -> None:
    """A network that ends its thread leaves its lane without a runner; its error does not."""

    def end(tensors: np.ndarray[Any, Any]) -> list[Prediction]:
        raise SystemExit if tensors.max() == 1 else RuntimeError  # which ends the thread

    with running(Runner(lambda: end)) as batcher:
        with pytest.raises(RuntimeError):
            results(submit(batcher, 0))
        assert batcher.stuck(STUCK_SECONDS) == []
        submit(batcher, 1)
        deadline = time.monotonic() + 5
        while batcher.alive:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert "a thread that runs batches has ended" in batcher.stuck(STUCK_SECONDS)
