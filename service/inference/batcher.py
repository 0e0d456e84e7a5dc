"""Many requests, one network: images that wait together run together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.imaging import Tensor

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


class QueueFullError(Exception):
    """No room in the queue now; `retry_after_seconds` says when there should be."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("the queue is full")
        self.retry_after_seconds = retry_after_seconds


class BatcherClosedError(Exception):
    """The service is stopping; it takes no more images."""


@dataclass(frozen=True)
class BatchReport:
    """What one batch was like, for whoever keeps the metrics."""

    pfi: tuple[float, ...]
    waited_seconds: tuple[float, ...]  # each image, from submit to the start of its batch
    run_seconds: float


@dataclass(frozen=True)
class _Waiting:
    tensor: Tensor
    answer: asyncio.Future[float]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Collects tensors, runs them in batches, hands each caller its PFI.

    It never waits for a batch to fill: what has queued up while the last batch ran is the next one,
    so an idle service answers at once and a busy one batches by itself. Batches have fixed sizes
    (1, 2, 4, ... up to `max_batch_images`), which are warmed; of 5 waiting images, 4 run, then 1.

    Args:
        run: (B, 1, S, S) uint8 -> (B,) PFI; called in a thread of the batcher's own.
        max_batch_images: The largest batch, a power of two.
        max_queue_images: Images that may wait; beyond, `submit` refuses.
        observe: Called after every batch.
    """

    def __init__(
        self,
        run: Run,
        max_batch_images: int,
        max_queue_images: int,
        observe: Callable[[BatchReport], None] = lambda _: None,
    ) -> None:
        self._run = run
        self.max_batch_images = max_batch_images
        self._max_queue_images = max_queue_images
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._seconds_per_image = 0.05  # until the first batch has been measured
        self._thread = ThreadPoolExecutor(1, "inference")
        self._task: asyncio.Task[None] | None = None

    @staticmethod
    def sizes(max_batch_images: int) -> tuple[int, ...]:
        """The batch sizes that will occur."""
        return tuple(2**power for power in range(max_batch_images.bit_length()))

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether images are being taken and answered."""
        return self._task is not None and not self._task.done() and not self._closing

    def start(self) -> None:
        """Begin to answer; call within the event loop."""
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """Take no more, answer all that wait, stop."""
        self._closing = True
        self._arrived.set()
        self._room.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, tensor: Tensor) -> float:
        """The PFI of one (1, S, S) tensor.

        Raises:
            QueueFullError: At once, where the queue is full.
            BatcherClosedError: The service is stopping.
        """
        if self._closing:
            raise BatcherClosedError("the service is stopping")
        if len(self._waiting) >= self._max_queue_images:
            raise QueueFullError(self._retry_after_seconds())
        entry = _Waiting(tensor, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrived.set()
        return await entry.answer

    async def submit_when_free(self, tensor: Tensor) -> float:
        """As `submit`, but waits for room instead of refusing: for work that can wait.

        Raises:
            BatcherClosedError: The service is stopping.
        """
        while len(self._waiting) >= self._max_queue_images and not self._closing:
            self._room.clear()
            await self._room.wait()
        return await self.submit(tensor)

    def _retry_after_seconds(self) -> int:
        return math.ceil(max(1.0, len(self._waiting) * self._seconds_per_image))

    async def _serve(self) -> None:
        while not (self._closing and not self._waiting):
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._answer(batch)
            elif not self._closing:
                self._arrived.clear()

    def _take(self) -> list[_Waiting]:
        """The next batch, without those whose callers have gone."""
        self._waiting = deque(entry for entry in self._waiting if not entry.answer.done())
        count = min(len(self._waiting), self.max_batch_images)
        size = 1 << (count.bit_length() - 1) if count else 0
        batch = [self._waiting.popleft() for _ in range(size)]
        self._room.set()
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        start = time.perf_counter()
        try:
            tensors = np.stack([entry.tensor for entry in batch])
            loop = asyncio.get_running_loop()
            pfi = await loop.run_in_executor(self._thread, self._run, tensors)
        except Exception as error:  # noqa: BLE001  # handed to every waiting caller; the loop goes on
            for entry in batch:
                if not entry.answer.done():
                    entry.answer.set_exception(error)
            return
        seconds = time.perf_counter() - start
        self._seconds_per_image += 0.2 * (seconds / len(batch) - self._seconds_per_image)
        for entry, value in zip(batch, pfi, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(float(value))
        waited = tuple(start - entry.since for entry in batch)
        self._observe(BatchReport(tuple(map(float, pfi)), waited, seconds))
