"""What a decode worker answers, asked within this process."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import needs
import numpy as np
import pytest
from images import dicom, radiograph

from model_store import ModelVersion
from service.imaging import ImageError, Radiograph, load_decoders, read_radiograph
from service.inference.decode_messages import MAX_ANSWER_BYTES, READY, TASK, Answer, Job
from service.inference.decoder import LIMITS, READ_RADIOGRAPH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)

FILE = dicom(radiograph(64, 64))


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 2**20)
    yield descriptor
    os.close(descriptor)


def refuses(*_: object, **__: object) -> Radiograph:
    raise ImageError("no radiograph")


def swells(*_: object, **__: object) -> Radiograph:
    raise MemoryError


def breaks(*_: object, **__: object) -> Radiograph:
    raise ZeroDivisionError("Doe^Jane")


def test_an_answer_holds_the_radiograph_or_why_there_is_none(
    version: ModelVersion, memory: int
) -> None:
    """Its tensor is in the shared memory; an error's words are told only where they are ours."""
    from service.inference.decode_worker import Task, answer_to

    spec, data = version.card.preprocess, memoryview(FILE)
    answer = answer_to(Task(data, displayed=False), memory, read_radiograph, spec)
    expected = read_radiograph(data, spec)
    assert answer.read is not None
    tensor = np.frombuffer(os.pread(memory, spec.size**2, 0), np.uint8)
    found = answer.read.radiograph(tensor.reshape(expected.tensor.shape))
    assert found.sop_instance_uid == expected.sop_instance_uid
    np.testing.assert_array_equal(found.tensor, expected.tensor)
    for decode, reason in ((swells, "memory"), (breaks, "crashed")):
        failed = answer_to(Task(data, displayed=False), memory, decode, spec)
        assert failed.failed is not None
        assert failed.failed.reason == reason
        assert "Doe" not in failed.model_dump_json()
    assert answer_to(Task(data, displayed=False), memory, refuses, spec).refusal is not None


@contextmanager
def worker(job: Job, memory: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """One in a thread, which must not confine this process."""
    from service.inference import decode_worker

    monkeypatch.setattr(decode_worker, "confine", lambda: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=decode_worker.work, args=(theirs, memory, job))
    thread.start()
    with ours, theirs:
        yield ours
        ours.close()
        thread.join(20)
        assert not thread.is_alive()


def test_a_worker_reads_one_file_after_the_other(
    version: ModelVersion, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From shared memory, or a large file's own memory, until its parent closes the connection."""
    spec = version.card.preprocess
    job = Job(decode=READ_RADIOGRAPH, spec=spec, niceness=0, limits=LIMITS["interactive"])
    large = os.memfd_create("large")
    os.pwrite(large, FILE, 0)
    os.pwrite(memory, FILE, 0)
    with worker(job, memory, monkeypatch) as connection:
        assert READY.unpack(connection.recv(READY.size)) == (os.getpid(),)
        for descriptors in ([], [large]):
            socket.send_fds(connection, [TASK.pack(len(FILE), False)], descriptors)
            answer = Answer.model_validate_json(connection.recv(MAX_ANSWER_BYTES))
            assert answer.read is not None, answer
            os.pwrite(memory, FILE, 0)  # the tensor is there now
    os.close(large)


def test_decoders_can_be_loaded_early() -> None:
    """Each has decoded something by then; twice does no harm."""
    load_decoders()
    load_decoders()
