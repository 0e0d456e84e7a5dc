"""The decode worker: a process that decodes files for the service, and may crash without harm.

It imports only the decoders, neither ONNX Runtime nor the web framework.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

from model_store import PreprocessSpec
from service.imaging import ImageError, Radiograph
from service.inference.decode_messages import (
    READY,
    TASK,
    Answer,
    Failure,
    Job,
    Limits,
    Read,
    Refusal,
)
from service.inference.lanes import lower_priority

if sys.platform != "win32":  # there are no decode workers on Windows
    import resource


class Decode(Protocol):
    """The signature of `read_radiograph`."""

    def __call__(
        self, data: memoryview, spec: PreprocessSpec, *, displayed: bool = False
    ) -> Radiograph:
        """Decode one file."""
        ...


class Task(NamedTuple):
    """A file, and whether its display is asked for."""

    data: memoryview
    displayed: bool


# The kernel kills workers first when memory runs out
OOM_SCORE = 500
# The largest file that a worker may write: a tensor and a display, in the shared memory
MAX_WRITTEN_BYTES = 2**22


def work(connection: socket.socket, memory: int, job: Job) -> None:
    """Decode files one by one until the connection is closed, or a file ends the worker.

    Args:
        connection: Receives the length of each file, and sends an Answer.
        memory: File descriptor of the shared memory, which holds the file, and then its tensor.
        job: The worker's configuration.
    """
    module, _, name = job.decode.partition(":")
    decode: Decode = getattr(import_module(module), name)
    confine()
    lower_priority(job.niceness)
    used = _address_space()
    connection.send(READY.pack(os.getpid()))
    shared = _mapped(memory, os.fstat(memory).st_size)
    while (task := _received(connection, shared)) is not None:
        with _limited(job.limits, used + len(task.data)):
            answer = answer_to(task, memory, decode, job.spec)
        connection.send(answer.model_dump_json().encode())
        if answer.failed:
            return


def confine() -> None:
    """Restrict this process against hostile files: no core dump, small files, a high OOM score."""
    _lower(resource.RLIMIT_CORE, 0)  # a core file would hold the image
    _lower(resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES)
    with suppress(OSError):  # for example if /proc is read-only
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def answer_to(task: Task, memory: int, decode: Decode, spec: PreprocessSpec) -> Answer:
    """Decode one file; its tensor is written to the shared memory, and its display behind it."""
    try:
        radiograph = decode(task.data, spec, displayed=task.displayed)
        os.pwrite(memory, radiograph.tensor.tobytes(), 0)
        if radiograph.display is not None:
            os.pwrite(memory, radiograph.display.pixels.tobytes(), radiograph.tensor.size)
        return Answer(read=Read.of(radiograph))
    except ImageError as error:
        return Answer(refusal=Refusal(code=error.code, text=str(error)))
    except MemoryError as error:
        return Answer(failed=Failure(reason="memory", where=_where(error)))
    except Exception as error:  # noqa: BLE001  # this image fails, and the worker is replaced
        return Answer(failed=Failure(reason="crashed", where=_where(error)))


def _received(connection: socket.socket, shared: memoryview) -> Task | None:
    """The next file, not copied; None when the connection is closed."""
    message, large, _, _ = socket.recv_fds(connection, TASK.size, 1)
    if not message:
        return None
    length, displayed = TASK.unpack(message)
    if not large:
        return Task(shared[:length], displayed)
    with os.fdopen(large[0]):
        return Task(_mapped(large[0], length), displayed)


def _mapped(memory: int, length: int) -> memoryview:
    """A read-only view of shared memory."""
    return memoryview(mmap.mmap(memory, length, access=mmap.ACCESS_READ))


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


@contextmanager
def _limited(limits: Limits, used: int) -> Iterator[None]:
    """The kernel enforces the limits in the block, even if a decoder never returns."""
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)  # SIGPROF
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)  # SIGALRM
    _lower(resource.RLIMIT_AS, used + limits.memory_bytes)
    try:
        yield
    finally:
        _lower(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _lower(limit: int, value: int) -> None:
    """Set the soft limit, at most to the hard one."""
    hard = resource.getrlimit(limit)[1]
    unlimited = hard == resource.RLIM_INFINITY
    if value == resource.RLIM_INFINITY or (not unlimited and value > hard):
        value = hard
    resource.setrlimit(limit, (value, hard))


def _address_space() -> int:
    """The size of the address space in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
