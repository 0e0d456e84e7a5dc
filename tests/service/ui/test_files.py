"""The files of the page, and how they are served: without a browser."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import httpx2
import pytest
from conftest import ROOT
from live import serving

from cxrview.results import COLUMNS
from service.api.middleware.security_headers import PAGE_POLICY, SECURITY_HEADERS
from service.api.routes.ui import MEDIA_TYPES, read_files

FOLDER = ROOT / "service" / "ui"
MODULES = sorted(FOLDER.glob("*.js"))
SOURCES = {path.name: path.read_text() for path in MODULES}
TEXTS = json.loads((FOLDER / "texts" / "en.json").read_text())
VENDORED = [*FOLDER.glob("vendor/versions.json"), ROOT / "tests/vendor/versions.json"]
MOST_BYTES = 150_000  # of all files, compressed
# Keys that are made of a word of an answer
MADE = re.compile(
    r"(title|nav|filter|order|state|view|mark|scale|problem|warning|head|use|orientation|picture|review"
    r"|job|kind|option|action|outcome|file|claim)\."
)


@pytest.mark.parametrize("listed", VENDORED, ids=lambda path: path.parent.parent.name)
def test_vendored_files_are_those_that_were_published(listed: Path) -> None:
    """Unchanged, and each with its licence."""
    for each in json.loads(listed.read_text()):
        file = listed.with_name(each["file"])
        assert hashlib.sha256(file.read_bytes()).hexdigest() == each["sha256"]
        licence = listed.with_name(each["file"].split(".")[0] + ".LICENSE").read_text()
        assert {"MIT": "MIT", "Apache-2.0": "Apache", "MPL-2.0": "Mozilla"}[
            each["licence"]
        ] in licence
    known = {each["file"] for each in json.loads(listed.read_text())}
    assert {path.name for path in listed.parent.glob("*.*js")} == known


def test_the_first_load_is_small() -> None:
    """All files together, as most are needed at once."""
    held = read_files()
    assert sum(len(file.compressed) for file in held.values()) < MOST_BYTES
    assert all(gzip.decompress(file.compressed) == file.data for file in held.values())


def test_the_page_names_its_modules_so_that_they_load_at_once() -> None:
    """Otherwise each would be found only when the one that imports it is there."""
    index = (FOLDER / "index.html").read_text()
    named = set(re.findall(r'(?:src|href)="ui/([\w./]+js)"', index))
    returns = set(re.findall(r'src="([\w./]+js)"', (FOLDER / "signed-in.html").read_text()))
    assert returns == {"signed_in.js"}
    assert named | returns == {*SOURCES, "vendor/preact.mjs", "vendor/htm.mjs"}


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No address of another server is in our files; a namespace is none."""
    for path in [*MODULES, FOLDER / "index.html", FOLDER / "style.css"]:
        assert not re.search(r"(?:https?:)?//\w+\.\w+", path.read_text()), path


def test_no_file_makes_markup_of_text() -> None:
    """Neither HTML, nor code, nor addresses from texts."""
    unsafe = re.compile(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function")
    assert {name for name, source in SOURCES.items() if unsafe.search(source)} == set()


def test_each_text_is_in_the_file_of_texts_and_used() -> None:
    """So that a language is one file, and has no dead lines."""
    code = "".join(SOURCES.values())
    asked = set(re.findall(r'\bt\(\s*"([\w.-]+)"', code))
    known = {re.sub(r"\.(one|other)$", "", key) for key in TEXTS}
    assert asked - known == set()
    literal = set(re.findall(r'"([a-z_]+\.[\w.-]+)"', code))
    assert {key for key in known - asked - literal if not MADE.match(key)} - {"disclaimer"} == set()


def test_the_csv_has_the_columns_of_the_command() -> None:
    """So that one script reads both."""
    _, _, table = SOURCES["csv.js"].partition("const COLUMNS = {")
    assert tuple(re.findall(r"^  (\w+):", table, re.MULTILINE)) == tuple(COLUMNS)


def test_each_warning_has_its_words() -> None:
    """Those of docs/problems.md."""
    _, _, listed = (ROOT / "docs" / "problems.md").read_text().partition("## Warnings")
    names = set(re.findall(r"^\| `(\w+)`", listed, re.MULTILINE))
    assert names
    assert {key.partition(".")[2] for key in TEXTS if key.startswith("warning.")} == names


def test_the_page_is_served_with_a_strict_policy(tmp_path: Path) -> None:
    """Compressed where the client takes it, by GET and HEAD; JSON clients are unaffected."""
    with (
        serving(tmp_path / "log", model="swift/1.1.0") as live,
        httpx2.Client(base_url=live.url) as client,
    ):
        for path, file in {"/": read_files()["index.html"]}.items() | {
            f"/ui/{name}": file for name, file in read_files().items()
        }.items():
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.content == file.data
            assert answer.headers["content-type"] == file.media_type
            assert answer.headers["content-encoding"] == "gzip"
            assert answer.headers["content-security-policy"] == PAGE_POLICY.decode()
            assert answer.headers["cache-control"] == "no-store"
            assert client.head(path).status_code == 200
        plain = client.get("/", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        for path in ("/ui", "/ui/", "/ui/none.js", "/ui/__init__.py", "/ui/../api/app.py"):
            assert client.get(path).json()["code"] == "not_found"
        assert client.get("/ui/vendor/htm.LICENSE").status_code == 404
        assert client.post("/").status_code == 405
        model = client.get("/v1/model")
        assert (b"content-security-policy", SECURITY_HEADERS[-1][1]) in SECURITY_HEADERS
        assert model.headers["content-security-policy"] == SECURITY_HEADERS[-1][1].decode()
    assert b"unsafe" not in PAGE_POLICY
    assert set(MEDIA_TYPES) >= {path.suffix for path in MODULES}


def test_the_page_can_be_turned_off(tmp_path: Path) -> None:
    """Then its paths are unknown."""
    with (
        serving(tmp_path / "log", model="swift/1.1.0", ui="false") as live,
        httpx2.Client(base_url=live.url) as client,
    ):
        for path in ("/", "/ui/main.js"):
            assert client.get(path).json()["code"] == "not_found"
        assert client.get("/v1/model").status_code == 200
