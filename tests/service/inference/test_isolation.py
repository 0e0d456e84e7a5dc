"""A file may cost its own answer, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import needs
import numpy as np
import psutil
import pytest
from conftest import ROOT
from images import CODECS, NATIVE, dicom, jpeg, png, radiograph
from pydicom import uid

from model_store import Prediction, PreprocessSpec
from service.imaging import (
    DecoderFailedError,
    ImageError,
    Radiograph,
    is_uncompressed,
    read_radiograph,
)
from service.inference import LANES, Batcher, Image, Lane, Limits, Pipeline, Runner, decoder
from service.inference.decode_messages import SHARED_BYTES, Refusal
from service.inference.decode_worker import Task, answer_to
from service.inference.fork_server import FORK_SERVER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)

SPEC = PreprocessSpec(size=32)
PICTURE = png(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
PFI = read_radiograph(PICTURE, SPEC).tensor.mean() / 255
LIMITS = Limits(cpu_seconds=5, wall_seconds=20, memory_bytes=200 * 2**20)
QUICK = LIMITS._replace(cpu_seconds=0.05)  # for loops, which use all of it
CLIENTS = 8
TIMES = 50


def mean(tensors: np.ndarray[Any, Any]) -> list[Prediction]:
    return [Prediction(float(value) / 255) for value in tensors.mean(axis=(1, 2, 3))]


@contextmanager
def running(workers: int = 1, limits: Limits = LIMITS, **kwargs: Any) -> Iterator[Pipeline]:
    batcher = Batcher([Runner(lambda: mean)], 8)
    kwargs = {"decode": "hostile_decoder:decode", "limits": dict.fromkeys(LANES, limits)} | kwargs
    pipeline = Pipeline(SPEC, batcher, workers, **kwargs)
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.close()


def submit(pipeline: Pipeline, data: bytes, lane: Lane = "interactive") -> Image:
    image = Image(data, lane)
    pipeline.submit(image)
    return image


def answer(pipeline: Pipeline, data: bytes = PICTURE, lane: Lane = "interactive") -> float:
    return submit(pipeline, data, lane).answer.result(30).pfi


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """All processes that decode for one."""
    return [
        each
        for each in psutil.Process(pid).children(recursive=True)
        if each.status() != psutil.STATUS_ZOMBIE  # of other tests
        and "fork_server" in " ".join(each.cmdline())
        and each.parent().pid != (pid or os.getpid())
    ]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("harm", "reason", "words"),
    [
        ("segfault", "crashed", "crashed"),
        ("leave", "crashed", "crashed"),
        ("fail", "crashed", "crashed"),
        ("cut memory", "crashed", "crashed"),
        ("loop", "deadline", "took too long"),
        ("loop in C", "deadline", "took too long"),
        ("allocate", "memory", "too much memory"),
        ("allocate in C", "crashed", "crashed"),
        ("nonsense", "crashed", "crashed"),
        ("nothing", "crashed", "crashed"),
        ("unknown error", "crashed", "crashed"),
        ("unknown decoder", "crashed", "crashed"),
        ("words as a warning", "crashed", "crashed"),
        ("words for the log", "crashed", "crashed"),
        ("too long", "crashed", "crashed"),
    ],
)
def test_a_harmful_file_costs_one_answer(
    lane: Lane, harm: str, reason: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told why; those before and behind it in its lane's only worker are answered."""
    ended: list[str] = []
    limits = QUICK if reason == "deadline" else LIMITS
    with running(limits=limits, observe_failure=ended.append) as pipeline:
        images = [submit(pipeline, data, lane) for data in (PICTURE, harm.encode(), PICTURE)]
        with pytest.raises(DecoderFailedError, match=words):
            images[1].answer.result(30)
        for image in (images[0], images[2]):
            assert image.answer.result(30).pfi == pytest.approx(PFI)
        assert pipeline.alive
        assert pipeline.stuck() == []
    assert ended == [reason]
    assert "what this file holds" not in caplog.text
    assert "Doe" not in caplog.text


def test_a_file_that_waits_is_ended_by_the_clock() -> None:
    """Without using its CPU seconds."""
    with running(limits=LIMITS._replace(wall_seconds=0.1)) as pipeline:
        with pytest.raises(DecoderFailedError, match="took too long"):
            answer(pipeline, b"wait")
        assert answer(pipeline) == pytest.approx(PFI)


