"""The page on which images are classified, in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from browser import Screen, payload, shown
from conftest import DATA
from heads import marked
from images import dicom, png, radiograph
from live import Live
from playwright.sync_api import Browser, Route, expect

FRONTAL = DATA / "frontal-0003.jpg"
LATERAL = DATA / "lateral-0013-header-says-pa.dcm"
NO_CHEST = payload("hand.png", png(marked(radiograph(), "no_chest")))
TURNED = payload("turned.png", png(marked(radiograph(seed=1), "turn_90", "inverted")))
NO_IMAGE = payload("notes.txt", b"no image")
OPENED = 4  # images
# Without it, a slow machine would take so long that pictures of the screen are asked for
NEVER_LATE = """() => {
    const before = setTimeout;
    window.setTimeout = (act, delay, ...rest) => delay >= 10_000 ? 0 : before(act, delay, ...rest);
}"""


@pytest.fixture
def copying(browser: Browser, live: Live) -> Iterator[Screen]:
    """A tab that may read the clipboard."""
    permissions = ["clipboard-read", "clipboard-write"]
    with shown(browser, live.url, permissions=permissions) as found:
        yield found.open()


def opacity(screen: Screen) -> float:
    found = screen.detail.locator("canvas.evidence").evaluate(
        "(it) => getComputedStyle(it).opacity"
    )
    return float(found)


def many(count: int) -> list[dict[str, Any]]:
    """So many files, of which every third is a lateral."""
    data = [FRONTAL.read_bytes(), FRONTAL.read_bytes(), LATERAL.read_bytes()]
    return [payload(f"n{n:03}", data[n % 3]) for n in range(count)]


def open_card(screen: Screen, place: int) -> None:
    """Click on it, and wait for its picture."""
    card = screen.cards.nth(place)
    card.click()
    name = card.locator(".name").inner_text()
    expect(screen.detail.get_by_role("heading", name=name)).to_be_visible()
    expect(screen.detail.get_by_role("img", name="The radiograph")).to_be_visible()


def rows_of(screen: Screen) -> list[dict[str, str]]:
    """Of the CSV."""
    with screen.page.expect_download() as download:
        screen.page.get_by_role("button", name="Download CSV").click()
    text = Path(download.value.path()).read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def paths(screen: Screen, ending: str = "") -> list[str]:
    """Of the classifications that were asked for."""
    found = [url.partition("/v1/")[2] for url in screen.sent if "/v1/classify" in url]
    return [path for path in found if path.endswith(ending)]


def check_views(screen: Screen, count: int) -> None:
    """Each of `many` has its own answer."""
    rows = rows_of(screen)
    assert [row["name"] for row in rows] == [f"n{n:03}" for n in range(count)]
    views = [row["view"] for row in rows]
    assert views == ["lateral" if n % 3 == 2 else "frontal" for n in range(count)]


def test_an_image_is_shown_with_all_that_is_known(screen: Screen) -> None:
    """The picture, the evidence, the scale, and what the header says."""
    screen.choose(LATERAL).answered(1)
    detail = screen.detail
    expect(detail.get_by_role("heading", name=LATERAL.name)).to_be_visible()
    expect(detail).to_contain_text("The header names the other view.")
    expect(detail).to_contain_text("PAdisagrees")
    expect(detail.get_by_role("img", name=re.compile("Cutoff 0.512. Review from"))).to_be_visible()
    picture = detail.get_by_role("img", name="The radiograph")
    assert picture.evaluate("(it) => it.decode().then(() => it.naturalHeight)") > 128
    assert opacity(screen) == 0.35
    slider = detail.get_by_role("slider", name="Evidence")
    slider.focus()
    for _ in range(20):
        screen.page.keyboard.press("ArrowRight")
    assert opacity(screen) == 1
    detail.get_by_role("radio", name="Network input").check()
    squashed = detail.get_by_role("img", name=re.compile("What the network saw"))
    assert squashed.evaluate("(it) => [it.naturalWidth, it.naturalHeight]") == [128, 128]


def test_heads_warnings_and_problems_are_in_words(screen: Screen) -> None:
    """Each kind of answer, and a file that is no image."""
    padded = payload("padded.dcm", dicom(radiograph(), RescaleSlope="0", RescaleIntercept="0"))
    screen.choose(NO_CHEST, TURNED, NO_IMAGE, padded).answered(4)
    expect(screen.card("hand.png")).to_contain_text("Not chest")
    screen.card("hand.png").click()
    expect(screen.detail).to_contain_text("so the PFI means nothing")
    expect(
        screen.detail.get_by_role("img", name=re.compile("of a chest radiograph"))
    ).to_be_visible()
    screen.card("turned.png").click()
    expect(screen.detail).to_contain_text("turn 90° clockwise")
    expect(screen.detail).to_contain_text("Invertedyes")
    screen.card("notes.txt").click()
    expect(screen.detail).to_contain_text("Not an image")
    expect(screen.detail).to_contain_text("unrecognised_format")
    screen.card("padded.dcm").click()
    expect(screen.detail).to_contain_text("Rescale Slope is zero")


def test_json_and_curl_are_copied(copying: Screen, live: Live, tmp_path: Path) -> None:
    """The JSON is the answer of the API, and the line gives the same in a shell."""
    name = "it's $(touch pwned) `here`.dcm"
    (tmp_path / name).write_bytes(LATERAL.read_bytes())
    copying.choose(tmp_path / name).answered(1)
    answer = json.loads(copying.copied("Copy JSON"))
    assert answer["sop_instance_uid"].startswith("2.25.")
    assert "explanation" not in answer
    line = copying.copied("Copy curl command")
    assert shlex.split(line)[-2:] == [f"@{name}", f"{live.url}/v1/classify"]
    run = subprocess.run(
        ["bash", "-c", f"{line} -s"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout)["sop_instance_uid"] == answer["sop_instance_uid"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_images_are_filtered_sorted_and_counted(screen: Screen) -> None:
    """By view, review, header and refusal."""
    screen.choose(FRONTAL, LATERAL, NO_CHEST, NO_IMAGE).answered(4)
    for name, cards in {
        "All 4": 4, "Frontal 1": 1, "Lateral 1": 1, "Not chest 1": 1, "Header disagrees 1": 1,
        "Refused 1": 1,
    }.items():  # fmt: skip
        screen.page.get_by_role("radio", name=name, exact=True).check()
        expect(screen.cards).to_have_count(cards)
    screen.page.get_by_role("radio", name=re.compile("Review")).check()
    screen.page.get_by_role("radio", name="All 4").check()
    screen.page.get_by_label("Sort").select_option("By name")
    names = screen.page.locator(".card .name")
    expect(names.first).to_have_text(FRONTAL.name)
    screen.page.get_by_label("Sort").select_option("Most certain first")
    expect(names.last).to_have_text("notes.txt")


def test_the_csv_is_safe_in_a_spreadsheet(screen: Screen) -> None:
    """A row for each image; a name that begins a formula is marked."""
    name = '=HYPERLINK("x"),\n1.png'
    screen.choose(payload(name, FRONTAL.read_bytes()), NO_IMAGE, LATERAL).answered(3)
    rows = rows_of(screen)
    assert [row["name"] for row in rows] == [f"'{name}", "notes.txt", LATERAL.name]
    assert [row["error"] for row in rows] == ["", "unrecognised_format", ""]
    assert rows[2]["header_agrees"] == "false"
    assert float(rows[0]["pfi"]) > 0.5


def test_a_zip_is_answered_entry_by_entry(screen: Screen) -> None:
    """By POST /v1/classify/batch, with the names of its entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(FRONTAL, "study/one.jpg")
        archive.write(LATERAL, "study/<b>two</b>.dcm")
        archive.writestr("read me.txt", "no image")
    screen.choose(payload("study.zip", buffer.getvalue())).answered(3)
    screen.card("study.zip/study/<b>two</b>.dcm").click()
    expect(screen.detail).to_contain_text("No picture: entries of archives are not shown.")
    assert [url for url in screen.sent if url.endswith("/batch")] == [
        f"{screen.url}/v1/classify/batch"
    ]


