"""Archive jobs over HTTP, in a real service: every image once, whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.csv as pa_csv
import pytest
from heads import Mark, marked
from images import dicom, png, radiograph
from live import Live, serving
from pydantic import ValidationError
from small_archives import write_archive

from model_store import Orientation
from service.api.auth.keys import new_key
from service.api.settings import Settings

IMAGES = 60
PAUSABLE = 6000  # so many are not done before a request comes
MARKS: tuple[tuple[Mark, ...], ...] = ((), ("no_chest",), ("turn_180", "inverted"))
LIES = tuple(Orientation.model_fields)
Job = dict[str, Any]
Open = Callable[..., Live]


def filled(folder: Path, images: int) -> Path:
    """Different images, a copy, and two files that cannot be classified."""
    folder.mkdir()
    write_archive(folder, images)
    (folder / "z.dcm").write_bytes((folder / "00000.dcm").read_bytes())
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("archive") / "small", IMAGES)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many files that a request comes before they are done."""
    folder = filled(tmp_path_factory.mktemp("large") / "large", 1)
    base = radiograph(128, 128)
    for number in range(PAUSABLE):
        file = dicom(base, SOPInstanceUID=f"1.3.{number}") if number < 2000 else b"x"
        (folder / f"more-{number:05d}").write_bytes(file)
    return folder


@pytest.fixture
def settings(light: Settings, archive: Path, large: Path, tmp_path: Path) -> Settings:
    """A service that may read both archives."""
    update = {
        "backfill_folder": tmp_path / "jobs",
        "backfill_sources": (str(archive), str(large)),
    }
    return Settings(**(light.model_dump() | update))


@pytest.fixture
def client(start, settings: Settings) -> Iterator[httpx2.Client]:
    with start(settings) as service, service.client() as client:
        yield client


def until(client: httpx2.Client, job: str, *states: str, seconds: float = 300) -> Job:
    """The job, as soon as it is in one of these states."""
    deadline = time.monotonic() + seconds
    while (found := client.get(job).json())["state"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def begun(client: httpx2.Client, source: Path, key: str | None = None, **more: Any) -> str:
    """The path of a new job."""
    headers = {} if key is None else {"Idempotency-Key": key}
    response = client.post("/v1/backfills", json={"source": str(source)} | more, headers=headers)
    assert response.status_code == 202, response.text
    path: str = response.headers["location"]
    assert path == f"/v1/backfills/{response.json()['id']}"
    return path


def rows(client: httpx2.Client, job: str) -> list[Job]:
    """The results; no image stands there twice."""
    response = client.get(f"{job}/results")
    assert response.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in response.text.splitlines()]
    assert len({row["locator"] for row in found}) == len(found)
    keys = [row["key"] for row in found if row["outcome"] == "done"]
    assert len(set(keys)) == len(keys)
    return found


def code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def metric(client: httpx2.Client, sample: str) -> float:
    text = client.get("/metrics").text
    return next(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{sample} ")
    )


def test_a_whole_archive(client: httpx2.Client, archive: Path, settings: Settings) -> None:
    """Each file has one outcome, which job, results and certificate agree on."""
    sample = 'cxrview_images_total{lane="backfill",source="backfills",view="%s"}'
    views = [sample % view for view in ("frontal", "lateral")]
    before = sum(metric(client, view) for view in views)
    path = begun(client, archive, format="csv")
    job = until(client, path, "done")
    assert job["counts"] == {
        "found": IMAGES + 3, "done": IMAGES, "skipped": 2, "failed": 1, "open": 0
    }  # fmt: skip
    assert job["codes"] == {"corrupt_image": 1, "duplicate": 1, "unrecognised_format": 1}
    assert (job["all_found"], job["reason"], job["eta_seconds"]) == (True, None, None)
    assert job["created"] <= job["started"] <= job["ended"]
    found = rows(client, path)
    assert {row["locator"] for row in found} == {each.name for each in archive.iterdir()}
    certificate = client.get(f"{path}/certificate").json()
    assert certificate["valid"]
    assert certificate["outcomes"] == {"done": IMAGES, "skipped": 2, "failed": 1}
    assert sum(metric(client, view) for view in views) == before + IMAGES + 1  # the copy as well
    folder = settings.backfill_folder / job["id"]
    parts = list(folder.glob("results/day=*/*.csv"))
    assert sum(pa_csv.read_csv(part).num_rows for part in parts) == len(found)
    for report in ("header-audit", "worklist"):
        answer = client.get(f"{path}/{report}")
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.content == (folder / "audit" / f"{report}.csv").read_bytes()
    assert (folder.stat().st_mode | settings.backfill_folder.stat().st_mode) & 0o077 == 0
    listed = client.get("/v1/backfills").json()["backfills"]
    assert [each["id"] for each in listed] == [job["id"]]