@pytest.mark.parametrize("harm", ["segfault", "loop", "allocate"])
def test_clients_beside_a_stream_of_harmful_files_lose_nothing(harm: str) -> None:
    """Of 50 in a row each has one error; of what 8 others send meanwhile, all is answered."""
    found: list[float] = []
    failed: list[Exception] = []
    ended: Counter[str] = Counter()
    done = threading.Event()

    def client() -> None:
        try:
            while not done.is_set():
                found.append(answer(pipeline))
        except Exception as error:  # noqa: BLE001  # the test fails with it
            failed.append(error)

    limits = QUICK if harm == "loop" else LIMITS
    observe = lambda reason: ended.update([reason])  # noqa: E731
    with running(workers=2, limits=limits, observe_failure=observe) as pipeline:
        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for _ in range(TIMES):
            with pytest.raises(DecoderFailedError):
                answer(pipeline, harm.encode())
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert len(found) > CLIENTS
    assert found == pytest.approx([PFI] * len(found))
    assert sum(ended.values()) == TIMES


def said_of(read: Radiograph) -> dict[str, Any]:
    return {each.name: getattr(read, each.name) for each in fields(read) if each.name != "tensor"}


PIXELS = radiograph(96, 80)
FILES = {
    "png": PICTURE,
    "jpeg": jpeg((PIXELS >> 4).astype(np.uint8)),
    "names": dicom(
        PIXELS,
        uid.RLELossless,
        SpecificCharacterSet="ISO_IR 192",
        StationName="R\N{LATIN SMALL LETTER O WITH DIAERESIS}ntgen",
        StudyDate="20240229",
        PatientOrientation=["L", "F"],
    ),
    "no view": dicom(PIXELS, uid.JPEGLosslessSV1, ViewPosition=None, SOPClassUID=""),
    "large": png(np.random.default_rng(1).integers(0, 256, (4200, 4200), dtype=np.uint8)),
    **{
        uid.UID(syntax).name: dicom(
            (PIXELS >> 4).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else PIXELS, syntax
        )
        for syntax in (*NATIVE, uid.RLELossless, *CODECS)
    },
}


@pytest.mark.parametrize("name", FILES)
def test_a_worker_tells_all_that_was_read(name: str) -> None:
    """The same tensor, and every field as `read_radiograph` has it."""
    assert len(FILES["large"]) > SHARED_BYTES
    expected = read_radiograph(FILES[name], SPEC)
    with running(decode="service.imaging:read_radiograph") as pipeline:
        image = submit(pipeline, FILES[name])
        image.answer.result(30)
        assert image.radiograph is not None
        np.testing.assert_array_equal(image.radiograph.tensor, expected.tensor)
        assert said_of(image.radiograph) == said_of(expected)


