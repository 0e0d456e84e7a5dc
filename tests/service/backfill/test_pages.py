"""The two pages: whole, safe whatever a header says, and on one sheet of paper."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import chromium
from results import CHEST, done, not_chest, published, refused

from service.backfill.report.write import Known, audit
from service.backfill.results.outcomes import ROW_CODES

PAGES = ("certificate.html", "audit/header-audit.html")
VOID = {"meta", "link", "br", "col"}
ATTACK = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What stands in a page; a tag that is closed in the wrong order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def few() -> list:
    """Ten stations."""
    return [
        done(n, station=f"XRAY{n % 10}", view_position="PA", view_position_agrees=n % 4 > 0)
        for n in range(40)
    ]


def odd() -> list:
    """Names that are HTML, control characters, nothing, and far longer than usual."""
    names = [ATTACK, "a&b", "\x00\x1b[31m\u202e", "", " ", None, '"><img src=x>', "x" * 5000]
    return [
        done(n, station=name, modality=name, month=name, view_position_agrees=False)
        for n, name in enumerate(names)
    ]


def many() -> list:
    """More stations, months, modalities, codes and models than a page has lines."""
    rows = [
        done(
            n, station=f"A STATION OF {n:04d}", month=f"{1990 + n % 35}-{1 + n % 12:02d}",
            modality=f"M{n % 40}", model=f"model-{n % 5}/1.0.0", view_position_agrees=n % 2 > 0,
        )
        for n in range(400)
    ]  # fmt: skip
    codes = sorted(ROW_CODES)
    return rows + [refused(1000 + n, code=codes[n % len(codes)]) for n in range(40)]


def headed() -> list:
    """As `many`, by a model that tells chest radiographs from others, with all that may be odd."""
    parts = [f"BODY PART {n}" for n in range(10)]
    lying = CHEST | {"rotation_degrees": 90, "inverted": True, "mirrored": True}
    chests = [
        replace(row, **lying, body_part_examined=parts[n % 10], body_part_agrees=n % 3 > 0)
        for n, row in enumerate(many())
        if row.outcome == "done"
    ]
    others = [
        not_chest(2000 + n, body_part_examined=f"CHEST {n % 10}", body_part_agrees=False)
        for n in range(30)
    ]
    return [*chests, *others, *(row for row in many() if row.outcome != "done")]


def many_months() -> list:
    """As many as stand on a page one by one."""
    return [done(n, month=f"2025-{1 + n % 12:02d}", view_position_agrees=False) for n in range(60)]


@pytest.fixture(params=["none", "few", "odd", "many", "many_months", "headed", "invalid"])
def out(request, tmp_path: Path) -> Path:
    """A folder with both pages."""
    rows = {"few": few, "odd": odd, "many": many, "many_months": many_months, "headed": headed}
    rows["invalid"] = headed
    (tmp_path / "results").mkdir()
    if request.param == "none":
        audit(tmp_path, tmp_path, Known(0, []))
        return tmp_path
    part = published(rows[request.param](), tmp_path)
    known = Known(part.rows, [part])
    if request.param == "invalid":
        for n in range(20):
            published([done(n, station=ATTACK)], tmp_path, f"again-{n}-{'long' * 40}")
    assert audit(tmp_path, tmp_path, known).valid == (request.param != "invalid")
    return tmp_path


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_needs_nothing_else(out, name) -> None:
    """No script, no image, no address; every tag closed; no control characters."""
    text = (out / name).read_text()
    page = Page(text)
    assert not {"script", "img", "iframe", "object"} & set(page.tags)
    assert page.addresses == ["data:,"]
    assert not re.search(r"@import|url\(", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)


def test_a_name_is_text_whatever_it_is(tmp_path: Path) -> None:
    """HTML in a station's name is shown, not obeyed."""
    published(odd(), tmp_path)
    audit(tmp_path, tmp_path)
    for name in PAGES:
        words = Page((tmp_path / name).read_text()).words
        assert {ATTACK, "a&b", "not said", "empty"} <= set(words)


def test_the_certificate_says_its_numbers(tmp_path: Path) -> None:
    """Found, done, skipped, failed, the verdict, and what is wrong."""
    part = published([*few(), refused(50)], tmp_path)
    audit(tmp_path, tmp_path, Known(part.rows, [part]))
    words = Page((tmp_path / PAGES[0]).read_text()).words
    assert {"VALID", "41", "40", "1", "XRAY3", "corrupt_image"} <= set(words)
    assert "NOT VALID" not in words

    audit(tmp_path, tmp_path, Known(99, [part]))
    words = Page((tmp_path / PAGES[0]).read_text()).words
    assert {"NOT VALID", "images found: 99; with an outcome: 41", "≠"} <= set(words)
    assert "VALID" not in words


def test_what_is_no_chest_radiograph_stands_apart(tmp_path: Path) -> None:
    """On both pages, with the body parts that headers say wrongly, and how images lie."""
    published(headed(), tmp_path)
    audit(tmp_path, tmp_path)
    certificate, headers = (Page((tmp_path / name).read_text()).words for name in PAGES)
    text = " ".join(certificate)
    assert "30 are no chest radiographs: they have no view" in text
    assert {"no chest", "not upright", "inverted", "mirrored", "Body Part"} <= set(certificate)
    assert "Body Part" in headers
    assert {"CHEST 0", "BODY PART 0", "others"} <= set(headers)


def test_the_pages_of_a_model_without_heads_say_nothing_of_body_parts(tmp_path: Path) -> None:
    """It cannot tell, and zeros would say that all are chest radiographs."""
    published(few(), tmp_path)
    audit(tmp_path, tmp_path)
    for name in PAGES:
        words = Page((tmp_path / name).read_text()).words
        assert not {"Body Part", "no chest", "not upright"} & set(words)


def test_a_page_is_one_sheet_of_a4(out, tmp_path: Path) -> None:
    """As a browser prints it, whatever the rows are."""
    program = chromium()
    for name in PAGES:
        pdf = tmp_path / "page.pdf"
        subprocess.run(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu",
                f"--user-data-dir={tmp_path / 'browser'}", "--no-pdf-header-footer",
                f"--print-to-pdf={pdf}", (out / name).as_uri(),
            ],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        assert len(re.findall(rb"/Type /Page\b", pdf.read_bytes())) == 1, name
