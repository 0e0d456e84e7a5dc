"""The service's side of a decode worker: sends files, receives radiographs, replaces the worker."""

from __future__ import annotations

import logging
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from model_store import PreprocessSpec
from service.imaging import DecoderFailedError, Grey, Radiograph
from service.inference.decode_messages import (
    MAX_ANSWER_BYTES,
    READY,
    SHARED_BYTES,
    TASK,
    Answer,
    Failure,
    Job,
    Limits,
    Read,
    Reason,
)
from service.inference.fork_server import FORK_SERVER, PATIENCE_SECONDS, ForkServerError
from service.inference.lanes import DECODE_NICENESS, Lane

if sys.platform != "win32":  # there are no decode workers on Windows
    import fcntl
    import resource

Buffer = bytes | bytearray | memoryview

READ_RADIOGRAPH = "service.imaging:read_radiograph"
# The CPU limit does not depend on the load. The slowest accepted file, a JPEG 2000 of 40 megapixels
# that must be decoded whole, takes 4 to 8 s of a 2.5 GHz core, and 420 MB. The wall-clock limit
# ends decoders that block. It is less than STUCK_SECONDS, and long enough for an interactive file
# that gets a fifth of a CPU
MEMORY_BYTES = 600 * 2**20
LIMITS: dict[Lane, Limits] = {
    "interactive": Limits(10, 45, MEMORY_BYTES),
    "backfill": Limits(10, 450, MEMORY_BYTES),
}
# A file that used more than this share of a CPU between two checks gets a lower priority, so that a
# slow or endless file does not delay others
LOOK_SECONDS = 0.25
SLOW_SHARE = 0.5
SLOW_NICENESS = 10
# After this time beyond its limit, a worker that has not ended itself is killed
BEYOND_SECONDS = 2.0
SAID: Final[dict[Reason, str]] = {
    "crashed": "its decoder crashed",
    "deadline": "its decoder took too long",
    "memory": "its decoder needed too much memory",
}

LOG = logging.getLogger(__name__)