def test_only_plain_pixels_are_read_by_the_service_itself() -> None:
    """Everything that needs a codec or pydicom's slow path goes to a worker."""
    plain = {uid.ImplicitVRLittleEndian.name, uid.ExplicitVRLittleEndian.name}
    assert {name for name, data in FILES.items() if is_uncompressed(data)} == plain
    colour = np.repeat((PIXELS >> 4).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    assert not is_uncompressed(dicom(colour))
    whole = dicom(PIXELS)
    assert is_uncompressed(whole)
    for odd in (
        dicom(PIXELS, PhotometricInterpretation="PALETTE COLOR"),
        dicom(PIXELS, ImageComments="x" * 70_000),
        whole[:200],
        whole[:140],
        b"",
    ):
        assert not is_uncompressed(odd)


def all_errors(cls: type[ImageError] = ImageError) -> Iterator[type[ImageError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from all_errors(below)


@pytest.mark.parametrize("cls", list(all_errors()), ids=lambda cls: cls.__name__)
def test_errors_keep_their_class_and_text(cls: type[ImageError]) -> None:
    """On their way from a worker, each is told by its code."""

    def refuse(_: memoryview, __: PreprocessSpec, **___: bool) -> Radiograph:
        raise cls("the reason")

    refusal = answer_to(Task(memoryview(b""), displayed=False), -1, refuse, SPEC).refusal
    assert refusal is not None
    error = refusal.error()
    assert type(error) is cls
    assert str(error) == "the reason"
    assert Refusal(code="of_mine", text="").error() is None


def test_a_worker_that_dies_while_idle_costs_nothing() -> None:
    """The kernel or an operator may kill it: the next file gets a new worker."""
    with running() as pipeline:
        assert answer(pipeline) == pytest.approx(PFI)
        for worker in workers_of():
            worker.kill()
            while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.001)
        for lane in LANES:
            assert answer(pipeline, lane=lane) == pytest.approx(PFI)


def test_a_fork_server_that_dies_is_started_again() -> None:
    """Its workers go on meanwhile."""
    with running() as pipeline:
        assert answer(pipeline) == pytest.approx(PFI)
        (server,) = {each.parent() for each in workers_of()}
        server.kill()
        assert answer(pipeline) == pytest.approx(PFI)
        with pytest.raises(DecoderFailedError):
            answer(pipeline, b"segfault")
        assert answer(pipeline) == pytest.approx(PFI)


def test_closing_leaves_no_process_and_no_descriptor() -> None:
    """Whatever became of its workers."""
    FORK_SERVER.prepare()
    with running() as pipeline:  # what is opened once is not counted
        answer(pipeline)
    descriptors = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with running(workers=2) as pipeline:
            assert len(workers_of()) == 2  # those of backfill are started when it comes
            with pytest.raises(DecoderFailedError):
                answer(pipeline, b"segfault")
            answer(pipeline, FILES["large"], "backfill")
            assert len(workers_of()) == 3
    assert not workers_of()
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors


def test_workers_have_no_more_than_they_need() -> None:
    """No network, no web framework, no core file; one thread; the first to go without memory."""
    with running() as pipeline:
        answer(pipeline, lane="backfill")
        assert len(workers_of()) == len(LANES)
        for worker in workers_of():
            maps = Path(f"/proc/{worker.pid}/maps").read_text()
            assert "onnxruntime" not in maps
            assert worker.num_threads() == 1
            assert worker.rlimit(psutil.RLIMIT_CORE)[0] == 0
            assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "500\n"
            links = [str(each.readlink()) for each in Path(f"/proc/{worker.pid}/fd").iterdir()]
            kinds = Counter(link.split(":")[0] for link in links)
            assert kinds["socket"] == 1
            assert sum("memfd" in link for link in links) <= 2  # mapped, and to be written


ENDLESS = """
import sys
sys.path[:0] = PATHS
import test_isolation as test
context = test.running(limits=test.Limits(3600, 3600, 2**29))
pipeline = context.__enter__()
test.answer(pipeline)
image = test.submit(pipeline, b"loop")
print("ready", flush=True)
image.answer.result(3600)
"""


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_workers_end_with_the_service(how: str) -> None:
    """However it ends, and also one that is in an endless loop."""
    tests = [str(ROOT / "tests"), str(Path(__file__).parent)]
    program = ENDLESS.replace("PATHS", repr([*tests, str(ROOT)]))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        tree = psutil.Process(process.pid).children(recursive=True)
        assert len(tree) == 2  # a worker, and what has forked it
        getattr(process, how)()
        assert psutil.wait_procs(tree, 10)[1] == []
        assert process.stderr.read() == b""


def test_workers_outlive_signals_to_the_group() -> None:
    """Ctrl-C and SIGTERM are for the service, which finishes what it has begun."""
    with running() as pipeline:
        for each in [*workers_of(), *{worker.parent() for worker in workers_of()}]:
            each.send_signal(2)
            each.send_signal(15)
        before = workers_of()
        assert answer(pipeline) == pytest.approx(PFI)
        assert workers_of() == before


def test_a_slow_file_yields_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker, which cannot have its priority again, is replaced before the next file."""
    monkeypatch.setattr(decoder, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(decoder, "SLOW_SHARE", 0.0)
    with running(limits=LIMITS._replace(cpu_seconds=3)) as pipeline:
        (worker,) = workers_of()
        usual = worker.nice()
        image = submit(pipeline, b"loop")
        while worker.is_running() and worker.nice() == usual:
            assert not image.answer.done()
            time.sleep(0.001)
        assert worker.nice() == max(usual, decoder.SLOW_NICENESS)
        with pytest.raises(DecoderFailedError, match="took too long"):
            image.answer.result(30)
        monkeypatch.undo()  # the next file may be looked at as well
        answer(pipeline)
        (last,) = workers_of()
        assert last.nice() == usual
