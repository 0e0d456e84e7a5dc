"""The file of destinations: a closed schema, with errors that name the key."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.dicom.destinations import (
    CStoreDestination,
    DestinationsError,
    FolderDestination,
    Hours,
    StowDestination,
    read_destinations,
)

EVERY_KIND = """
[destinations.pacs]
kind = "c-store"
host = "pacs.hospital.example"
port = 11112
called_ae_title = "PACS"
tls = true
tls_ca = "secret"

[destinations.archive]
kind = "stow"
url = "https://archive.example/dicom-web/"
token_file = "secret"
results = ["disagreement", "review"]
lane = "backfill"
results_per_second = 5
hours = "20:00-06:00"

[destinations.ris]
kind = "fhir"
url = "https://fhir.example/r4"
user = "cxrview"
password_file = "secret"
header_files = { X-Api-Key = "secret" }

[destinations.hook]
kind = "webhook"
url = "https://hook.example/events"
secret_file = "secret"
results = ["all", "refused"]

[destinations.files]
kind = "folder"
path = "out"
results = ["not_chest"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("0123456789abcdef\n")
    (tmp_path / "out").mkdir()
    return tmp_path


def read(folder: Path, text: str):
    path = folder / "destinations.toml"
    path.write_text(text)
    return read_destinations(path)


def test_every_kind_is_read_in_the_order_of_the_file(folder: Path) -> None:
    """With the paths of files relative to it."""
    pacs, archive, ris, hook, files = read(folder, EVERY_KIND)
    assert [each.name for each in (pacs, archive, ris, hook, files)] == [
        *("pacs", "archive", "ris", "hook", "files")
    ]
    assert isinstance(pacs, CStoreDestination)
    assert (pacs.calling_ae_title, pacs.tls_ca) == ("CXRVIEW", folder / "secret")
    assert isinstance(archive, StowDestination)
    assert archive.url == "https://archive.example/dicom-web"
    assert archive.window == Hours(time(20), time(6))
    assert isinstance(files, FolderDestination)
    assert files.path == folder / "out"


FILES = '[destinations.files]\nkind = "folder"\npath = "out"\n'
STOW = '[destinations.a]\nkind = "stow"\nurl = "http://a"\n'
HOOK = '[destinations.a]\nkind = "webhook"\nurl = "http://a"\n'
STORE = '[destinations.a]\nkind = "c-store"\nhost = "a"\nport = 1\ncalled_ae_title = "A"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILES + "give_up_hour = 1", r"files\.give_up_hour: .*did you mean give_up_hours\?"),
        (FILES + "zzz = 1", r"files\.zzz: there is no such key; known: first_delay_seconds,"),
        (f"destination = 1\n{FILES}", r"destination: .*did you mean destinations\?"),
        ('[destinations.files]\nkind = "foldr"', r"files\.kind: must be one of c-store, stow"),
        ("[destinations.files]\n", r"files\.kind: must be one of"),
        ('[destinations.files]\nkind = "folder"', r"files\.path: Field required"),
        (FILES.replace("out", "none"), r"files\.path: there is no such folder"),
        (FILES + 'hours = "20-6"', r"files\.hours: must be a window"),
        (FILES + 'hours = "24:00-06:00"', r"files\.hours: must be a window"),
        (FILES + 'hours = "06:00-06:00"', r"files\.hours: the window is empty"),
        (FILES + "timeout_seconds = 1e9", r"files\.timeout_seconds: .*equal to 600"),
        (FILES + "first_delay_seconds = 601", r"files: first_delay_seconds must not exceed"),
        (FILES + 'results = ["some"]', r"files\.results\.0: Input should be 'all'"),
        (FILES + "results = []", r"files\.results: .*at least 1 item"),
        (FILES + "results_per_second = 0", r"files\.results_per_second: .*greater than 0"),
        (FILES + 'name = "x"', r"files\.name: the name is that of the table"),
        (FILES.replace("files", "Files"), r"destinations\.'Files': a name has"),
        (HOOK, r"a\.secret_file: Field required"),
        (HOOK + 'secret_file = "none"', r"a\.secret_file: the file cannot be read: No such"),
        (STOW.replace("//", "//user:hidden@"), r"a\.url: must hold no user"),
        (STOW.replace("http", "ftp"), r"a\.url: must begin with http"),
        (STOW.replace("//a", "//a?token=hidden"), r"a\.url: must have no \?"),
        (STOW + 'headers = { Authorization = "hidden" }', r"a\.headers: .*in header_files"),
        (STOW + 'headers = { X-Api-Key = "hidden" }', r"a\.headers: .*in header_files"),
        (STOW + 'headers = { "a b" = "c" }', r"a\.headers\..*: names must be tokens"),
        (STOW + 'headers = { Content-Length = "3" }', r"a\.headers\..*: .*the service's to say"),
        (STOW + 'header_files = { te = "secret" }', r"a\.header_files\..*: .*service's to say"),
        (STOW + 'user = "a"', r"destinations\.a: user and password_file go together"),
        (STOW + 'tls_key = "secret"', r"a: tls_certificate and tls_key go together"),
        (
            STOW + 'user = "a"\npassword_file = "secret"\ntoken_file = "secret"',
            r"a: token_file and user exclude each other",
        ),
        (STORE + 'tls_ca = "secret"', r"a: tls_ca and tls_certificate are of no use without tls"),
        (STORE.replace('"A"', '"SEVENTEEN LETTERS"'), r"a\.called_ae_title: "),
        (STORE.replace("port = 1", "port = 65536"), r"a\.port: "),
        ("", r"destinations: Field required"),
        ("destinations = 1", r"destinations: Input should be a valid dictionary"),
        ("[destinations]", r"destinations: .*at least 1 item"),
        ("x = ", r"destinations.toml is not TOML"),
    ],
)
def test_a_wrong_key_is_named(folder: Path, text: str, said: str) -> None:
    """With the destination, and what is wrong; a value, which may be a secret, is not repeated."""
    with pytest.raises(DestinationsError, match=said) as error:
        read(folder, text)
    assert str(folder / "destinations.toml") in str(error.value)
    assert "hidden" not in str(error.value)


