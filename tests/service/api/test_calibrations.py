"""The calibration of a job's model on decided images: a real service, job, and calibration."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from disks import disk
from images import dicom, radiograph
from live import Live, serving
from review_jobs import decide_by_model, worked, write_varied

from model_store import SiteReport, Store
from service.api.auth.keys import new_key
from service.api.settings import Settings

DECIDED = 60
ARCHIVE = 64  # pairs
PERMISSIONS = {"boss": {"review", "admin"}, "ann": {"review"}, "it": {"backfill", "admin"}}
Json = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """Folders of a service, and keys by name."""

    folder: Path
    keys: dict[str, str]

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def settings(self, **changes: str | None) -> dict[str, str]:
        own = {
            "model_store": str(self.store.root),
            "model": "mean/1.0.0",
            "keys": str(self.folder / "keys"),
            "audit_log": str(self.folder / "audit"),
            "audit_key": str(self.folder / "secret"),
            "backfill_folder": str(self.folder / "jobs"),
            "backfill_sources": str(self.archive),
            "calibration_folder": str(self.scratch),
            "latency_budget_seconds": "60",
        }
        return {name: value for name, value in (own | changes).items() if value is not None}

    @contextmanager
    def served(self, **changes: str | None) -> Iterator[Live]:
        with serving(self.folder / "log", **self.settings(**changes)) as live:
            yield live

    def ask(self, live: Live, job: str, name: str = "boss", method: str = "GET") -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.keys[name]}"}
        url = f"{live.url}/v1/reviews/{job}/calibrations"
        return httpx2.request(method, url, headers=headers, timeout=60)

    def ended(self, live: Live, job: str) -> Json:
        """The newest calibration, when it has ended."""
        deadline = time.monotonic() + 240
        while (found := self.ask(live, job).json()["calibrations"][0])["ended"] is None:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return dict(found)

    def audited(self) -> list[Json]:
        lines = (self.folder / "audit").read_text().splitlines()
        return [each for each in map(json.loads, lines) if each.get("action") == "calibrate"]


@pytest.fixture(scope="module")
def reviewed(light: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """A job that is done, with decisions, and the service at its end."""
    folder = tmp_path_factory.mktemp("site")
    pairs = {name: new_key(name, frozenset(own)) for name, own in PERMISSIONS.items()}  # type: ignore[arg-type]
    (folder / "keys").write_text("\n".join(line for _, line in pairs.values()))
    (folder / "secret").write_bytes(bytes(range(32)))
    shutil.copytree(light.model_store, folder / "store")
    (folder / "scratch").mkdir()
    write_varied(folder / "archive", ARCHIVE)
    site = Site(folder, {name: key for name, (key, _) in pairs.items()})
    with site.served() as live:
        job = worked(live.url, site.archive, site.keys["it"])
        decide_by_model(live.url, job, DECIDED, site.keys["ann"])
    return site, job


@pytest.fixture
def site(reviewed: tuple[Site, str], tmp_path: Path) -> tuple[Site, str]:
    """A copy of its own; the job's source is where it was."""
    site, job = reviewed
    shutil.copytree(site.folder, tmp_path / "site", ignore=shutil.ignore_patterns("archive"))
    (tmp_path / "site" / "archive").symlink_to(site.archive)
    return Site(tmp_path / "site", site.keys), job


def sources(reviewed: tuple[Site, str]) -> str:
    return str(reviewed[0].archive)


