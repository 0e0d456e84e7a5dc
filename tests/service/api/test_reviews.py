"""The review of jobs over HTTP, in a real service: worklist, decisions, pictures, exports."""

from __future__ import annotations

import base64
import csv
import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow.parquet as pq
import pytest
from heads import marked
from images import dicom, png, radiograph
from live import serving
from PIL import Image

from service.api.auth.keys import new_key
from service.api.settings import Settings
from service.cli import main

READERS = ("ann", "ben", "eve")
IMAGES = 8
Json = dict[str, Any]
KEY = bytes(range(32))


def write_images(folder: Path) -> Path:
    """Six objects whose headers name both views, one without a view, and a PNG."""
    folder.mkdir()
    for number in range(IMAGES - 2):
        fields = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}"}
        position = ("PA", "LL")[number % 2]
        file = dicom(radiograph(160, 128) + number, ViewPosition=position, **fields)
        (folder / f"{number}.dcm").write_bytes(file)
    (folder / "<b>x.dcm").write_bytes(dicom(radiograph(128, 128), SOPInstanceUID="1.3.1"))
    (folder / "plain.png").write_bytes(png(marked(radiograph(128, 128), "no_chest")))
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_images(tmp_path / "archive")


@pytest.fixture
def settings(light: Settings, archive: Path, tmp_path: Path) -> Settings:
    """A service with keys of three readers, and of a client that may start jobs only."""
    keys = {name: new_key(name, frozenset({"review"})) for name in READERS}
    keys["it"] = new_key("it", frozenset({"backfill"}))
    (tmp_path / "keys").write_text("\n".join(line for _, line in keys.values()))
    for name, (key, _) in keys.items():
        (tmp_path / f"{name}.key").write_text(key)
    (tmp_path / "secret").write_bytes(KEY)
    update = {
        "backfill_folder": tmp_path / "jobs",
        "backfill_sources": (str(archive),),
        "keys": tmp_path / "keys",
        "audit_log": tmp_path / "audit",
        "audit_key": tmp_path / "secret",
    }
    return Settings(**(light.model_dump() | update))


@pytest.fixture
def clients(start, settings: Settings, tmp_path: Path) -> Iterator[dict[str, httpx2.Client]]:
    """A client of each name."""
    with start(settings) as service, ExitStack() as stack:
        yield {
            name: stack.enter_context(authorised(service, tmp_path, name))
            for name in (*READERS, "it")
        }


def authorised(service: Any, folder: Path, name: str) -> httpx2.Client:
    key = (folder / f"{name}.key").read_text()
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=service.url, timeout=30, headers=headers)


