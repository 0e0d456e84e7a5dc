"""The pipeline from a file's bytes to its prediction: decode workers and a batcher."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Lock, Thread
from traceback import clear_frames
from typing import Literal

from model_store import Prediction, PreprocessSpec
from service.imaging import DecoderFailedError, Radiograph, is_uncompressed, read_radiograph
from service.inference.batcher import Batcher, BatcherClosedError
from service.inference.decode_messages import Limits, Reason
from service.inference.decoder import LIMITS, READ_RADIOGRAPH, Decoder
from service.inference.fork_server import FORK_SERVER, ForkServerError
from service.inference.lanes import (
    DECODE_NICENESS,
    LANES,
    STUCK_SECONDS,
    Lane,
    lower_priority,
)

# The longest that backfill waits with its next image while interactive images are in progress, so
# that it never stops
MOST_PATIENCE_SECONDS = 0.25

# Other systems lack anonymous shared memory with seals, or limits that the kernel enforces
ISOLATED = sys.platform == "linux"

LOG = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview
Stage = Literal["wait_decode", "decode"]


class Once:
    """Calls a function once, and drops it."""

    def __init__(self, function: Callable[[Future[Prediction]], object]) -> None:
        self._function: Callable[[Future[Prediction]], object] | None = function

    def __call__(self, future: Future[Prediction]) -> None:
        """The one call."""
        function, self._function = self._function, None
        assert function is not None  # a future calls each callback once
        function(future)


class Answer(Future[Prediction]):
    """Future for a prediction, with its time. Drops its callbacks after calling them.

    A plain Future keeps its callbacks, and these refer to the image that owns it: a reference cycle
    of some forty objects. Collecting the cycles of thousands of images stopped the process for up
    to 200 ms. No callback may refer to the image, because an image that is refused after it was
    read has no answer, and would keep its bytes until the next collection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0  # by `time.perf_counter`

    def set_result(self, result: Prediction) -> None:
        """As in `Future`."""
        self.at = time.perf_counter()
        super().set_result(result)

    def add_done_callback(self, fn: Callable[[Future[Prediction]], object]) -> None:
        """As in `Future`, but `fn` is dropped after its call."""
        super().add_done_callback(Once(fn))


@dataclass(eq=False)
class Image:
    """One file, or a radiograph that was read already, and the future for its answer.

    Cancelling `answer` removes it at any stage: it is then neither decoded nor run.
    """

    data: Buffer | None  # None once it was decoded, or sent to a worker
    lane: Lane
    answer: Answer = field(default_factory=Answer)
    radiograph: Radiograph | None = None  # None until decoded
    displayed: bool = False  # whether the radiograph gets a display
    since: float = field(default_factory=time.perf_counter)


