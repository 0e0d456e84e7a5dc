"""Dynamic batching: images that wait at the same time run in one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from model_store import Prediction
from service.imaging import Tensor
from service.inference.errors import PredictionError
from service.inference.lanes import LANES, Lane, lower_priority

Run = Callable[[npt.NDArray[np.uint8]], Sequence[Prediction]]


class UnavailableError(Exception):
    """The image cannot be accepted now; the error is not about the image."""


class BatcherClosedError(UnavailableError):
    """The service is stopping, and accepts no more images."""

    code: ClassVar[str] = "stopping"


@dataclass(frozen=True)
class Runner:
    """Describes a thread that runs batches.

    `open` is called in that thread before its first batch, and returns the function that runs
    batches: (B, 1, S, S) uint8 -> B predictions. The thread, and threads that `open` starts, have
    the priority `niceness`.
    """

    open: Callable[[], Run]
    lanes: tuple[Lane, ...] = LANES  # the lanes that it serves, in order of priority
    niceness: int = 0


@dataclass(frozen=True)
class BatchReport:
    """Measurements of one batch, for the metrics."""

    lane: Lane
    waited_seconds: tuple[float, ...]  # of each image, from submit to the start of its batch
    run_seconds: float


@dataclass(frozen=True)
class _Waiting:
    tensor: Tensor
    answer: Future[Prediction]
    more: bool
    since: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class _Batch:
    lane: Lane
    entries: list[_Waiting]
    since: float = field(default_factory=time.perf_counter)

    def answer(self, predictions: Sequence[Prediction]) -> None:
        for entry, prediction in zip(self.entries, predictions, strict=True):
            with suppress(InvalidStateError):  # its caller has cancelled it meanwhile
                if prediction.valid:
                    entry.answer.set_result(prediction)
                else:
                    entry.answer.set_exception(PredictionError(f"no probability: {prediction}"))

    def fail(self, error: Exception) -> None:
        for entry in self.entries:
            with suppress(InvalidStateError):
                entry.answer.set_exception(error)


class Batcher:
    """Collects tensors, runs them in batches, and sets each caller's future to its prediction.

    No caller gets a prediction that is not valid: an image for which the network answers NaN, or a
    value outside 0..1, fails alone.

    A batch waits for more images only while more will follow soon, and at most `patience_seconds`.
    So an idle service answers at once, and a busy one has larger batches. Batches have fixed sizes
    (1, 2, 4, ... up to `max_batch_images`), which are warmed up: of 5 waiting images, 4 run, then
    1. A batch has images of one lane. The queues have no limit: the caller limits the images that
    wait.

    Args:
        runners: Each gets one thread.
        max_batch_images: The largest batch, a power of two.
        max_batch_seconds: A batch that should take longer, by the images measured so far, is made
            smaller: an image that arrives just after a batch began waits for its end.
        patience_seconds: The longest that an image waits for its batch to fill.
        observe: Called after every batch, in the runner's thread.
    """

    def __init__(
        self,
        runners: Iterable[Runner],
        max_batch_images: int,
        max_batch_seconds: float = float("inf"),
        patience_seconds: float = 0.0,
        observe: Callable[[BatchReport], None] = lambda _: None,
    ) -> None:
        self.max_batch_images = max_batch_images
        self._max_batch_seconds = max_batch_seconds
        self._patience_seconds = patience_seconds
        self._observe = observe
        self._queues: dict[Lane, deque[_Waiting]] = {lane: deque() for lane in LANES}
        self._running: dict[threading.Condition, _Batch] = {}  # by whose thread runs it
        self._closing = False
        self._lock = threading.Lock()
        self._runners = [(runner, threading.Condition(self._lock)) for runner in runners]
        self._threads = [
            threading.Thread(target=self._serve, args=pair, name="inference", daemon=True)
            for pair in self._runners
        ]

    @staticmethod
    def sizes(max_batch_images: int) -> tuple[int, ...]:
        """All batch sizes: the powers of two up to `max_batch_images`."""
        return tuple(2**power for power in range(max_batch_images.bit_length()))

    def waiting(self, lane: Lane) -> int:
        """The number of images in a lane's queue."""
        return len(self._queues[lane])

    @property
    def alive(self) -> bool:
        """Whether images are accepted and answered."""
        return not self._closing and all(thread.is_alive() for thread in self._threads)

    def stuck(self, limits: Mapping[Lane, float]) -> list[str]:
        """Reasons why only a restart helps: dead threads and stuck batches; empty while closing.

        Args:
            limits: By lane, the seconds after which a running batch counts as stuck.
        """
        if self._closing:
            return []
        now = time.perf_counter()
        return [
            "a thread that runs batches has ended"
            for thread in self._threads
            if thread.ident is not None and not thread.is_alive()  # it was started
        ] + [
            f"a batch of the lane {batch.lane} has run for {now - batch.since:.0f} s"
            for batch in self._running.copy().values()  # threads change it
            if now - batch.since > limits[batch.lane]
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Accept no more images, answer all that wait, and stop the threads; blocks until then."""
        with self._lock:
            self._closing = True
            for _, work in self._runners:
                work.notify()
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def submit(
        self, tensor: Tensor, lane: Lane, answer: Future[Prediction], more: bool = False
    ) -> None:
        """Queue one (1, S, S) tensor; `answer` gets its prediction, or an error.

        The error is a PredictionError of this image alone, or the error of its batch. An image
        whose `answer` is cancelled before its batch begins never reaches the network.

        Args:
            tensor: The image.
            lane: The image's lane.
            answer: The caller's future.
            more: More images will follow soon, so that the batch may wait for them.

        Raises:
            BatcherClosedError: The service is stopping.
        """
        with self._lock:
            if self._closing:
                raise BatcherClosedError("the service is stopping")
            queue = self._queues[lane]
            queue.append(_Waiting(tensor, answer, more))
            # A runner that waits for a batch to fill is woken only for a larger batch size
            if not more or len(queue) in self.sizes(self.max_batch_images):
                for runner, work in self._runners:
                    if lane in runner.lanes:
                        work.notify()

    def _serve(self, runner: Runner, work: threading.Condition) -> None:
        lower_priority(runner.niceness)
        run: Run | None = None
        seconds_per_image = 0.0
        while batch := self._next(runner, work, seconds_per_image):
            start = batch.since
            try:
                run = run or runner.open()
                predictions = run(np.stack([entry.tensor for entry in batch.entries]))
                seconds = time.perf_counter() - start
                latest = seconds / len(batch.entries)
                step = 0.2 if seconds_per_image else 1
                seconds_per_image += step * (latest - seconds_per_image)
                waited = tuple(start - entry.since for entry in batch.entries)
                self._observe(BatchReport(batch.lane, waited, seconds))
                batch.answer(predictions)
            except Exception as error:  # noqa: BLE001  # handed to every waiting caller; the loop goes on
                batch.fail(error)

    def _next(
        self, runner: Runner, work: threading.Condition, seconds_per_image: float
    ) -> _Batch | None:
        """Wait for the next batch, without cancelled images; None when closed and empty."""
        with self._lock:
            self._running.pop(work, None)
            while True:
                patience = None
                for lane in runner.lanes:
                    live = [entry for entry in self._queues[lane] if not entry.answer.cancelled()]
                    patience = self._patience(live, seconds_per_image)
                    if patience is not None:
                        self._queues[lane] = deque(live)
                        break
                    size = self._size(len(live), seconds_per_image)
                    self._queues[lane] = deque(live[size:])
                    if size:
                        self._running[work] = batch = _Batch(lane, live[:size])
                        return batch
                if self._closing and patience is None:
                    return None
                work.wait(patience)

    def _patience(self, live: Sequence[_Waiting], seconds_per_image: float) -> float | None:
        """Seconds that these may still wait for others; None: they run now, or there are none."""
        full = len(live) >= self._size(self.max_batch_images, seconds_per_image)
        if not live or full or not live[-1].more or self._closing:
            return None
        left = live[0].since + self._patience_seconds - time.perf_counter()
        return left if left > 0 else None

    def _size(self, count: int, seconds_per_image: float) -> int:
        """The largest batch size that `count` images fill within the time limit; 0 if none."""
        fits = self.max_batch_images
        if seconds_per_image * fits > self._max_batch_seconds:
            fits = max(1, int(self._max_batch_seconds / seconds_per_image))
        most = min(count, fits)
        return 1 << (most.bit_length() - 1) if most else 0