def test_a_folder_is_read_without_its_hidden_files(screen: Screen, tmp_path: Path) -> None:
    """With the paths of its files."""
    (tmp_path / "study" / "series").mkdir(parents=True)
    (tmp_path / "study" / "series" / "one.jpg").write_bytes(FRONTAL.read_bytes())
    (tmp_path / "study" / ".hidden").write_text("x")
    screen.page.locator("input[webkitdirectory]").set_input_files(tmp_path / "study")
    screen.answered(1)
    expect(screen.card("study/series/one.jpg")).to_contain_text("Frontal")


def test_files_are_dropped_anywhere(screen: Screen) -> None:
    """On the whole page, which says so meanwhile."""
    make = """() => {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["no image"], "dropped.txt"));
        return transfer;
    }"""
    transfer = screen.page.evaluate_handle(make)
    screen.page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(screen.page.get_by_text("Drop to classify")).to_be_visible()
    screen.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(screen.card("dropped.txt")).to_contain_text("Not an image")
    expect(screen.page.get_by_text("Drop to classify")).to_have_count(0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_service_is_waited_for(screen: Screen, status: int) -> None:
    """For as long as it asks; no image is lost."""
    refusals = iter([status] * 3)

    def refuse(route: Route) -> None:
        if next(refusals, None) is None:
            route.continue_()
        else:
            route.fulfill(status=status, headers={"Retry-After": "1"}, json={"code": "queue_full"})

    screen.page.route("**/v1/classify**", refuse)
    screen.choose(FRONTAL, LATERAL)
    expect(screen.page.get_by_text("the service is full, continuing in 1 s")).to_be_visible()
    screen.answered(2)
    expect(screen.card(FRONTAL.name)).to_contain_text("Frontal")


def test_work_is_cancelled_and_resumed(screen: Screen) -> None:
    """What was not answered waits, and is answered later."""
    screen.page.route("**/v1/classify**", lambda _: None)  # no answer
    screen.choose(*(payload(f"{n}.jpg", FRONTAL.read_bytes()) for n in range(9)))
    screen.page.get_by_role("button", name="Cancel").click()
    expect(screen.page.get_by_text("Stopped at 0 of 9")).to_be_visible()
    screen.page.unroute("**/v1/classify**")
    screen.page.get_by_role("button", name="Resume").click()
    screen.answered(9)
    screen.page.get_by_role("button", name="Clear").click()
    expect(screen.page.get_by_role("heading", name="Frontal or lateral?")).to_be_visible()


def test_a_service_that_is_away_is_asked_again(screen: Screen) -> None:
    """Then the image has a problem, and a button to try again."""
    screen.page.clock.install()
    screen.page.route("**/v1/classify**", lambda route: route.abort())
    screen.choose(FRONTAL)
    for _ in range(20):
        screen.page.clock.run_for(10_000)
        if screen.page.get_by_text("The service cannot be reached").count():
            break
    screen.page.clock.resume()
    expect(screen.detail).to_contain_text("The service cannot be reached")
    screen.page.unroute("**/v1/classify**")
    screen.detail.get_by_role("button", name="Try again").click()
    screen.answered(1)
    expect(screen.card(FRONTAL.name)).to_contain_text("Frontal")
    screen.faults[:] = [fault for fault in screen.faults if "ERR_FAILED" not in fault]


def test_many_files_are_sent_in_groups(screen: Screen) -> None:
    """Each with its own answer; an archive and a file that is no image among them, too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(FRONTAL, "one.jpg")
    others = [payload("study.zip", buffer.getvalue()), NO_IMAGE]
    screen.choose(*many(30), *others, *many(60)[30:]).answered(62)
    rows = {row["name"]: row for row in rows_of(screen)}
    assert len(rows) == 62
    for number in range(60):
        assert rows[f"n{number:03}"]["view"] == ("lateral" if number % 3 == 2 else "frontal")
    assert rows["study.zip/one.jpg"]["view"] == "frontal"
    assert rows["notes.txt"]["error"] == "unrecognised_format"
    assert len(paths(screen, "/batch")) == 3
    assert paths(screen, "classify") == []


def test_pictures_wait_until_groups_are_answered(screen: Screen) -> None:
    """But those of the opened images come at once, and those of the screen follow."""
    held: list[Route] = []
    batches = iter([None])

    def hold_the_second(route: Route) -> None:
        if next(batches, held) is None:
            route.continue_()
        else:
            held.append(route)

    screen.page.evaluate(NEVER_LATE)
    screen.page.route("**/v1/classify/batch", hold_the_second)
    screen.choose(*many(60))
    # Either group may be the first to arrive; what it answered comes to the top
    screen.page.get_by_label("Sort").select_option("Most certain first")
    screen.page.get_by_text(re.compile("^(28|32) of 60")).wait_for()
    for place in range(OPENED):
        open_card(screen, place)
    asked = paths(screen, "explain=true&lane=backfill")
    # The first of all is opened without a click, if it is answered
    assert OPENED <= len(asked) <= OPENED + 1
    assert paths(screen, "explain=true") == []
    held[0].continue_()
    screen.answered(60)
    expect(screen.page.locator(".card canvas.evidence").nth(3)).to_be_visible()
    assert len(paths(screen, "explain=true")) < 40


def test_pictures_of_the_screen_come_if_groups_take_long(screen: Screen) -> None:
    """One at a time, in the lane of the groups."""
    batches = iter([None])

    def hold_the_others(route: Route) -> None:
        if next(batches, route) is None:
            route.continue_()

    screen.page.route("**/v1/classify/batch", hold_the_others)
    screen.choose(*many(60))
    # either group may be the first to arrive; what it answered comes to the top
    screen.page.get_by_label("Sort").select_option("Most certain first")
    expect(screen.page.locator(".card canvas.evidence").nth(3)).to_be_visible()
    assert len(paths(screen, "explain=true&lane=backfill")) >= 4
    assert paths(screen, "explain=true") == []


def test_what_a_group_does_not_answer_is_sent_alone(screen: Screen) -> None:
    """After a group that ends early, and one in which the service failed."""
    answer = httpx2.post(f"{screen.url}/v1/classify", content=FRONTAL.read_bytes()).json()
    failed = {"code": "internal", "title": "Failed", "status": 500, "detail": "", "type": ""}
    lines = [{"name": "0", **answer}, {"name": "1", "error": failed}, {"name": "99", **answer}]
    body = "\n".join(json.dumps(line) for line in lines)
    first = iter([body])

    def cut(route: Route) -> None:
        text = next(first, None)
        route.continue_() if text is None else route.fulfill(body=text)

    screen.page.route("**/v1/classify/batch", cut)
    screen.choose(*many(60)).answered(60)
    check_views(screen, 60)
    assert len(paths(screen, "/batch")) == 2


def test_where_groups_are_refused_each_file_is_sent_alone(screen: Screen) -> None:
    """As by a proxy that allows small bodies only."""
    screen.page.route("**/v1/classify/batch", lambda route: route.fulfill(status=413))
    screen.choose(*many(120)).answered(120)
    check_views(screen, 120)
    assert len(paths(screen, "/batch")) <= 3


def test_groups_are_cancelled_and_resumed(screen: Screen) -> None:
    """What was not answered waits, and is answered later."""
    screen.page.route("**/v1/classify/batch", lambda _: None)  # no answer
    screen.choose(*many(60))
    screen.page.get_by_role("button", name="Cancel").click()
    expect(screen.page.get_by_text("Stopped at 0 of 60")).to_be_visible()
    screen.page.unroute("**/v1/classify/batch")
    screen.page.get_by_role("button", name="Resume").click()
    screen.answered(60)
    check_views(screen, 60)


def test_of_many_cards_those_on_the_screen_exist_and_few_pictures_are_held(screen: Screen) -> None:
    """And those that come into view get theirs."""
    screen.choose(*(payload(f"{n:03}.jpg", FRONTAL.read_bytes()) for n in range(150)))
    screen.answered(150)
    cards = screen.cards
    assert 6 <= cards.count() <= 40
    explained = sum("explain" in url for url in screen.sent)
    assert explained < 60
    screen.page.get_by_role("listbox").press("End")
    expect(screen.card("149.jpg").locator("img")).to_be_visible()
    expect(screen.card("149.jpg")).to_have_attribute("aria-setsize", "150")
    assert sum("explain" in url for url in screen.sent) < 110