def let_go(error: BaseException | None) -> None:
    """Clear the local variables of the finished frames of an error and of its context.

    The caller holds the error, the error its frames, and these the file's bytes. They would be
    freed only by the next garbage collection, and bad files of some megabytes each would fill the
    memory before that. The line numbers of the traceback stay.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__context__


def prepare() -> None:
    """Start the fork server in the background; it takes a while, so call this early."""
    if ISOLATED:
        FORK_SERVER.prepare()


class Pipeline:
    """Decode threads with their worker processes, and the batcher that runs the decoded images.

    Each thread sends files to its own worker process, one by one. A file that makes its decoder
    crash, hang or use too much memory fails alone, and its worker is replaced. Uncompressed grey
    pixels need no decoder, and copying them would take longer, so the thread reads them itself.

    Each lane has its own threads and workers. Those of backfill have the lowest priority, so that
    an archive only uses CPU time that interactive images leave.

    Args:
        spec: Preprocessing of the batcher's model.
        batcher: Not started; the pipeline starts and closes it.
        workers: The number of decode threads, and of worker processes, of each lane.
        observe: Called with the seconds of each image in each stage, in a decode thread.
        observe_failure: Called when a file has ended a worker.
        decode: module:function that workers call, with the signature of `read_radiograph`.
        limits: Limits of one file, by lane.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        batcher: Batcher,
        workers: int,
        *,
        observe: Callable[[Stage, float], None] = lambda _, __: None,
        observe_failure: Callable[[Reason], None] = lambda _: None,
        decode: str = READ_RADIOGRAPH,
        limits: Mapping[Lane, Limits] = LIMITS,
    ) -> None:
        self._spec = spec
        self._workers = workers
        self._batcher = batcher
        self._observe = observe
        self._closing = False
        self._files: dict[Lane, SimpleQueue[Image | None]] = {lane: SimpleQueue() for lane in LANES}
        self._decoding: dict[Image, float] = {}  # start of decoding by `time.perf_counter`
        self._interactive = 0  # interactive images without an answer
        self._quiet = Event()  # set while there are no such images
        self._quiet.set()
        self._lock = Lock()
        self._decoders = [
            (lane, Decoder(spec, lane, decode, limits[lane], observe_failure) if ISOLATED else None)
            for lane in LANES
            for _ in range(workers)
        ]
        self._threads = [
            Thread(target=self._work, args=pair, name=f"decode-{pair[0]}", daemon=True)
            for pair in self._decoders
        ]

    @property
    def alive(self) -> bool:
        """Whether images are accepted and answered."""
        decoding = all(thread.is_alive() for thread in self._threads)
        return not self._closing and decoding and self._batcher.alive

    def stuck(self, limits: Mapping[Lane, float] = STUCK_SECONDS) -> list[str]:
        """Reasons why only a restart helps: dead threads, stuck batches or files; not load.

        Empty while the pipeline is closing; then the caller limits the time.

        Args:
            limits: By lane, the seconds after which a batch, or a file in its decoder, counts as
                stuck.
        """
        if self._closing:
            return []
        now = time.perf_counter()
        return [
            *(
                "a thread that decodes has ended"
                for thread in self._threads
                if thread.ident is not None and not thread.is_alive()  # it was started
            ),
            *(
                f"a file of the lane {image.lane} has been in its decoder for {now - since:.0f} s"
                for image, since in self._decoding.copy().items()  # threads change it
                if now - since > limits[image.lane]
            ),
            *self._batcher.stuck(limits),
        ]

    def waiting(self, lane: Lane) -> int:
        """The number of files of a lane that wait for a decode thread."""
        return self._files[lane].qsize()

    def decoding(self) -> int:
        """The number of files that are being decoded."""
        return len(self._decoding)

    def start(self) -> None:
        """Start the threads; workers of backfill start with its first images.

        Raises:
            ForkServerError: Decode workers cannot be started.
        """
        for lane, decoder in self._decoders:
            if decoder is not None and lane == "interactive":
                decoder.start()
        self._batcher.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Accept no more images, answer all accepted ones, and stop; blocks until then."""
        with self._lock:
            self._closing = True
            for lane in LANES:
                for _ in range(self._workers):
                    self._files[lane].put(None)
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()
        for _, decoder in self._decoders:
            if decoder is not None:
                decoder.close()
        self._batcher.close()

    def submit(self, image: Image) -> None:
        """Queue one image; its `answer` gets the prediction, an ImageError, or the network's error.

        Raises:
            BatcherClosedError: The service is stopping.
        """
        with self._lock:
            if self._closing:
                raise BatcherClosedError("the service is stopping")
            if image.lane == "interactive":
                self._interactive += 1
                self._quiet.clear()
            self._files[image.lane].put(image)
        if image.lane == "interactive":
            image.answer.add_done_callback(self._one_less)

    def _one_less(self, _: Future[Prediction]) -> None:
        with self._lock:
            self._interactive -= 1
            if not self._interactive:
                self._quiet.set()

    def _work(self, lane: Lane, decoder: Decoder | None) -> None:
        lower_priority(DECODE_NICENESS[lane])
        while (image := self._files[lane].get()) is not None:
            if lane == "backfill":
                # A low priority is not enough: a thread that holds the GIL and gets no CPU time
                # blocks all other threads
                self._quiet.wait(MOST_PATIENCE_SECONDS)
            if image.answer.cancelled():
                continue
            self._decoding[image] = time.perf_counter()
            try:
                self._decode(image, decoder)
            except Exception as error:  # noqa: BLE001  # passed to the image's caller; the thread goes on
                image.data = None
                let_go(error)
                with suppress(InvalidStateError):  # its caller has cancelled it meanwhile
                    image.answer.set_exception(error)
                if decoder is not None and isinstance(error, DecoderFailedError):
                    _replace(decoder)
            del self._decoding[image]

    def _decode(self, image: Image, decoder: Decoder | None) -> None:
        start = time.perf_counter()
        self._observe("wait_decode", start - image.since)
        if image.data is None:
            assert image.radiograph is not None
        elif decoder is None or is_uncompressed(image.data):
            image.radiograph = read_radiograph(image.data, self._spec, displayed=image.displayed)
            image.data = None  # free the bytes, which may be a hundred times the tensor
        else:
            decoder.send(image.data, displayed=image.displayed)
            image.data = None  # the worker has a copy
            image.radiograph = decoder.receive()
        self._observe("decode", time.perf_counter() - start)
        # If every thread has more work, the batch may wait for it
        more = self.waiting(image.lane) >= self._workers
        self._batcher.submit(image.radiograph.tensor, image.lane, image.answer, more)


def _replace(decoder: Decoder) -> None:
    """Start a new worker now, so that the next file does not wait for it."""
    try:
        decoder.start()
    except ForkServerError:
        LOG.exception("a decode worker is missing")