def test_a_calibration_writes_a_new_version(site, reviewed) -> None:
    """With a report of before and after; images lie in private, and nothing of them is left."""
    own, job = site
    before = own.store.load("mean/1.0.0")
    with own.served(backfill_sources=sources(reviewed)) as live:
        assert own.ask(live, job).json() == {"reason": None, "calibrations": []}
        begun = own.ask(live, job, method="POST")
        assert begun.status_code == 202, begun.text
        second = own.ask(live, job, method="POST")
        assert (second.status_code, second.json()["code"]) == (409, "review_state")
        assert second.json()["detail"] == "a calibration runs already: one at a time"
        deadline = time.monotonic() + 60
        while not (folders := list(own.scratch.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert stat.S_IMODE(folders[0].stat().st_mode) == 0o700
        found = own.ended(live, job)
        assert (found["state"], found["reason"]) == ("done", None), found
        assert not list(own.scratch.iterdir())
        third = own.ask(live, job, method="POST")
        assert third.json()["version"] == "mean/1.0.2"
        assert own.ended(live, job)["state"] == "done"
    told = {key: found[key] for key in ("model", "version", "reader", "images", "read", "left_out")}
    assert told == {
        "model": "mean/1.0.0",
        "version": "mean/1.0.1",
        "reader": "boss",
        "images": DECIDED,
        "read": DECIDED,
        "left_out": 0,
    }
    report = SiteReport.model_validate(found["report"])
    card = own.store.load("mean/1.0.1").card
    assert (report.before.view.cutoff, report.after.view.cutoff) == (
        before.card.threshold,
        card.threshold,
    )
    assert (report.images, report.after.errors.n) == (DECIDED, DECIDED)
    assert card.calibrated_from == "mean/1.0.0"
    assert f"{DECIDED} images of job {job[:8]}" in card.limitations[-1]
    assert own.store.load("mean/1.0.0") == before
    entries = own.audited()
    assert [(each["client"], each["job"]) for each in entries] == [("boss", job)] * 3


def test_it_needs_both_permissions(site, reviewed) -> None:
    """To begin; a reader may see what there is."""
    own, job = site
    with own.served(backfill_sources=sources(reviewed)) as live:
        for name in ("ann", "it"):
            refused = own.ask(live, job, name, "POST")
            assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
        assert own.ask(live, job, "ann").status_code == 200
        assert own.ask(live, "0" * 32, method="POST").status_code == 404
    assert own.audited() == []
    assert own.store.list() == ["mean/1.0.0"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"calibration_folder": None}, "CXRVIEW_CALIBRATION_FOLDER names no folder for the images"),
        (
            {"calibration_folder": "/nowhere"},
            "the folder of CXRVIEW_CALIBRATION_FOLDER cannot be written to",
        ),
        (
            {"model_store": None, "model": "swift/1.0.0"},
            "CXRVIEW_MODEL_STORE is the package's own folder, which keeps no new versions",
        ),
    ],
    ids=["no folder", "no such folder", "the package's store"],
)
def test_what_the_operator_must_change_is_said(site, reviewed, changes, reason: str) -> None:
    """As the reason where it is not offered, and as the refusal of who tries."""
    own, job = site
    with own.served(backfill_sources=sources(reviewed), **changes) as live:
        assert own.ask(live, job).json()["reason"] == reason
        refused = own.ask(live, job, method="POST")
        assert (refused.status_code, refused.json()["detail"]) == (409, reason)
    assert own.store.list() == ["mean/1.0.0"]


def test_a_store_that_is_read_only_is_said(site, reviewed, tmp_path: Path) -> None:
    """As that of a container is."""
    own, job = site
    store = tmp_path / "mounted"
    with disk(store, 65536):
        shutil.copytree(own.store.root, store / "models")
        subprocess.run(["mount", "-o", "remount,ro", str(store)], check=True)
        changes = {"model_store": str(store / "models")}
        with own.served(backfill_sources=sources(reviewed), **changes) as live:
            reason = "the folder of CXRVIEW_MODEL_STORE cannot be written to"
            assert own.ask(live, job).json()["reason"] == reason


