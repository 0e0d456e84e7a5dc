"""A decode worker, as the service sees it: files in, radiographs out, and a new one if it dies."""

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
from service.imaging import DecoderFailedError, Radiograph, Tensor
from service.inference.decode_messages import (
    MAX_ANSWER_BYTES,
    READY,
    SHARED_BYTES,
    TASK,
    Answer,
    Failure,
    Job,
    Limits,
    Reason,
)
from service.inference.fork_server import FORK_SERVER, PATIENCE_SECONDS, ForkServerError
from service.inference.lanes import DECODE_NICENESS, Lane

if sys.platform != "win32":  # where nothing is isolated
    import fcntl
    import resource

Buffer = bytes | bytearray | memoryview

READ_RADIOGRAPH = "service.imaging:read_radiograph"
# CPU seconds, so that no file fails because others are busy: the slowest that is accepted, 40
# megapixels of JPEG 2000 that must be decoded whole, takes 4 to 8 s of a 2.5 GHz core. The wall
# clock ends what waits for ever; it leaves a file that yields to others a fifth of a CPU, and is
# less than STUCK_SECONDS. The same file takes 420 MB
MEMORY_BYTES = 600 * 2**20
LIMITS: dict[Lane, Limits] = {
    "interactive": Limits(10, 45, MEMORY_BYTES),
    "backfill": Limits(10, 450, MEMORY_BYTES),
}
# A file that still has so much of a CPU from one look to the next yields to all others, as endless
# ones do until they are ended
LOOK_SECONDS = 0.25
SLOW_SHARE = 0.5
SLOW_NICENESS = 10
# By then a worker has ended itself, unless the file has changed that
BEYOND_SECONDS = 2.0
SAID: Final[dict[Reason, str]] = {
    "crashed": "its decoder crashed",
    "deadline": "its decoder took too long",
    "memory": "its decoder needed too much memory",
}

LOG = logging.getLogger(__name__)


class SharedMemory:
    """Anonymous memory that a worker has as well: on no disk, and not of /dev/shm, which is small.

    Its size is sealed: a worker that cuts it would kill the service at its next access. It is less
    than SHARED_BYTES where this process may write no file of that size.
    """

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        self._size = SHARED_BYTES if limit == resource.RLIM_INFINITY else min(limit, SHARED_BYTES)
        self.descriptor = os.memfd_create("cxrview-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, self._size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        self._bytes = np.frombuffer(mmap.mmap(self.descriptor, self._size), np.uint8)

    def send(self, data: Buffer, connection: socket.socket) -> None:
        """Give a worker a copy of a file."""
        task = TASK.pack(len(data))
        if len(data) <= self._size:
            if len(data):  # which NumPy asks for
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

    def tensor(self, side: int) -> Tensor:
        """A copy of what a worker has put there."""
        return self._bytes[: side**2].reshape(1, side, side).copy()

    def close(self) -> None:
        """Let go of it; not usable afterwards."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor, self._bytes = -1, self._bytes[:0].copy()


class Decoder:
    """A worker process, for one thread at a time.

    Args:
        spec: Of the model.
        lane: Whose limits and priority it has.
        decode: module:function that it calls, as `read_radiograph`.
        limits: Of one file.
        observe: Called when a worker was ended by a file.
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
            ForkServerError: It cannot be started.
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

    def send(self, data: Buffer) -> None:
        """Give it a file, which is copied: afterwards the caller need not keep it.

        Raises:
            ForkServerError: There is no worker, and none can be started.
        """
        if self._slow:  # it cannot have its priority again
            self._end()
        for _ in range(2):  # it may have died meanwhile, which is not this file's fault
            self.start()
            assert self._connection is not None
            try:
                self._memory.send(data, self._connection)
            except ConnectionError:
                self._end()
            else:
                return
        raise ForkServerError("decode workers die as soon as they are started")

    def receive(self) -> Radiograph:
        """What became of the file.

        Raises:
            DecoderFailedError: The worker had to be ended. `start` replaces it, as does `send`.
            ImageError: As `read_radiograph`.
        """
        said = self._said()
        answer = Answer()
        try:
            answer = Answer.model_validate_json(said or b"{}")
            if answer.read is not None:
                return answer.read.radiograph(self._memory.tensor(self._size))
        except ValueError:  # nonsense: it is not believed, and ended
            pass
        if answer.refusal is not None and (error := answer.refusal.error()) is not None:
            raise error
        reason = self._reason(said, answer.failed)
        self._observe(reason)
        raise DecoderFailedError(SAID[reason])

    def _said(self) -> bytes | None:
        """The worker's message, empty if it is gone; None if there is none in time."""
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
        """That the worker has used, 0 if it is gone; see proc_pid_stat(5)."""
        try:
            said = Path(f"/proc/{self._process}/stat").read_text()
        except OSError:
            return 0
        user, system = said.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _yield(self) -> None:
        """Let all others go before this file, from now on."""
        self._slow = True
        with suppress(OSError):  # it has ended by itself
            niceness = os.getpriority(os.PRIO_PROCESS, self._process)
            os.setpriority(os.PRIO_PROCESS, self._process, max(niceness, SLOW_NICENESS))

    def _reason(self, said: bytes | None, failed: Failure | None) -> Reason:
        """Why there is no worker any more, which is ended if there is one."""
        code = self._end()
        if said is None:
            return "deadline"
        if failed is not None:
            LOG.error("a decoder failed: %s", failed.where)
            return failed.reason
        if said or code is None:  # nonsense, or its exit code is not known
            return "crashed"
        if -code in {signal.SIGPROF, signal.SIGALRM}:
            return "deadline"
        # By the kernel: nothing else kills a worker before it is ended here
        return "memory" if -code == signal.SIGKILL else "crashed"

    def close(self) -> None:
        """End the worker; blocks until then."""
        self._end()
        self._memory.close()

    def _end(self) -> int | None:
        """Kill the worker and wait for it; its exit code, if there is one to be known."""
        if self._connection is None:
            return None
        self._connection.close()
        self._connection = None
        name, self._name = self._name, -1
        return None if name < 0 else FORK_SERVER.end(name)
