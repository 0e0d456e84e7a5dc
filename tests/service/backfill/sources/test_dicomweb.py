import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from archive_servers import ROOT, Orthanc, orthanc
from conftest import ROOT as REPOSITORY
from fault_proxy import proxy
from images import dicom, radiograph
from PIL import Image
from pydicom import uid

from model_store import PreprocessSpec
from service.backfill.results.rows import ItemError, Names, Rendered, Source, SourceError
from service.backfill.sources import OptionsError, dicomweb, open_source
from service.imaging import image_to_tensor

PIXELS = radiograph(48, 40)
DAYS = ["20240501", "20240502", "20240504"]
PERIOD = {"since": "2024-05-01", "until": "2024-05-04"}
FAST: dict[str, Any] = PERIOD | {
    "first_delay_seconds": 0.05,
    "max_delay_seconds": 0.2,
    "requests_per_second": 1000,
    "page_instances": 7,
}


def instance(day: str, number: int, modality: str, syntax: str) -> tuple[str, bytes]:
    study, series = f"{ROOT}.{day}.{number // 4}", f"{ROOT}.{day}.{number // 2}.{len(modality)}"
    series += f".{ord(modality[0])}"
    sop = f"{series}.{number}"
    data = dicom(
        PIXELS,
        syntax,
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        SOPInstanceUID=sop,
        MediaStorageSOPInstanceUID=sop,
        StudyDate=day,
        Modality=modality,
    )
    return f"studies/{study}/series/{series}/instances/{sop}", data


def archived() -> dict[str, bytes]:
    """20 CR or DX images of each day, as they are stored, by where they are."""
    kinds = [("CR", uid.JPEG2000Lossless), ("DX", uid.ExplicitVRLittleEndian)]
    return dict(instance(day, number, *kinds[number % 2]) for day in DAYS for number in range(20))


IMAGES = archived()


# Of another month, and large enough to be rendered smaller
LARGE = radiograph(640, 512)
PADDED = np.pad(LARGE[40:-40, 40:-40], 40, constant_values=65535)
TRUSTED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "12 bit": (LARGE, uid.ExplicitVRLittleEndian, {}),
    "window": (LARGE, uid.JPEGLosslessSV1, {"WindowCenter": "900", "WindowWidth": "300"}),
    "MONOCHROME1": (
        4095 - LARGE,
        uid.ExplicitVRLittleEndian,
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ),
    "8 bit": ((LARGE >> 4).astype(np.uint8), uid.JPEGBaseline8Bit, {}),
}
DISTRUSTED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "inverse": (4095 - LARGE, uid.ExplicitVRLittleEndian, {"PresentationLUTShape": "INVERSE"}),
    "slope": (
        4095 - LARGE,
        uid.ExplicitVRLittleEndian,
        {"RescaleSlope": "-1", "RescaleIntercept": "4095"},
    ),
    "frames": (LARGE, uid.ExplicitVRLittleEndian, {"NumberOfFrames": 2}),
    "padded": (PADDED, uid.ExplicitVRLittleEndian, {"PixelPaddingValue": 65535}),
}
SHOWN = FAST | {"since": "2024-06-01", "until": "2024-06-01", "rendered": 256}


def large() -> dict[str, tuple[str, bytes]]:
    """Where each of them is, and what."""
    found = {}
    for number, (name, (pixels, syntax, more)) in enumerate((TRUSTED | DISTRUSTED).items(), 1):
        sop = f"{ROOT}.6.1.{number}"
        names = {"StudyInstanceUID": f"{ROOT}.6", "SeriesInstanceUID": f"{ROOT}.6.1"}
        names |= {"SOPInstanceUID": sop, "MediaStorageSOPInstanceUID": sop}
        data = dicom(pixels, syntax, StudyDate="20240601", **names, **more)
        found[name] = f"studies/{ROOT}.6/series/{ROOT}.6.1/instances/{sop}", data
    return found


PICTURES = large()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        others = [
            instance("20240430", 1, "CR", uid.ExplicitVRLittleEndian),
            instance("20240501", 1, "MR", uid.ExplicitVRLittleEndian),
        ]
        more = [*others, *PICTURES.values()]
        started.store([*IMAGES.values(), *(data for _, data in more)])
        yield started


OPENED: list[Source] = []


def opened(address: str, options: dict[str, Any]) -> Source:
    OPENED.append(open_source(address, options))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    while OPENED:
        OPENED.pop().close()


def read_all(source: Source, locators: list[str], threads: int = 8) -> dict[str, bytes]:
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(locators, map(bytes, pool.map(source.read, locators)), strict=True))