def test_where_jobs_may_read_is_told(
    client: httpx2.Client, settings: Settings, start, light: Settings
) -> None:
    """With the kinds of sources that there may be; without jobs there is no such list."""
    folders = {"kinds": ["folder", "list", "archive"]}
    listed = [{"root": root} | folders for root in settings.backfill_sources]
    assert client.get("/v1/backfills/sources").json() == {"sources": listed}
    assert client.post("/v1/backfills/sources").status_code == 405
    addresses = ("s3://research/chest", "https://pacs.example/dicom-web")
    update = {"backfill_folder": settings.backfill_folder / "2", "backfill_sources": addresses}
    with start(light.model_copy(update=update)) as service, service.client() as other:
        assert [each["kinds"] for each in other.get("/v1/backfills/sources").json()["sources"]] == [
            ["bucket"],
            ["dicomweb"],
        ]
    with start(light) as service, service.client() as other:
        assert code(other.get("/v1/backfills/sources")) == (404, "backfills_disabled")


def test_an_empty_archive_has_a_certificate(client: httpx2.Client, archive: Path) -> None:
    """Of nothing."""
    (archive / "empty").mkdir()
    try:
        path = begun(client, archive / "empty")
        until(client, path, "done")
        assert client.get(f"{path}/certificate").json()["found"] == 0
        assert rows(client, path) == []
    finally:
        (archive / "empty").rmdir()


def test_who_asks_twice_gets_one_job(client: httpx2.Client, archive: Path, large: Path) -> None:
    """By its key; and another job by another key, or without one."""
    path = begun(client, archive, "once")
    assert begun(client, archive, "once") == path
    until(client, path, "done")
    assert begun(client, archive, "once") == path
    headers = {"Idempotency-Key": "once"}
    for other in ({"source": str(large)}, {"source": str(archive), "max_errors": 0.5}):
        response = client.post("/v1/backfills", json=other, headers=headers)
        assert code(response) == (409, "job_conflict")
    assert len({path, begun(client, archive, "twice"), begun(client, archive)}) == 3
    assert len(client.get("/v1/backfills").json()["backfills"]) == 3


def test_one_job_after_another(client: httpx2.Client, archive: Path, large: Path) -> None:
    """The first works while the second waits; who is cancelled lets the next begin."""
    first, second = begun(client, large), begun(client, archive)
    until(client, first, "running")
    assert client.get(second).json()["state"] == "waiting"
    assert client.post(f"{first}/cancel").json()["state"] in {"running", "cancelled"}
    until(client, second, "done")
    job = client.get(first).json()
    assert job["state"] == "cancelled"
    for what in ("resume", "pause"):
        assert code(client.post(f"{first}/{what}")) == (409, "job_state")
    again = client.post(f"{first}/retry-failed").status_code
    assert again == (409 if job["counts"]["failed"] else 200)  # where nothing is to be changed
    assert client.post(f"{first}/cancel").json()["counts"] == job["counts"]