class SharedMemory:
    """Anonymous memory shared with a worker: not on a disk, and not in /dev/shm, which is small.

    Its size is sealed, because the service would crash at its next access if a worker truncated it.
    It is smaller than SHARED_BYTES if the process's file size limit is.
    """

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        self._size = SHARED_BYTES if limit == resource.RLIM_INFINITY else min(limit, SHARED_BYTES)
        self.descriptor = os.memfd_create("cxrview-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self._size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        self._bytes = np.frombuffer(mmap.mmap(self.descriptor, self._size), np.uint8)

    def send(self, data: Buffer, connection: socket.socket, *, displayed: bool = False) -> None:
        """Give a worker a copy of a file."""
        task = TASK.pack(len(data), displayed)
        if len(data) <= self._size:
            if len(data):  # NumPy refuses an empty buffer
                np.copyto(self._bytes[: len(data)], np.frombuffer(data, np.uint8))
            connection.send(task)
            return
        large = os.memfd_create("cxrview-large")
        try:
            at = 0
            while at < len(data):
                at += os.pwrite(large, memoryview(data)[at:], at)
            socket.send_fds(connection, [task], [large])
        finally:
            os.close(large)

    def pixels(self, rows: int, columns: int, start: int = 0) -> Grey:
        """A copy of the (rows, columns) that a worker has written."""
        return self._bytes[start : start + rows * columns].reshape(rows, columns).copy()

    def close(self) -> None:
        """Free the memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor, self._bytes = -1, self._bytes[:0].copy()


class Decoder:
    """A worker process, for use by one thread at a time.

    Args:
        spec: The model's preprocessing.
        lane: Decides the limits and the priority.
        decode: module:function with the signature of `read_radiograph`.
        limits: Limits of one file; None: those of the lane.
        observe: Called when a file has ended the worker.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        lane: Lane,
        decode: str = READ_RADIOGRAPH,
        limits: Limits | None = None,
        observe: Callable[[Reason], None] = lambda _: None,
    ) -> None:
        self._size = spec.size
        niceness = DECODE_NICENESS[lane]
        self._job = Job(decode=decode, spec=spec, niceness=niceness, limits=limits or LIMITS[lane])
        self._observe = observe
        self._connection: socket.socket | None = None
        self._name = self._process = -1
        self._slow = False
        self._memory = SharedMemory()

    def start(self) -> None:
        """Start the worker, if there is none, and wait until it is ready.

        Raises:
            ForkServerError: The worker cannot be started.
        """
        if self._connection is not None:
            return
        self._slow = False
        connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection = connection
        connection.settimeout(PATIENCE_SECONDS)
        try:
            with theirs:
                self._name = FORK_SERVER.fork(self._job, theirs, self._memory.descriptor)
            (self._process,) = READY.unpack(connection.recv(READY.size))
        except (OSError, struct.error, ForkServerError) as error:
            self._end()
            raise ForkServerError("no decode worker can be started") from error

    def send(self, data: Buffer, *, displayed: bool = False) -> None:
        """Send a copy of a file to the worker.

        Args:
            data: The file.
            displayed: The radiograph must have a display.

        Raises:
            ForkServerError: There is no worker, and none can be started.
        """
        if self._slow:  # a process may not raise its priority again
            self._end()
        for _ in range(2):  # the worker may have died since; that is not this file's fault
            self.start()
            assert self._connection is not None
            try:
                self._memory.send(data, self._connection, displayed=displayed)
            except ConnectionError:
                self._end()
            else:
                return
        raise ForkServerError("decode workers die as soon as they are started")

    def receive(self) -> Radiograph:
        """The radiograph of the file that was sent.

        Raises:
            DecoderFailedError: The file has ended the worker; `start` and `send` start a new one.
            ImageError: As `read_radiograph`.
        """
        said = self._said()
        answer = Answer()
        try:
            answer = Answer.model_validate_json(said or b"{}")
            if answer.read is not None:
                return self._radiograph(answer.read)
        except ValueError:  # an invalid answer: the worker is ended
            pass
        if answer.refusal is not None and (error := answer.refusal.error()) is not None:
            raise error
        reason = self._reason(said, answer.failed)
        self._observe(reason)
        raise DecoderFailedError(SAID[reason])

    def _radiograph(self, read: Read) -> Radiograph:
        side, shape = self._size, read.display
        tensor = self._memory.pixels(side, side)[np.newaxis]
        if shape is None:
            return read.radiograph(tensor)
        pixels = self._memory.pixels(shape.rows, shape.columns, side**2)
        return read.radiograph(tensor, shape.display(pixels))

    def _said(self) -> bytes | None:
        """The worker's message; empty if the worker has died; None after the time limit."""
        assert self._connection is not None
        until = time.monotonic() + self._job.limits.wall_seconds + BEYOND_SECONDS
        self._connection.settimeout(LOOK_SECONDS)
        spent: float | None = None
        while time.monotonic() < until:
            try:
                return self._connection.recv(MAX_ANSWER_BYTES)
            except TimeoutError:
                before, spent = spent, self._cpu_seconds()
                if before is not None and spent - before > SLOW_SHARE * LOOK_SECONDS:
                    self._yield()
            except ConnectionError:
                return b""
        return None

    def _cpu_seconds(self) -> float:
        """CPU time of the worker, 0 if it has died; see proc_pid_stat(5)."""
        try:
            said = Path(f"/proc/{self._process}/stat").read_text()
        except OSError:
            return 0
        user, system = said.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _yield(self) -> None:
        """Lower the worker's priority."""
        self._slow = True
        with suppress(OSError):  # it has ended meanwhile
            niceness = os.getpriority(os.PRIO_PROCESS, self._process)
            os.setpriority(os.PRIO_PROCESS, self._process, max(niceness, SLOW_NICENESS))

    def _reason(self, said: bytes | None, failed: Failure | None) -> Reason:
        """End the worker, and return why it failed."""
        code = self._end()
        if said is None:
            return "deadline"
        if failed is not None:
            LOG.error("a decoder failed: %s", failed.where)
            return failed.reason
        if said or code is None:  # an invalid answer, or an unknown exit code
            return "crashed"
        if -code in {signal.SIGPROF, signal.SIGALRM}:
            return "deadline"
        # Only the kernel's OOM killer sends SIGKILL before the worker is ended here
        return "memory" if -code == signal.SIGKILL else "crashed"

    def close(self) -> None:
        """End the worker; blocks until then."""
        self._end()
        self._memory.close()

    def _end(self) -> int | None:
        """Kill the worker and wait for it; returns its exit code, or None if it is unknown."""
        if self._connection is None:
            return None
        self._connection.close()
        self._connection = None
        name, self._name = self._name, -1
        return None if name < 0 else FORK_SERVER.end(name)
