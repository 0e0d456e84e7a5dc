"""The page of jobs on archives, in a real browser, with real jobs of a real service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from browser import AXE, PHONE, Screen, shown, violations
from conftest import DATA
from images import dicom, radiograph
from live import Live, serving
from playwright.sync_api import Browser, Locator, Route, expect
from small_archives import write_archive

from service.api.auth.keys import new_key

IMAGES = 20
PAUSABLE = 3000  # so many are not done before a button is pressed
MARKUP = "<img src=x onerror=alert(1)>"
BUCKET, PACS = "s3://research/chest", "https://pacs.example/dicom-web"


@dataclass(frozen=True)
class Archives:
    """A service with jobs, and the folder that they may read."""

    live: Live
    folder: Path
    keys: dict[str, str]

    def api(self, path: str) -> httpx2.Response:
        """What the API answers to who has the permission."""
        headers = {"authorization": f"Bearer {self.keys['backfill']}"}
        return httpx2.get(f"{self.live.url}/v1/backfills{path}", headers=headers)


@pytest.fixture(scope="module")
def archives(headed_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    """Small, large, and oddly named folders; the permissions of keys are their names."""
    folder = tmp_path_factory.mktemp("archives")
    for name in ("small", "large", MARKUP):
        (folder / name).mkdir()
    write_archive(folder / "small", IMAGES)
    lateral = DATA / "lateral-0013-header-says-pa.dcm"
    (folder / "small" / lateral.name).write_bytes(lateral.read_bytes())
    for number in range(PAUSABLE):
        file = dicom(radiograph(64, 64), SOPInstanceUID=f"1.4.{number}") if number < 400 else b"x"
        (folder / "large" / f"{number:05d}").write_bytes(file)
    made = {name: new_key(name, frozenset({name})) for name in ("classify", "backfill")}
    work = tmp_path_factory.mktemp("jobs")
    (work / "keys").write_text("\n".join(line for _, line in made.values()))
    settings = {
        "model_store": str(headed_store),
        "model": "swift/2.0.0",
        "keys": str(work / "keys"),
        "backfill_folder": str(work / "jobs"),
        "backfill_sources": f"{folder},{BUCKET},{PACS}",
    }
    with serving(work / "log", **settings) as live:
        yield Archives(live, folder, {name: key for name, (key, _) in made.items()})


def opened(screen: Screen, archives: Archives, permission: str = "backfill") -> Screen:
    """The page of jobs, after a key is given."""
    screen.open("#jobs").page.get_by_label("Key or token").fill(archives.keys[permission])
    screen.page.get_by_role("button", name="Continue").click()
    return screen


@pytest.fixture
def jobs(browser: Browser, archives: Archives) -> Iterator[Screen]:
    """A tab with the page of jobs."""
    with shown(browser, archives.live.url, accept_downloads=True) as found:
        yield opened(found, archives)


def begun(screen: Screen, path: str) -> Locator:
    """A new job on a folder; the newest is the first."""
    screen.page.get_by_role("button", name="New job").click()
    screen.page.get_by_label("Path below it").fill(path)
    screen.page.get_by_role("button", name="Start job").click()
    expect(screen.page.get_by_role("dialog")).to_have_count(0)
    job = screen.page.get_by_role("article").first
    expect(job.get_by_role("heading", level=2)).to_contain_text(path)
    return job


def state(job: Locator) -> Locator:
    return job.get_by_role("status").first


def saved(screen: Screen, job: Locator, name: str) -> tuple[str, bytes]:
    """The name and the bytes of a file that a button downloads."""
    with screen.page.expect_download() as waited:
        job.get_by_role("button", name=name).click()
    return waited.value.suggested_filename, Path(waited.value.path()).read_bytes()


def test_a_job_is_started_followed_and_reported(jobs: Screen, archives: Archives) -> None:
    """To its end: counts, codes, certificate, header audit, and all its files."""
    job = begun(jobs, "small")
    expect(state(job)).to_have_text("Done")
    expect(job).to_contain_text("23 of 23 images")
    expect(job.locator(".outcomes")).to_have_text("Done 21Skipped 1Failed 1")
    job.get_by_role("button", name="Details").click()
    expect(job).to_contain_text("Valid: every image has exactly one outcome.")
    expect(job).to_contain_text("unrecognised_format1")
    row = job.get_by_role("row", name=re.compile("^View Position"))
    expect(row.get_by_role("cell")).to_have_text([re.compile(r"\d+"), "1", *2 * [re.compile(".")]])
    (newest, *_) = archives.api("").json()["backfills"]
    place = f"/{newest['id']}"
    for button, name in {
        "Results": "results", "Certificate": "certificate", "Header audit": "header-audit",
        "Worklist": "worklist",
    }.items():  # fmt: skip
        file, data = saved(jobs, job, f"{button} (")
        assert file.startswith(f"cxrview-{newest['id']}-{name}.")
        assert data == archives.api(f"{place}/{name}").content
    assert not [url for url in jobs.sent if archives.keys["backfill"] in url]
    job.get_by_role("button", name="Details").click()
    expect(job.get_by_text("Certificate", exact=True)).to_have_count(0)


def test_a_job_is_paused_resumed_and_cancelled(jobs: Screen) -> None:
    """And says how far it is; what is final is asked once more."""
    job = begun(jobs, "large")
    expect(state(job)).to_have_text("Running")
    expect(job).to_contain_text(re.compile(r"of [\d,]+ images.* · [\d.,]+ images/s"))
    job.get_by_role("button", name="Pause").click()
    expect(state(job)).to_have_text("Paused")
    expect(job.get_by_role("button", name="Resume")).to_be_focused()
    job.get_by_role("button", name="Resume").click()
    expect(state(job)).to_have_text(re.compile("Running|Waiting"))
    job.get_by_role("button", name="Cancel").click()
    dialog = jobs.page.get_by_role("dialog", name="Cancel this job for good?")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_have_count(0)
    expect(state(job)).not_to_have_text("Cancelled")
    job.get_by_role("button", name="Cancel").click()
    jobs.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    job.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(state(job)).to_have_text("Cancelled")
    expect(job.get_by_role("button")).to_have_text(["Details"])


def test_failed_images_are_tried_again(jobs: Screen, archives: Archives) -> None:
    """Those that were repaired are done then."""
    folder = archives.folder / "repaired"
    folder.mkdir()
    write_archive(folder, 2)
    job = begun(jobs, "repaired")
    expect(job.locator(".outcomes")).to_have_text("Done 2Skipped 1Failed 1")
    expect(state(job)).to_have_text("Done")
    (folder / "cut.png").write_bytes((DATA / "frontal-0003.jpg").read_bytes())
    job.get_by_role("button", name="Retry failed").click()
    expect(job.locator(".outcomes")).to_have_text("Done 3Skipped 1Failed 0")
    expect(job.get_by_role("button", name="Retry failed")).to_have_count(0)


def test_the_form_has_the_options_of_the_source(jobs: Screen, archives: Archives) -> None:
    """As the API describes them, of each kind of source; what is the default is not sent."""
    page = jobs.page
    page.get_by_role("button", name="New job").click()
    form = page.get_by_role("dialog", name="New job")
    labels = form.locator("label")
    expect(labels).to_contain_text(["Allowed source", "Path below it", "Since", "Until", "Format"])
    form.get_by_label("Path below it").fill("list.csv")
    expect(form).to_contain_text(f"List of files: {archives.folder}/list.csv")
    expect(form.get_by_label("Column", exact=True)).to_be_visible()
    form.get_by_label("Path below it").fill("old.zip")
    expect(form.get_by_label("Column", exact=True)).to_have_count(0)
    form.get_by_text("More options").click()
    expect(form.get_by_label("Most entries")).to_have_value("2000000")
    form.get_by_label("Allowed source").select_option(BUCKET)
    expect(form).to_contain_text(f"S3 bucket: {BUCKET}/old.zip")
    expect(form.get_by_role("checkbox", name="Anonymous")).not_to_be_checked()
    form.get_by_label("Allowed source").select_option(PACS)
    form.get_by_label("Path below it").fill("")
    expect(form.get_by_label("Modalities")).to_have_value("CR,DX")
    sent: list[Any] = []

    def keep(route: Route) -> None:
        if route.request.method == "POST":
            sent.append(json.loads(route.request.post_data or ""))
        route.continue_()

    page.route("**/v1/backfills", keep)
    form.get_by_label("Since").fill("2025-02-01")
    form.get_by_label("Until").fill("2025-01-01")
    form.get_by_label("Modalities").fill("CR, DX, RG")
    form.get_by_label("Requests per second").fill("2.5")
    form.get_by_label("Stop where a larger share fails").fill("0.01")
    form.get_by_role("button", name="Start job").click()
    expect(form.get_by_role("alert")).to_contain_text("since (2025-02-01) is after until")
    options = {
        "since": "2025-02-01", "until": "2025-01-01", "modalities": ["CR", "DX", "RG"],
        "requests_per_second": 2.5,
    }  # fmt: skip
    assert sent == [{"source": PACS, "options": options, "max_errors": 0.01}]
    form.get_by_role("button", name="Close").click()
    expect(form).to_have_count(0)


def test_an_answer_that_is_lost_makes_no_second_job(jobs: Screen, archives: Archives) -> None:
    """The request is sent again with the same key."""
    before = len(archives.api("").json()["backfills"])
    lost: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().text())
            route.abort()
        else:
            route.continue_()

    jobs.page.route("**/v1/backfills", lose)
    begun(jobs, MARKUP)
    assert len(lost) == 1
    assert len(archives.api("").json()["backfills"]) == before + 1
    assert jobs.faults[:1] == ["Failed to load resource: net::ERR_FAILED"]
    jobs.faults.clear()


def test_texts_of_jobs_are_texts(jobs: Screen) -> None:
    """The name of a folder, and the reason of what is refused."""
    job = begun(jobs, MARKUP)
    expect(job.get_by_role("heading", level=2)).to_contain_text(MARKUP)
    jobs.page.get_by_role("button", name="New job").click()
    jobs.page.get_by_label("Path below it").fill("../<b>secret</b>")
    jobs.page.get_by_role("button", name="Start job").click()
    alert = jobs.page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_contain_text("the path is not below an allowed folder")
    assert jobs.page.locator("main img, main b").count() == 0


def test_only_who_may_see_jobs_does(browser: Browser, archives: Archives) -> None:
    """Others have no such page, and are told why; nothing of it is asked of the service."""
    with shown(browser, archives.live.url) as screen:
        opened(screen, archives, "classify")
        expect(screen.page.get_by_role("main")).to_contain_text('lacks the permission "backfill"')
        expect(screen.page.get_by_role("link", name="Jobs")).to_have_count(0)
        assert not [url for url in screen.sent if "backfills" in url]
        screen.page.get_by_role("button", name="Forget the key").click()
        screen.page.get_by_role("button", name="Enter a key").click()
        screen.page.get_by_label("Key or token").fill(archives.keys["backfill"])
        screen.page.get_by_role("button", name="Continue").click()
        expect(screen.page.get_by_role("link", name="Jobs")).to_be_visible()
        expect(screen.page.get_by_role("button", name="New job")).to_be_visible()


def test_after_the_key_is_forgotten_nothing_is_asked(browser: Browser, archives: Archives) -> None:
    """The list is gone, and no dialog opens by itself."""
    with shown(browser, archives.live.url) as screen:
        page = screen.page
        page.clock.install()
        opened(screen, archives)
        expect(page.get_by_role("button", name="New job")).to_be_visible()
        with page.expect_request("**/v1/backfills"):
            page.clock.fast_forward(11_000)
        page.get_by_role("button", name="Forget the key").click()
        expect(page.get_by_role("button", name="Enter a key")).to_be_visible()
        before = len(screen.sent)
        page.clock.fast_forward(60_000)
        expect(page.get_by_role("article")).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert len(screen.sent) == before


def test_a_service_without_jobs_says_what_is_missing(screen: Screen) -> None:
    """The extra, and its settings."""
    screen.page.get_by_role("link", name="Jobs").click()
    main = screen.page.get_by_role("main")
    expect(main).to_contain_text('install the extra "backfill"')
    expect(main).to_contain_text("CXRVIEW_BACKFILL_SOURCES")
    expect(main.get_by_role("button")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_jobs(browser: Browser, archives: Archives, theme: str) -> None:
    """In the list, the details, the form and the question; nothing is wider than a phone."""
    options: Any = {"color_scheme": theme, "bypass_csp": True}
    with shown(browser, archives.live.url, **options) as screen:
        screen.page.add_init_script(path=AXE)
        opened(screen, archives)
        job = begun(screen, "small")
        expect(state(job)).to_have_text("Done")
        job.get_by_role("button", name="Details").click()
        job.get_by_role("table").wait_for()
        for size in ({"width": 1280, "height": 900}, PHONE):
            screen.page.set_viewport_size(size)
            assert violations(screen) == []
        assert screen.page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
        screen.page.get_by_role("button", name="New job").click()
        screen.page.get_by_label("Allowed source").select_option(PACS)
        screen.page.get_by_text("More options").click()
        assert violations(screen) == []
        screen.page.keyboard.press("Escape")
        job = begun(screen, "large")
        job.get_by_role("button", name="Cancel").click()
        assert violations(screen) == []
        screen.page.get_by_role("button", name="Cancel the job").click()
        expect(state(job)).to_have_text("Cancelled")