def test_every_error_has_a_line(folder: Path) -> None:
    """So that a file is corrected once."""
    with pytest.raises(DestinationsError) as error:
        read(folder, FILES + "a = 1\nb = 2")
    assert len(str(error.value).splitlines()) == 2
    with pytest.raises(DestinationsError) as error:
        read(folder, FILES + 'results = ["some"]')
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """Rather than a trace."""
    with pytest.raises(DestinationsError, match=r"x\.toml cannot be read: No such file"):
        read_destinations(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("results", "given", "wanted"),
    [
        (["all"], {}, True),
        (["all"], {"view": "not_chest"}, True),
        (["all"], None, False),
        (["refused"], None, True),
        (["refused"], {}, False),
        (["review"], {}, False),
        (["review"], {"review": True}, True),
        (["not_chest"], {}, False),
        (["not_chest", "review"], {"view": "not_chest"}, True),
        (["disagreement"], {}, False),
        (["disagreement"], {"header": SimpleNamespace(agrees=None, body_part_agrees=None)}, False),
        (["disagreement"], {"header": SimpleNamespace(agrees=False, body_part_agrees=None)}, True),
        (["disagreement"], {"header": SimpleNamespace(agrees=True, body_part_agrees=False)}, True),
    ],
)
def test_a_destination_gets_what_it_wants(folder: Path, results, given, wanted: bool) -> None:
    """Refusals only if it asks for them."""
    (found,) = read(folder, FILES + f"results = {results}")
    usual = {"view": "frontal", "review": False, "header": None}
    answer = None if given is None else SimpleNamespace(**(usual | given))
    result = SimpleNamespace(classification=answer, at=datetime.now(UTC))
    assert found.wants(result) is wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("20:00-06:00", ["20:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "19:59"]),
        ("08:30-17:00", ["08:30", "16:59"], ["17:00", "08:29", "00:00"]),
    ],
)
def test_a_window_may_include_midnight(folder: Path, window: str, inside, outside) -> None:
    """Its start belongs to it, its end does not."""
    (found,) = read(folder, FILES + f'hours = "{window}"')
    assert found.window is not None
    assert all(found.window.contains(time.fromisoformat(at)) for at in inside)
    assert not any(found.window.contains(time.fromisoformat(at)) for at in outside)