def test_a_pacs_gives_each_radiograph_of_the_days_once_as_it_is_stored(pacs: Orthanc) -> None:
    """Day by day, in the same order each time; nothing is decompressed on the way."""
    source = opened(pacs.address, FAST)
    found = list(source.find())
    assert sorted(found) == sorted(IMAGES)
    days = [locator.split("/")[1].removeprefix(ROOT + ".").split(".")[0] for locator in found]
    assert days == sorted(days)
    assert list(opened(pacs.address, FAST | {"page_instances": 500}).find()) == found
    whole = opened(pacs.address, FAST | {"partition_days": 30, "modalities": "DX"})
    assert sorted(whole.find()) == sorted(list(IMAGES)[1::2])
    assert read_all(source, found) == IMAGES


def test_a_tenth_of_answers_refused_or_cut_costs_only_time(pacs: Orthanc) -> None:
    """All images, no duplicates, and never more requests than the limits allow."""
    chance = random.Random(1)
    with proxy(pacs.address) as between:
        between.spoil = lambda _: chance.choices([0, 503, 1], [85, 10, 5])[0]
        source = opened(between.address, FAST | {"requests_per_second": 60, "concurrency": 3})
        begin = time.monotonic()
        found = list(source.find())
        assert len(found) == len(IMAGES)
        assert read_all(source, found) == IMAGES
        seconds = time.monotonic() - begin
    assert {headers["Accept-Encoding"] for headers in between.headers} == {"identity"}
    assert between.spoiled > 5
    assert between.most_inside <= 3
    assert len(between.times) <= seconds * 60 + 1
    spans = zip(between.times, between.times[30:], strict=False)
    assert min(later - earlier for earlier, later in spans) > 0.9 * 30 / 60


def test_a_pacs_that_is_restarted_costs_only_time(pacs: Orthanc) -> None:
    """Killed in the middle of a listing and of reads, and back a second later."""
    source = opened(pacs.address, FAST)
    listing = source.find()
    found = [next(listing)]
    pacs.stop()
    back = threading.Timer(1, pacs.start)
    back.start()
    found += listing
    back.join()
    assert sorted(found) == sorted(IMAGES)
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(source.read, locator) for locator in found]
        pacs.stop()
        back = threading.Timer(1, pacs.start)
        back.start()
        assert dict(zip(found, (bytes(read.result()) for read in reads), strict=True)) == IMAGES
    back.join()


def test_what_a_pacs_has_not_is_an_outcome_of_its_own(pacs: Orthanc) -> None:
    """404 is not tried again, nor what is too large, nor what is no instance at all."""
    source = opened(pacs.address, FAST | {"first_delay_seconds": 60, "max_image_bytes": 9})
    first = next(iter(IMAGES))
    for locator, code in {
        first: "entry_too_large",
        f"{first}9": "not_found",
        f"{first}/../../x": "not_found",
        "studies/../series/../instances/..": "not_found",
    }.items():
        with pytest.raises(ItemError) as caught:
            source.read(locator)
        assert caught.value.code == code


@pytest.mark.parametrize("status", [500, 403, 406, 1])
def test_one_image_that_a_pacs_cannot_give_does_not_hold_up_the_others(
    pacs: Orthanc, status: int
) -> None:
    """The archive answers other requests: the failure is the image's own."""
    bad, good = list(IMAGES)[:2]
    with proxy(pacs.address) as between:
        between.spoil = lambda path: status if path.endswith(bad) else 0
        source = opened(between.address, FAST | {"max_tries": 2})
        with pytest.raises(ItemError) as caught:
            source.read(bad)
        assert caught.value.code == "unreadable_file"
        assert not any(uid in str(caught.value) for uid in bad.split("/")[1::2])
        assert source.read(good) == IMAGES[good]


def test_a_pacs_that_lists_what_it_cannot_read_costs_only_time(pacs: Orthanc) -> None:
    """As while its disks are away: no image is at fault for what none is given."""
    first, second = list(IMAGES)[:2]
    with proxy(pacs.address) as between:
        source = opened(between.address, FAST | {"max_tries": 2})
        assert source.read(first) == IMAGES[first]
        between.spoil = lambda path: 500 if "/series/" in path else 0
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(source.read, second)
            deadline = time.monotonic() + 20
            while between.spoiled < 8:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert not reading.done()
            between.spoil = lambda _: 0
            assert reading.result() == IMAGES[second]


@pytest.mark.parametrize("status", [401, 403])
def test_a_pacs_that_refuses_everything_fails_no_image(pacs: Orthanc, status: int) -> None:
    """It is asked once or twice, not for ever."""
    with proxy(pacs.address) as between:
        between.spoil = lambda _: status
        source = opened(between.address, FAST)
        with pytest.raises(SourceError, match=str(status)):
            source.read(next(iter(IMAGES)))
        with pytest.raises(SourceError, match=str(status)):
            list(source.find())
        assert len(between.times) <= 3