def worked(client: httpx2.Client, archive: Path) -> str:
    """The path of the review of a job that is done."""
    path = client.post("/v1/backfills", json={"source": str(archive)}).headers["location"]
    deadline = time.monotonic() + 60
    while client.get(path).json()["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.replace("backfills", "reviews")


def listed(client: httpx2.Client, review: str, show: str = "open") -> list[Json]:
    answer = client.get(f"{review}/worklist", params={"show": show})
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["entries"]
    return found


def say(
    client: httpx2.Client, review: str, instance: int, decision: str | None, **more: Any
) -> httpx2.Response:
    return client.post(
        f"{review}/decisions", json={"instance": instance, "decision": decision} | more
    )


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_two_readers_and_an_adjudicator(clients, archive: Path) -> None:
    """Each sees what is left, none sees what the first one said before, and kappa is measured."""
    review = worked(clients["it"], archive)
    ann, ben, eve = (clients[name] for name in READERS)
    jobs = ann.get("/v1/reviews").json()
    assert jobs["reader"] == "ann"
    assert [(f"/v1/reviews/{each['id']}", each["source"]) for each in jobs["reviews"]] == [
        (review, str(archive))
    ]
    entries = listed(ann, review)
    assert len(entries) >= 3
    assert all("header" in each["reasons"] or each["review"] for each in entries)
    one, two, three = (each["instance"] for each in entries[:3])
    assert say(ann, review, one, "frontal").json()["reader"] == "ann"
    say(ann, review, two, "frontal")
    assert [each["instance"] for each in listed(ann, review)] == [
        each["instance"] for each in entries[2:]
    ]
    assert listed(ann, review, "second") == []
    seconds = listed(ben, review, "second")
    assert [(each["instance"], each["readings"], each["final"]) for each in seconds] == [
        (one, None, None),
        (two, None, None),
    ]
    say(ben, review, one, "frontal")
    say(ben, review, two, "lateral")
    assert code(say(eve, review, one, "frontal")) == (409, "review_state")
    assert code(say(eve, review, one, "frontal", role="adjudicator")) == (409, "review_state")
    assert code(say(ann, review, two, "frontal", role="adjudicator")) == (409, "review_state")
    (conflict,) = listed(eve, review, "conflicts")
    assert conflict["readings"] == {"ann": "frontal", "ben": "lateral"}
    assert listed(ann, review, "conflicts") == []
    found = eve.get(review).json()
    assert (found["read"], found["read_twice"], found["conflicts"]) == (2, 2, 1)
    assert found["agreements"] == [
        {"readers": ["ann", "ben"], "n": 2, "agreement": 0.5, "kappa": 0.0, "conflicts": 1}
    ]
    say(eve, review, two, "not_chest", role="adjudicator")
    say(ann, review, three, "unsure")
    found = eve.get(review).json()
    assert (found["conflicts"], found["final"]) == (0, {"frontal": 1, "not_chest": 1, "unsure": 1})
    assert found["readers"] == {"ann": 3, "ben": 2}
    assert len(listed(eve, review, "all")) == len(entries)


def test_a_decision_can_be_taken_back_and_history_keeps_it(clients, archive: Path) -> None:
    """What was said once is never deleted; the same again is no new decision."""
    review = worked(clients["it"], archive)
    ann = clients["ann"]
    instance = listed(ann, review)[0]["instance"]
    for decision in ("frontal", "frontal", None, "lateral"):
        answer = say(ann, review, instance, decision)
        assert (answer.status_code, answer.json()["decision"]) == (200, decision)
    assert listed(ann, review, "all")[0]["mine"] == "lateral"
    history = exported(ann, review, form="history")
    assert [each["decision"] for each in history] == ["frontal", "", "lateral"]
    assert {each["reader"] for each in history} == {"ann"}


def exported(client: httpx2.Client, review: str, **query: str) -> list[dict[str, str]]:
    answer = client.get(f"{review}/export", params=query)
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


def test_decisions_are_exported(clients, archive: Path) -> None:
    """As a manifest, and as corrections of the headers that are wrong; in both formats."""
    review = worked(clients["it"], archive)
    ann = clients["ann"]
    entries = listed(ann, review)
    for each in entries:
        say(ann, review, each["instance"], "lateral")
    manifest = exported(ann, review)
    assert [each["file"] for each in manifest] == [each["name"] for each in entries]
    assert {each["view"] for each in manifest} == {"lateral"}
    for each in manifest:
        number, _, _ = each["file"].partition(".")
        assert not number.isdecimal() or each["patient_id"] == f"1.9.{number}"
    corrections = exported(ann, review, form="corrections")
    wrong = [each for each in entries if each["disagrees"]]
    assert len(corrections) == len(wrong) > 0
    answer = ann.get(f"{review}/export", params={"form": "corrections", "format": "parquet"})
    assert pq.read_table(io.BytesIO(answer.content)).to_pylist() == corrections


def test_corrections_follow_decisions(
    clients, archive: Path, settings: Settings, tmp_path: Path
) -> None:
    """From the ledger as from the export; only headers that a person has found wrong change."""
    review = worked(clients["it"], archive)
    ann = clients["ann"]
    for number, each in enumerate(listed(ann, review)):
        say(ann, review, each["instance"], ("lateral", "unsure", "frontal")[number % 3])
    exported_file = tmp_path / "accepted.csv"
    exported_file.write_bytes(ann.get(f"{review}/export?form=corrections").content)
    run = settings.backfill_folder / review.rpartition("/")[2]
    assert main(["corrections", str(run), "--accepted", str(exported_file)]) == 0
    accepted = json.loads((run / "corrections" / "dicom.json").read_text())
    assert main(["corrections", str(run), "--reviewed", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "dicom.json").read_text()) == accepted
    assert len(accepted) > 0


def test_corrections_of_what_is_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Are refused with the reason."""
    run = tmp_path / "run"
    run.mkdir()
    for options, reason in (
        ([], "name a RUN and its decisions"),
        (["--reviewed", "--accepted", "x"], "name a RUN and its decisions"),
        (["--accepted", "x", "--ledger", "sqlite://"], "--ledger is for --reviewed"),
        (["--reviewed"], "has no ledger.sqlite"),
        (["--reviewed", "--ledger", f"sqlite:///{tmp_path}/x"], "the job is not done"),
    ):
        assert main(["corrections", str(run), *options]) == 2
        assert reason in capsys.readouterr().err
    (run / "certificate.json").write_text("{}")
    assert main(["corrections", str(run), "--reviewed", "--ledger", f"sqlite:///{tmp_path}/x"]) == 2
    assert "the ledger has no job run" in capsys.readouterr().err


def test_a_picture_is_read_again_and_kept_nowhere(
    clients, archive: Path, settings: Settings
) -> None:
    """As `explain` shows it; what has changed since, or is gone, is not shown."""
    review = worked(clients["it"], archive)
    ann = clients["ann"]
    first, second, *_ = (each for each in listed(ann, review) if each["name"][0].isdecimal())
    before = ann.get("/metrics").text.count("\n")
    answer = ann.get(f"{review}/pictures/{first['instance']}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    frame = Image.open(io.BytesIO(base64.b64decode(answer.json()["frame"]["jpeg"])))
    assert frame.size == (128, 160)
    assert np.asarray(frame).std() > 10
    assert not [
        path for path in settings.backfill_folder.rglob("*") if path.suffix in {".jpg", ".png"}
    ]
    assert ann.get("/metrics").text.count("\n") == before
    (archive / first["name"]).write_bytes((archive / second["name"]).read_bytes())
    assert code(ann.get(f"{review}/pictures/{first['instance']}")) == (410, "picture_unavailable")
    (archive / first["name"]).unlink()
    assert code(ann.get(f"{review}/pictures/{first['instance']}")) == (410, "picture_unavailable")
    assert code(ann.get(f"{review}/pictures/{10**12}")) == (404, "unknown_instance")
    assert code(ann.get(f"{review}/pictures/{2**63}")) == (422, "invalid_request")


def test_a_job_that_is_not_done_is_not_reviewed(clients, archive: Path) -> None:
    """Nor one that there is not."""
    review = worked(clients["it"], archive)
    unknown = f"/v1/reviews/{'0' * 32}"
    (archive / "x.dcm").write_bytes(b"DICM")
    ann = clients["ann"]
    for path in ("", "/worklist", "/export", "/pictures/1"):
        assert code(ann.get(unknown + path)) == (404, "unknown_job")
    assert code(say(ann, unknown, 1, "frontal")) == (404, "unknown_job")
    assert code(say(ann, review, 10**12, "frontal")) == (404, "unknown_instance")
    assert code(say(ann, review, 1, "frontal", reader="ben")) == (409, "review_state")
    assert code(say(ann, review, 10**12, "frontal", reader="ann")) == (404, "unknown_instance")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "instance"),
        ({"instance": 1}, "decision"),
        ({"instance": 0, "decision": "frontal"}, "instance"),
        ({"instance": 2**63, "decision": "frontal"}, "instance"),
        ({"instance": 1, "decision": "PA"}, "decision"),
        ({"instance": 1, "decision": "frontal", "role": "boss"}, "role"),
        ({"instance": 1, "decision": "frontal", "name": "ben"}, "name"),
    ],
)
def test_what_is_no_decision_is_refused(clients, archive: Path, body: Json, part: str) -> None:
    """With the name of what is wrong."""
    answer = clients["ann"].post(f"/v1/reviews/{'0' * 32}/decisions", json=body)
    assert code(answer) == (422, "invalid_request")
    assert part in answer.json()["detail"]


def test_a_page_of_another_origin_cannot_decide(clients) -> None:
    """Without asking first, it can send texts and forms only."""
    body = json.dumps({"instance": 1, "decision": "frontal"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = clients["ann"].post(
            f"/v1/reviews/{'0' * 32}/decisions", content=body, headers={"content-type": kind}
        )
        assert code(answer) == (422, "invalid_request")
        assert "content-type" in answer.json()["detail"]


def test_each_request_is_recorded_first(clients, archive: Path, tmp_path: Path) -> None:
    """Who decided what about which image, who saw which picture, and who took the list."""
    review = worked(clients["it"], archive)
    ann = clients["ann"]
    entry = listed(ann, review)[0]
    instance = entry["instance"]
    say(ann, review, instance, "lateral")
    say(ann, review, instance, None)
    ann.get(f"{review}/pictures/{instance}")
    ann.get(f"{review}/export")
    assert code(clients["it"].get(review)) == (403, "not_permitted")
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    found = [each for each in lines if each["event"] == "review"]
    assert [each["action"] for each in found] == [
        "worklist",
        "decide",
        "undo",
        "picture",
        "export",
    ]
    assert {(each["client"], each["job"]) for each in found} == {("ann", review.rpartition("/")[2])}
    assert [(each["instance"], each["decision"], each["role"]) for each in found[1:3]] == [
        (instance, "lateral", "reader"),
        (instance, None, "reader"),
    ]
    assert entry["name"] not in (tmp_path / "audit").read_text()


def test_what_cannot_be_recorded_is_not_decided(start, settings: Settings, archive: Path) -> None:
    """Nor shown."""
    open_to_all = settings.model_copy(update={"keys": None, "audit_log": None, "audit_key": None})
    with start(open_to_all) as service, service.client() as client:
        review = worked(client, archive)
        instance = listed(client, review)[0]["instance"]
    full = settings.model_copy(update={"keys": None, "audit_log": Path("/dev/full")})
    with start(full) as service, service.client() as client:
        asked = [
            say(client, review, instance, "frontal"),
            *(
                client.get(f"{review}/{what}")
                for what in ("worklist", "export", f"pictures/{instance}")
            ),
        ]
        assert {code(each) for each in asked} == {(503, "audit_failed")}
    with start(open_to_all) as service, service.client() as client:
        assert exported(client, review, form="history") == []


def test_killed_at_any_instant_the_service_has_each_decision_that_it_answered(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    """SIGKILL, while decisions arrive one after the other."""
    options = {
        "model": settings.model,
        "model_store": str(settings.model_store),
        "backfill_folder": str(tmp_path / "jobs"),
        "backfill_sources": str(archive),
    }
    answered: list[tuple[int, str]] = []
    review = ""
    for life in range(3):
        with (
            serving(tmp_path / f"log-{life}", **options) as live,
            httpx2.Client(base_url=live.url, timeout=30) as client,
        ):
            review = review or worked(client, archive)
            if life:
                history = exported(client, review, form="history")
                assert [(int(each["instance"]), each["decision"]) for each in history][
                    : len(answered)
                ] == answered
                assert len(history) <= len(answered) + 1
                answered = [(int(each["instance"]), each["decision"]) for each in history]
            instances = [each["instance"] for each in listed(client, review, "all")]
            deadline = time.monotonic() + 0.4 + life / 3
            killer = kill_at(live.process, deadline)
            try:
                for number in range(100_000):
                    decision = ("frontal", "lateral")[number // len(instances) % 2]
                    instance = instances[number % len(instances)]
                    answer = say(client, review, instance, decision)
                    if [each for each in answered if each[0] == instance][-1:] != [
                        (instance, decision)
                    ]:
                        answered.append((answer.json()["instance"], answer.json()["decision"]))
            except httpx2.TransportError:
                pass
            killer.join()
    assert len(answered) > 3


def kill_at(process: Any, moment: float) -> Any:
    import threading

    timer = threading.Timer(max(0, moment - time.monotonic()), process.kill)
    timer.start()
    return timer