def test_what_is_paused_goes_on(client: httpx2.Client, large: Path) -> None:
    """As often as it is asked for, in any order; in the end every image has one outcome."""
    path = begun(client, large)
    until(client, path, "running")
    for what in ("pause", "pause", "resume", "resume", "pause", "resume", "pause"):
        assert client.post(f"{path}/{what}").status_code == 200
    until(client, path, "paused")
    assert code(client.get(f"{path}/certificate")) == (409, "job_state")
    deadline = time.monotonic() + 10
    while metric(client, 'cxrview_backfill_jobs{state="paused"}') != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found = client.get(path).json()
    assert found["counts"]["open"] > 0 or not found["all_found"]
    assert client.post(f"{path}/resume").json()["state"] in {"waiting", "running"}
    job = until(client, path, "done")
    assert len(rows(client, path)) == job["counts"]["found"] == PAUSABLE + 4
    for what in ("pause", "resume", "cancel"):
        assert code(client.post(f"{path}/{what}")) == (409, "job_state")


def test_what_failed_is_tried_again(client: httpx2.Client, archive: Path) -> None:
    """And nothing else; its certificate is a new one."""
    path = begun(client, archive)
    until(client, path, "done")
    before = rows(client, path)
    whole = archive / "cut.png"
    damaged = whole.read_bytes()
    try:
        whole.write_bytes(png(radiograph(128, 128)))
        client.post(f"{path}/retry-failed")
        job = until(client, path, "done")
    finally:
        whole.write_bytes(damaged)
    assert job["counts"]["failed"] == 0
    after = rows(client, path)
    (again,) = [row for row in after if row not in before]
    assert (again["locator"], again["outcome"], again["attempts"]) == ("cut.png", "done", 2)
    assert client.get(f"{path}/certificate").json()["outcomes"]["done"] == IMAGES + 1
    ended = job["ended"]
    assert client.post(f"{path}/retry-failed").json()["ended"] == ended  # nothing is left to try