def test_a_pacs_that_asks_for_a_pause_gets_it(pacs: Orthanc) -> None:
    """Retry-After counts for all requests, however long a back-off would be."""
    with proxy(pacs.address) as between:
        between.retry_after = "1"
        between.spoil = lambda _: 429 if len(between.times) == 1 else 0
        source = opened(between.address, FAST)
        locators = list(IMAGES)[:4]
        assert read_all(source, locators, 1) == {name: IMAGES[name] for name in locators}
    assert between.times[1] - between.times[0] >= 1


@pytest.mark.parametrize("kind", ["token", "file", "user"])
def test_who_asks_is_said_by_variables_and_nowhere_else(
    pacs: Orthanc, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: Any
) -> None:
    """A bearer token, one in a file that changes, or a name and a password."""
    caplog.set_level(0)
    expected = ["Bearer one", "Bearer one"]
    if kind == "token":
        monkeypatch.setenv("CXRVIEW_DICOMWEB_TOKEN", "one")
    elif kind == "file":
        monkeypatch.setenv("CXRVIEW_DICOMWEB_TOKEN_FILE", str(tmp_path / "token"))
        (tmp_path / "token").write_text("one\n")
        expected = ["Bearer one", "Bearer two"]
    else:
        monkeypatch.setenv("CXRVIEW_DICOMWEB_USER", "us")
        monkeypatch.setenv("CXRVIEW_DICOMWEB_PASSWORD", "er")
        expected = ["Basic dXM6ZXI="] * 2
    with proxy(pacs.address) as between:
        source = opened(between.address, FAST)
        source.read(next(iter(IMAGES)))
        if kind == "file":
            (tmp_path / "token").write_text("two")
        source.read(list(IMAGES)[1])
        assert [headers["Authorization"] for headers in between.headers] == expected
    assert ROOT not in caplog.text


def test_outside_its_hours_a_pacs_is_not_asked(pacs: Orthanc) -> None:
    """A read waits; closing the source ends the wait."""
    hour = (time.localtime().tm_hour + 3) % 24
    hours = f"{hour:02}:00-{(hour + 1) % 24:02}:00"
    with proxy(pacs.address) as between:
        source = opened(between.address, FAST | {"off_peak": hours})
        threading.Timer(0.2, source.close).start()
        with pytest.raises(SourceError, match="closed"):
            source.read(next(iter(IMAGES)))
        assert not between.times


def test_a_pacs_renders_a_radiograph_in_its_own_shape(pacs: Orthanc) -> None:
    """The model sees what it sees of the stored image, and the names of the instance are kept."""
    source = opened(pacs.address, SHOWN)
    listed = set(source.find())
    for name in TRUSTED:
        path, data = PICTURES[name]
        assert f"{path}/rendered?viewport=256,320" in listed
        found = source.read(f"{path}/rendered?viewport=256,320")
        assert isinstance(found, Rendered)
        assert found.of == Names(*path.split("/")[1::2])
        assert Image.open(io.BytesIO(found.data)).size == (256, 320)
        spec = PreprocessSpec()
        seen, stored = (image_to_tensor(each, spec).astype(int) for each in (found.data, data))
        assert np.abs(seen - stored).mean() < 4


def test_what_is_small_is_rendered_as_large_as_it_is(pacs: Orthanc) -> None:
    """Nothing is enlarged; the shape of what a listing does not describe is its own, too."""
    assert set(opened(pacs.address, FAST | {"rendered": 256}).find()) == {
        f"{path}/rendered" for path in IMAGES
    }


def test_an_instance_whose_picture_cannot_be_trusted_is_read_as_it_is_stored(pacs: Orthanc) -> None:
    """By what the listing says of it, or by the few grey levels that padding leaves to it."""
    source = opened(pacs.address, SHOWN)
    listed = set(source.find())
    for name in DISTRUSTED:
        path, data = PICTURES[name]
        asked = f"{path}/rendered?viewport=256,320" if name == "padded" else path
        assert asked in listed
        assert bytes(source.read(asked)) == data


