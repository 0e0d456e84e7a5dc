"""The batcher's promises to those who wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from service.inference import Batcher, BatcherClosedError, BatchReport, QueueFullError


def tensor(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((1, 2, 2), value, dtype=np.uint8)


class Gate:
    """A network whose answer is the first pixel over 255, and which can be held shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.batches: list[list[int]] = []

    def run(self, tensors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert self.open.wait(5)
        self.batches.append(tensors[:, 0, 0, 0].tolist())
        if 13 in self.batches[-1]:
            raise RuntimeError("the network stumbles over 13")
        return (tensors[:, 0, 0, 0] / np.float32(255)).astype(np.float32)


async def started(gate: Gate, most: int = 8, queue: int = 64, **kwargs: Any) -> Batcher:
    batcher = Batcher(gate.run, most, queue, **kwargs)
    batcher.start()
    return batcher


async def blocked(gate: Gate, batcher: Batcher) -> asyncio.Task[float]:
    """Shut the gate behind one image, so that all that follow must wait."""
    gate.open.clear()
    first = asyncio.create_task(batcher.submit(tensor(0)))
    while not first.done() and batcher.waiting == 0:
        await asyncio.sleep(0)
    while batcher.waiting:
        await asyncio.sleep(0.001)
    return first


async def queued(batcher: Batcher, *work: Coroutine[Any, Any, float]) -> list[asyncio.Task[float]]:
    tasks = [asyncio.create_task(item) for item in work]
    await asyncio.sleep(0.01)
    return tasks


def test_each_caller_gets_its_own_answer() -> None:
    """A hundred images in one go come back to those who sent them, in warmed batch sizes only."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate, queue=100)
        answers = await asyncio.gather(*(batcher.submit(tensor(v)) for v in range(20, 120)))
        assert answers == pytest.approx([v / 255 for v in range(20, 120)])
        assert {len(batch) for batch in gate.batches} <= set(Batcher.sizes(8)) == {1, 2, 4, 8}
        assert max(map(len, gate.batches)) == 8
        await batcher.close()

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """Beyond `max_queue_images` a caller is told so, and those inside are still answered."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate, queue=2)
        first = await blocked(gate, batcher)
        inside = await queued(batcher, *(batcher.submit(tensor(v)) for v in (1, 2)))
        with pytest.raises(QueueFullError) as refusal:
            await batcher.submit(tensor(3))
        assert refusal.value.retry_after_seconds >= 1
        gate.open.set()
        assert await asyncio.gather(first, *inside) == pytest.approx([0, 1 / 255, 2 / 255])
        await batcher.close()

    asyncio.run(scenario())


def test_patient_work_waits_for_room() -> None:
    """`submit_when_free` is never refused, however small the queue."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate, most=2, queue=2)
        work = [batcher.submit_when_free(tensor(v)) for v in range(20, 60)]
        assert await asyncio.gather(*work) == pytest.approx([v / 255 for v in range(20, 60)])
        await batcher.close()

    asyncio.run(scenario())


def test_an_image_whose_client_has_gone_never_reaches_the_network() -> None:
    """A cancelled caller is dropped before the model sees its image; its peers are answered."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate)
        first = await blocked(gate, batcher)
        gone, peer = await queued(batcher, *(batcher.submit(tensor(v)) for v in (77, 78)))
        gone.cancel()
        gate.open.set()
        assert await asyncio.gather(first, peer) == pytest.approx([0, 78 / 255])
        assert 77 not in [value for batch in gate.batches for value in batch]
        await batcher.close()

    asyncio.run(scenario())


def test_a_client_that_goes_while_its_batch_runs_harms_nobody() -> None:
    """Cancellation in the middle of a batch leaves the loop and the next image alone."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate)
        running = await blocked(gate, batcher)
        running.cancel()
        gate.open.set()
        assert await batcher.submit(tensor(5)) == pytest.approx(5 / 255)
        await batcher.close()

    asyncio.run(scenario())


def test_the_loop_survives_any_exception() -> None:
    """A batch that fails tells each of its callers; the next one is answered."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate)
        with pytest.raises(RuntimeError, match="stumbles over 13"):
            await batcher.submit(tensor(13))
        first = await blocked(gate, batcher)
        doomed = await queued(batcher, *(batcher.submit(tensor(v)) for v in (13, 14)))
        doomed[0].cancel()
        gone = await queued(batcher, batcher.submit(tensor(15)))
        gate.open.set()
        assert await first == 0
        assert await doomed[1] == pytest.approx(14 / 255)
        assert await gone[0] == pytest.approx(15 / 255)
        assert batcher.alive
        await batcher.close()

    asyncio.run(scenario())


def test_a_failing_batch_spares_callers_that_have_gone() -> None:
    """An exception is not set on a future that was cancelled meanwhile."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate)
        gate.open.clear()
        running = asyncio.create_task(batcher.submit(tensor(13)))
        await asyncio.sleep(0.02)
        running.cancel()
        gate.open.set()
        assert await batcher.submit(tensor(1)) == pytest.approx(1 / 255)
        await batcher.close()

    asyncio.run(scenario())


def test_closing_answers_all_that_wait_and_takes_no_more() -> None:
    """Nothing accepted is lost when the service stops; what comes later is told so."""

    async def scenario() -> None:
        gate = Gate()
        batcher = await started(gate, queue=2)
        first = await blocked(gate, batcher)
        inside = await queued(batcher, *(batcher.submit(tensor(v)) for v in (1, 2)))
        patient = await queued(batcher, batcher.submit_when_free(tensor(3)))
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.01)
        assert not batcher.alive
        with pytest.raises(BatcherClosedError):
            await batcher.submit(tensor(4))
        with pytest.raises(BatcherClosedError):
            await patient[0]
        gate.open.set()
        assert await asyncio.gather(first, *inside) == pytest.approx([0, 1 / 255, 2 / 255])
        await closing

    asyncio.run(scenario())


def test_every_batch_is_reported() -> None:
    """The reports add up to all images, each with its PFI, its wait and the batch's time."""

    async def scenario() -> list[BatchReport]:
        reports: list[BatchReport] = []
        batcher = await started(Gate(), observe=reports.append)
        await asyncio.gather(*(batcher.submit(tensor(v)) for v in range(20, 30)))
        await batcher.close()
        return reports

    reports = asyncio.run(scenario())
    assert sorted(pfi for report in reports for pfi in report.pfi) == pytest.approx(
        [v / 255 for v in range(20, 30)]
    )
    for report in reports:
        assert len(report.waited_seconds) == len(report.pfi)
        assert min(report.waited_seconds) >= 0
        assert report.run_seconds > 0


def test_it_can_be_closed_before_it_was_started() -> None:
    """A start-up that fails half-way can still clean up."""

    async def scenario() -> None:
        await Batcher(Gate().run, 8, 8).close()

    asyncio.run(scenario())
