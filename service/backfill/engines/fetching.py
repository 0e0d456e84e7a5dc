"""Threads that read images by their locators, submit them to a pipeline, and make their rows."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from traceback import format_tb

from model_store import ModelCard, Prediction
from service.backfill.engines.in_flight import InFlightLimiter
from service.backfill.ledger.jobs import Item, Lease
from service.backfill.results.outcomes import row_of, row_of_error
from service.backfill.results.rows import ItemError, Names, Rendered, Row, Source
from service.imaging import ImageError, read_sop_instance_uid, sniff
from service.inference import BatcherClosedError, Buffer, Image, Lane, PredictionError

LOOK_SECONDS = 0.2  # how often waiting threads check whether to stop
# Answers are collected for so long: waking a thread for each costs more than handling it
GATHER_SECONDS = 0.02

LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Chunk:
    """A lease, and the rows of its images so far."""

    lease: Lease
    missing: int  # images that are neither answered nor given back
    renewed: float = field(default_factory=time.monotonic)
    rows: list[tuple[Item, Row]] = field(default_factory=list)


@dataclass(frozen=True)
class Answered:
    """One image of a chunk with its row; None: it has no outcome, and is given back."""

    chunk: Chunk
    item: Item
    row: Row | None


class Halt:
    """A flag that work stops, with the error that caused it, if any."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._event = Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def now(self, error: Exception | None = None) -> None:
        """Stop; only the first error is kept, because later ones come from stopping."""
        if not self:
            self.error = error
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Sleep, but return at once when work stops."""
        self._event.wait(seconds)


class Fetchers:
    """Threads that read images, submit them, and queue an `Answered` for each.

    Args:
        source: The archive.
        submit: Submits an image, as `Pipeline.submit`.
        card: The card of the pipeline's model.
        halt: When it is set, remaining images are given back.
        lane: `backfill` if interactive requests share the pipeline, else `interactive`.
        threads: The number of threads.
        inside: The most images that were read and have no answer yet.
        held_bytes: The most bytes of these images; each thread holds one more while it reads.
    """

    def __init__(
        self,
        source: Source,
        submit: Callable[[Image], None],
        card: ModelCard,
        halt: Halt,
        *,
        lane: Lane,
        threads: int,
        inside: int,
        held_bytes: int,
    ) -> None:
        self._answers: SimpleQueue[Answered] = SimpleQueue()
        self._source, self._submit, self._card, self._halt = source, submit, card, halt
        self._lane: Lane = lane
        self._todo: SimpleQueue[tuple[Chunk, Item] | None] = SimpleQueue()
        self._limiter = InFlightLimiter(inside, held_bytes)
        self._threads = [
            Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def put(self, chunk: Chunk) -> None:
        """Queue all images of a chunk."""
        for item in chunk.lease.items:
            self._todo.put((chunk, item))

    def answered(self) -> list[Answered]:
        """The images answered since the last call; waits up to `LOOK_SECONDS` for the first."""
        found: list[Answered] = []
        with suppress(Empty):
            found.append(self._answers.get(timeout=LOOK_SECONDS))
            time.sleep(GATHER_SECONDS)
            while True:
                found.append(self._answers.get_nowait())
        return found

    def close(self) -> None:
        """Stop the threads when all queued images are fetched or given back."""
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            chunk, item = task
            if not self._limiter.enter(lambda: bool(self._halt)):
                self._answers.put(Answered(chunk, item, None))
                continue
            try:
                self._fetch(chunk, item)
            except (ItemError, ImageError) as error:
                self._settle(chunk, item, self._refused(item, error))
            except Exception as error:  # noqa: BLE001  # the engine raises it from `run`
                self._halt.now(None if isinstance(error, BatcherClosedError) else error)
                self._settle(chunk, item, None)

    def _fetch(self, chunk: Chunk, item: Item) -> None:
        begin = time.perf_counter()
        data, rendered = _opened(self._source.read(item.locator))
        size = len(data)
        # Without a valid SOP Instance UID, the file's hash identifies the image
        named = sniff(data) == "dicom" and read_sop_instance_uid(data)
        sha256 = None if named else hashlib.sha256(data).hexdigest()
        # After all that may refuse the file, which `_work` settles as one that holds no bytes
        if not self._limiter.hold(size, lambda: bool(self._halt)):
            self._settle(chunk, item, None)
            return
        image = Image(data, self._lane)
        del data  # so that the bytes are freed once they are decoded

        def row(prediction: Prediction) -> Row:
            assert image.radiograph is not None  # there is no answer without it
            seconds = time.perf_counter() - begin
            return row_of(
                item.locator,
                image.radiograph,
                prediction,
                self._card,
                size=size,
                sha256=sha256,
                seconds=seconds,
                attempts=item.attempts,
                rendered=rendered,
            )

        image.answer.add_done_callback(partial(self._answer, chunk, item, image, row, size))
        self._submit(image)

    def _answer(
        self,
        chunk: Chunk,
        item: Item,
        image: Image,
        row: Callable[[Prediction], Row],
        size: int,
        _: object,
    ) -> None:
        """Called in a thread of the pipeline, so it must be quick.

        A future only logs what its callback raises, so an image must be settled here in any case.
        """
        found: Row | None = None
        try:
            found = self._outcome(item, image.answer, row, size)
        except Exception as error:  # noqa: BLE001  # the engine raises it from `run`
            self._halt.now(None if isinstance(error, BatcherClosedError) else error)
        finally:
            self._settle(chunk, item, found, size)

    def _outcome(
        self, item: Item, answer: Future[Prediction], row: Callable[[Prediction], Row], size: int
    ) -> Row:
        """The row of one image.

        Raises:
            Exception: An error that is not about this image, for example of the network.
        """
        if answer.cancelled():
            raise BatcherClosedError
        error = answer.exception()
        if error is None:
            try:
                return row(answer.result())
            except Exception as defect:  # noqa: BLE001  # of ours, at this image alone
                error = defect
        elif not isinstance(error, (ImageError, PredictionError)):
            assert isinstance(error, Exception)
            raise error
        if not isinstance(error, ImageError):
            where = "".join(format_tb(error.__traceback__))  # its message may quote the file
            LOG.error("an image failed by %s", f"{type(error).__name__}\n{where}".strip())
        return self._refused(item, error, size)

    def _refused(self, item: Item, error: Exception, size: int | None = None) -> Row:
        row = row_of_error(item.locator, error, size=size, attempts=item.attempts)
        return of_model(row, self._card)

    def _settle(self, chunk: Chunk, item: Item, row: Row | None, held: int = 0) -> None:
        self._limiter.leave(held)
        if row is not None:
            row = replace(row, finished=datetime.now(UTC))
        self._answers.put(Answered(chunk, item, row))


def _opened(found: Buffer | Rendered) -> tuple[Buffer, Names | None]:
    """The bytes, and the instance that they are a rendered picture of; None: the file itself."""
    return (found.data, found.of) if isinstance(found, Rendered) else (found, None)


def of_model(row: Row, card: ModelCard) -> Row:
    """The row of an image that was not classified, with the model of the job."""
    model = f"{card.name}/{card.version}"
    return replace(row, model=model, model_sha256=card.model_sha256)