@pytest.mark.parametrize("status", [200, 400, 404, 406, 501, 503])
def test_an_archive_that_renders_nothing_fails_no_image(pacs: Orthanc, status: int) -> None:
    """It is said at the first image, after a look at some others."""
    with proxy(pacs.address) as between:
        between.spoil = lambda path: status if "/rendered" in path else 0
        source = opened(between.address, SHOWN | {"max_tries": 2, "patience_seconds": 1})
        with pytest.raises(SourceError, match="renders none of 5 images"):
            source.read(f"{PICTURES['12 bit'][0]}/rendered?viewport=256,320")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "unreadable_file"),
        (404, "not_found"),
        (406, "unreadable_file"),
        (500, "unreadable_file"),
        (1, "unreadable_file"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_instance_that_a_pacs_does_not_render_is_read_as_it_is_stored(
    pacs: Orthanc, status: int, code: str, first: bool
) -> None:
    """Whether it is the first or not, as others are rendered; its outcome is the instance's own."""
    bad, good = (f"{PICTURES[name][0]}/rendered?viewport=256,320" for name in ("12 bit", "window"))
    with proxy(pacs.address) as between:
        between.spoil = lambda path: status if path.endswith(bad) else 0
        source = opened(between.address, SHOWN | {"max_tries": 2})
        if not first:
            source.read(good)
        assert bytes(source.read(bad)) == PICTURES["12 bit"][1]
        assert isinstance(source.read(good), Rendered)  # who fails next is alone in it
        between.spoil = lambda path: status if PICTURES["12 bit"][0] in path else 0
        with pytest.raises(ItemError) as caught:
            source.read(bad)
        assert caught.value.code == code
        assert isinstance(source.read(good), Rendered)


def test_what_is_no_picture_is_not_taken_for_one(pacs: Orthanc) -> None:
    """A page that says sorry, with a status that says otherwise."""
    asked = f"{PICTURES['12 bit'][0]}/rendered?viewport=256,320"
    with proxy(pacs.address) as between:
        between.spoil = lambda path: 200 if path.endswith(asked) else 0
        source = opened(between.address, SHOWN)
        assert bytes(source.read(asked)) == PICTURES["12 bit"][1]


def test_an_archive_that_stops_rendering_is_noticed(
    pacs: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some refusals in a row, not after ten million."""
    monkeypatch.setattr(dicomweb, "MOST_REFUSED", 10)
    path = f"{PICTURES['12 bit'][0]}/rendered"
    with proxy(pacs.address) as between:
        source = opened(between.address, SHOWN)
        source.read(path)
        between.spoil = lambda asked: 406 if "/rendered" in asked else 0
        for _ in range(9):
            assert bytes(source.read(path)) == PICTURES["12 bit"][1]
        with pytest.raises(SourceError, match="renders none"):
            source.read(path)


def test_a_picture_that_is_too_large_is_no_reason_to_stop(pacs: Orthanc) -> None:
    """As from an archive that ignores the viewport."""
    source = opened(pacs.address, SHOWN | {"max_image_bytes": 9000})
    with pytest.raises(ItemError) as caught:
        source.read(f"{PICTURES['12 bit'][0]}/rendered")
    assert caught.value.code == "entry_too_large"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_pictures_are_of_the_format_that_was_asked_for(pacs: Orthanc, kind: str) -> None:
    """Each in one answer, which needs no multipart."""
    source = opened(pacs.address, SHOWN | {"rendered_as": kind})
    found = source.read(f"{PICTURES['window'][0]}/rendered?viewport=256,320")
    assert isinstance(found, Rendered)
    assert Image.open(io.BytesIO(found.data)).format == kind.upper()


@pytest.mark.parametrize("option", [{"rendered": 255}, {"rendered": "yes"}, {"rendered_as": "gif"}])
def test_pictures_that_no_model_could_use_are_not_asked_for(option: dict[str, Any]) -> None:
    """It is refused before anything is asked."""
    with pytest.raises(OptionsError, match="rendered"):
        open_source("http://127.0.0.1:9/dicom-web", PERIOD | option)


def test_a_job_of_pictures_says_so_in_every_row(pacs: Orthanc, tmp_path: Any) -> None:
    """And in its certificate, and at its end; an instance that is read as stored says that."""
    words = [sys.executable, "-m", "service.cli", "backfill", pacs.address, "--out", str(tmp_path)]
    words += ["--model", "swift/1.0.0", "--format", "ndjson"]
    for name in ("since", "until", "rendered"):
        words += ["--option", f"{name}={SHOWN[name]}"]
    run = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (part,) = (tmp_path / "results").rglob("part-*.ndjson")
    rows = {row["locator"]: row for row in map(json.loads, part.read_text().splitlines())}
    inputs = {locator.partition("/rendered")[0]: row["input"] for locator, row in rows.items()}
    expected = dict.fromkeys(TRUSTED, "rendered") | dict.fromkeys(DISTRUSTED, "stored")
    expected["frames"] = None
    assert inputs == {PICTURES[name][0]: kind for name, kind in expected.items()}
    assert {row["key"] for row in rows.values() if row["input"]} == {
        path.rpartition("/")[2] for name, (path, _) in PICTURES.items() if name != "frames"
    }
    certificate = json.loads((tmp_path / "certificate.json").read_text())
    assert certificate["inputs"] == {"stored": 3, "rendered": 4}
    assert "4 images as rendered by the archive, 3 as stored" in run.stderr