def test_too_few_decisions_are_counted(site, reviewed) -> None:
    """The reason says how many there are."""
    own, job = site
    headers = {"authorization": f"Bearer {own.keys['ann']}"}
    with own.served(backfill_sources=sources(reviewed)) as live:
        url = f"{live.url}/v1/reviews/{job}"
        entries = httpx2.get(f"{url}/worklist?show=all", headers=headers).json()["entries"]
        mine = next(each["instance"] for each in entries if each["mine"])
        undone = {"instance": mine, "decision": None}
        httpx2.post(f"{url}/decisions", headers=headers, json=undone).raise_for_status()
        assert own.ask(live, job).json()["reason"] == (
            "it needs 60 images that are decided frontal or lateral; there are 59"
        )


def test_images_that_are_others_now_are_left_out(site, reviewed) -> None:
    """Gone, or with another UID: they are counted, and with too few it fails and says so."""
    own, _ = site
    copy = own.folder / "archive"
    copy.unlink()
    shutil.copytree(reviewed[0].archive, copy)
    with own.served() as live:
        fresh = worked(live.url, copy, own.keys["it"])
        chosen = decide_by_model(live.url, fresh, DECIDED, own.keys["ann"])
        (copy / chosen[0]["name"]).unlink()
        other = dicom(radiograph(96, 96), SOPInstanceUID="1.3.9")
        (copy / chosen[1]["name"]).write_bytes(other)
        own.ask(live, fresh, method="POST").raise_for_status()
        found = own.ended(live, fresh)
    assert (found["state"], found["left_out"], found["read"]) == ("failed", 2, DECIDED)
    assert "needs 59 images" in found["reason"]
    assert not list(own.scratch.iterdir())
    assert own.store.list() == ["mean/1.0.0"]


def test_the_bytes_have_a_limit(site, reviewed) -> None:
    """Beyond it, nothing is calculated, and nothing is left."""
    own, job = site
    limit = {"max_calibration_bytes": "100000"}
    with own.served(backfill_sources=sources(reviewed), **limit) as live:
        own.ask(live, job, method="POST").raise_for_status()
        found = own.ended(live, job)
    assert found["reason"] == (
        "the images have more than 100000 bytes, the limit of CXRVIEW_MAX_CALIBRATION_BYTES"
    )
    assert found["read"] < DECIDED
    assert not list(own.scratch.iterdir())


def processes(text: str) -> list[str]:
    """Command lines of processes that name it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and f"/{os.getpid()}/" not in str(path):
            found.append(line)
    return found


def test_a_killed_service_leaves_nothing(site, reviewed) -> None:
    """The process ends with the service; the next start deletes the images and tells the end."""
    own, job = site
    with own.served(backfill_sources=sources(reviewed)) as live:
        own.ask(live, job, method="POST").raise_for_status()
        deadline = time.monotonic() + 120
        while not processes(str(own.scratch)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        live.process.kill()
        live.process.wait()
    deadline = time.monotonic() + 20
    while processes(str(own.scratch)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(own.scratch.iterdir())
    assert own.store.list() == ["mean/1.0.0"]  # it did not go on to its end
    with own.served(backfill_sources=sources(reviewed)) as live:
        found = own.ended(live, job)
        assert (found["state"], found["reason"]) == ("failed", "the service ended meanwhile")
        assert own.ask(live, job).json()["reason"] is None
    assert not list(own.scratch.iterdir())


def test_a_service_that_stops_ends_it(site, reviewed) -> None:
    """In order: nothing is left, and the record says why."""
    own, job = site
    with own.served(backfill_sources=sources(reviewed)) as live:
        own.ask(live, job, method="POST").raise_for_status()
        deadline = time.monotonic() + 120
        while not processes(str(own.scratch)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert live.end() == 0
        assert not processes(str(own.scratch))
        assert not list(own.scratch.iterdir())
    (record,) = (own.folder / "jobs" / job / "calibrations").iterdir()
    kept = json.loads(record.read_text())["calibration"]
    assert (kept["state"], kept["reason"]) == ("failed", "the service ended meanwhile")