@pytest.mark.parametrize(
    ("source", "status", "problem"),
    [
        ("{0}/..", 403, "source_not_allowed"),
        ("{0}2", 403, "source_not_allowed"),
        ("/etc/passwd", 403, "source_not_allowed"),
        ("s3://bucket", 403, "source_not_allowed"),
        ("http://169.254.169.254/latest/meta-data", 403, "source_not_allowed"),
        ("{0}/nothing", 422, "invalid_source"),
        ("{0}/notes.txt", 422, "invalid_source"),
        ("", 422, "invalid_request"),
    ],
)
def test_a_source_is_looked_at_first(
    client: httpx2.Client, archive: Path, source: str, status: int, problem: str
) -> None:
    """What may not be read, or cannot, makes no job."""
    response = client.post("/v1/backfills", json={"source": source.format(archive)})
    assert code(response) == (status, problem)
    assert client.get("/v1/backfills").json() == {"backfills": []}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b'{"source": "/x", "other": 1}', 422),
        (b'{"source": "/x", "max_errors": 2}', 422),
        (b'{"source": "/x", "options": {"since": {"a": 1}}}', 422),
        (b'{"source": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_a_wrong_request_is_said(client: httpx2.Client, body: bytes, status: int) -> None:
    assert client.post("/v1/backfills", content=body).status_code == status


@pytest.mark.parametrize("job", ["0" * 32, "x", "%00", "%ff", "..%2f..", "Doe^Jane"])
def test_an_unknown_job(client: httpx2.Client, job: str) -> None:
    """Whatever stands in its place is not repeated."""
    for what in ("", "/results", "/certificate"):
        response = client.get(f"/v1/backfills/{job}{what}")
        assert response.status_code == 404
        assert "Doe" not in response.text
    for what in ("pause", "resume", "cancel", "retry-failed"):
        assert client.post(f"/v1/backfills/{job}/{what}").status_code == 404


def test_without_a_folder_there_are_no_jobs(start, light: Settings) -> None:
    with start(light) as service, service.client() as client:
        response = client.post("/v1/backfills", json={"source": "/x"})
        assert code(response) == (404, "backfills_disabled")
        assert code(client.get("/v1/backfills/x")) == (404, "backfills_disabled")


def test_a_key_needs_the_permission(start, settings: Settings, tmp_path: Path) -> None:
    """Of all endpoints, whatever follows their path."""
    pairs = [new_key("people", frozenset({"classify"})), new_key("it", frozenset({"backfill"}))]
    file = tmp_path / "keys"
    file.write_text("".join(f"{line}\n" for _, line in pairs))
    update = settings.model_copy(update={"keys": file})
    with start(update) as service, service.client() as client:
        for path in ("", f"/{'0' * 32}", "/x/results", "/x/certificate"):
            url = f"/v1/backfills{path}"
            assert code(client.get(url)) == (401, "not_authenticated")
            for (key, _), permitted in zip(pairs, (False, True), strict=True):
                response = client.get(url, headers={"Authorization": f"Bearer {key}"})
                assert (response.status_code != 403) == permitted
        for path in ("", "/x/pause", "/x/resume", "/x/cancel", "/x/retry-failed"):
            headers = {"Authorization": f"Bearer {pairs[0][0]}"}
            response = client.post(f"/v1/backfills{path}", headers=headers)
            assert code(response) == (403, "not_permitted")


def test_people_are_answered_meanwhile(client: httpx2.Client, large: Path) -> None:
    """And soon, while an archive is worked on."""
    path = begun(client, large)
    until(client, path, "running")
    body = dicom(radiograph())
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        assert client.post("/v1/classify", content=body).status_code == 200
        seconds.append(time.perf_counter() - begin)
    assert client.get(path).json()["state"] == "running"
    assert sorted(seconds)[10] < 1
    client.post(f"{path}/cancel")


def lasting(settings: Settings, log: Path, **more: str) -> Any:
    """The command with these jobs, in a process of its own."""
    return serving(
        log,
        model="mean/1.0.0",
        model_store=str(settings.model_store),
        backfill_folder=str(settings.backfill_folder),
        backfill_sources=",".join(settings.backfill_sources),
        **more,
    )


def settled_of(client: httpx2.Client, job: str) -> int:
    """How many of its images have an outcome."""
    found = client.get(job).json()
    assert found["state"] in {"running", "waiting"}
    return sum(found["counts"][each] for each in ("done", "skipped", "failed"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_comes_to_the_same_end(
    settings: Settings, large: Path, archive: Path, tmp_path: Path, end: signal.Signals
) -> None:
    """Killed, or told to stop, in the middle of a job: the next process goes on by itself."""
    path = waiting = ""
    settled = 0
    for life in range(2):
        log = tmp_path / f"log{life}"
        with (
            lasting(settings, log) as live,
            httpx2.Client(base_url=f"http://127.0.0.1:{live.port}", timeout=30) as client,
        ):
            if not life:
                path, waiting = begun(client, large, "key"), begun(client, archive)
            before = settled_of(client, path)
            assert before >= settled
            while (settled := settled_of(client, path)) <= before:
                time.sleep(0.01)
            live.process.send_signal(end)
            assert live.process.wait(30) == (-9 if end == signal.SIGKILL else 0), log.read_text()
        assert large.name not in log.read_text()  # logs do not say what is read
    with (
        lasting(settings, tmp_path / "log") as live,
        httpx2.Client(base_url=f"http://127.0.0.1:{live.port}", timeout=30) as client,
    ):
        assert begun(client, large, "key") == path
        job = until(client, path, "done")
        assert len(rows(client, path)) == job["counts"]["found"] == PAUSABLE + 4
        assert job["counts"]["done"] == 2001
        assert client.get(f"{path}/certificate").json()["valid"]
        assert until(client, waiting, "done")["counts"]["done"] == IMAGES


def test_one_process_has_the_folder(settings: Settings, tmp_path: Path) -> None:
    """Another does not start, and says why."""
    with (
        lasting(settings, tmp_path / "log"),
        pytest.raises(AssertionError, match="another process"),
        lasting(settings, tmp_path / "other"),
    ):
        pass


def test_without_the_extra_it_does_not_start(tmp_path: Path) -> None:
    """And says what is missing; without the setting, nothing is."""
    program = (
        "import sys; sys.modules |= dict.fromkeys(('sqlalchemy', 'pyarrow', 'alembic')); "
        "from service.cli import main; sys.exit(main(['serve', '--port', '0']))"
    )
    settings = {"FOLDER": str(tmp_path / "jobs"), "SOURCES": str(tmp_path)}
    variables = {f"CXRVIEW_BACKFILL_{name}": value for name, value in settings.items()}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 2
    assert "CXRVIEW_BACKFILL_FOLDER needs the extra `backfill`" in run.stderr
    loaded = "import sys, service.api.app; print({'sqlalchemy', 'pyarrow'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "set()\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"backfill_folder": "jobs"},
        {"backfill_sources": "/data"},
        {"backfill_folder": "jobs", "backfill_sources": "/data,data2"},
        {"backfill_folder": "jobs", "backfill_sources": "https://user@host/"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_a_job_of_another_model_is_not_mixed(
    start, settings: Settings, large: Path, tmp_path: Path
) -> None:
    """It stops, and says why; with its own model it goes on."""
    with lasting(settings, tmp_path / "log") as live:
        url = f"http://127.0.0.1:{live.port}"
        with httpx2.Client(base_url=url, timeout=30) as client:
            path = begun(client, large)
            until(client, path, "running")
    other = settings.model_copy(
        update={"model": "swift/1.0.0", "model_store": Settings().model_store}
    )
    with start(other) as service, service.client() as client:
        reason = until(client, path, "stopped")["reason"]
        sha = r" \(SHA-256 [0-9a-f]{8}\.\.\.\)"
        assert re.fullmatch(
            f"it was begun with mean/1.0.0{sha}, and this is swift/1.0.0{sha}", reason
        )
    with start(settings) as service, service.client() as client:
        assert client.post(f"{path}/resume").status_code == 200
        until(client, path, "done")


def test_a_job_of_a_model_with_heads(
    start, settings: Settings, headed_store: Path, tmp_path: Path
) -> None:
    """Its rows say what `POST /v1/classify` says of the same files, and so do the metrics."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for number, marks in enumerate(MARKS):
        uid = {"SOPInstanceUID": f"1.9.{number}", "BodyPartExamined": "CHEST"}
        (folder / str(number)).write_bytes(dicom(marked(radiograph(), *marks), **uid))
    update = {"model_store": headed_store, "model": "swift/2.0.0"}
    update |= {"backfill_sources": (str(folder),)}
    samples = (
        'cxrview_images_total{lane="backfill",source="backfills",view="not_chest"}',
        'cxrview_body_parts_total{agreement="disagrees"}',
        'cxrview_orientation_total{finding="turn_180"}',
        'cxrview_orientation_total{finding="inverted"}',
    )
    with start(settings.model_copy(update=update)) as service, service.client() as client:
        before = [metric(client, sample) for sample in samples]
        job = begun(client, folder)
        until(client, job, "done")
        assert [metric(client, each) for each in samples] == [count + 1 for count in before]
        found = {row["locator"]: row for row in rows(client, job)}
        for number in range(len(MARKS)):
            answer = client.post("/v1/classify", content=(folder / str(number)).read_bytes()).json()
            row = found[str(number)]
            for key in ("view", "pfi", "threshold", "chest", "chest_threshold", "review"):
                assert row[key] == pytest.approx(answer[key], abs=1e-3), key
            for key, value in (answer["orientation"] or dict.fromkeys(LIES)).items():
                assert row[key] == (value if value is None else pytest.approx(value, abs=1e-3)), key
            for key in ("body_part_examined", "body_part_agrees"):
                assert row[key] == answer["header"][key], key
    assert [found[str(number)]["view"] for number in range(2)] == ["frontal", "not_chest"]
