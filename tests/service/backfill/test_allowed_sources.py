"""Jobs of the service read from below what is allowed, however their source is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.backfill.allowed_sources import AllowedSources, SourceNotAllowedError
from service.backfill.sources.options import OptionsError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An allowed folder, beside one whose name begins alike, and links from one to the other."""
    folder, other = tmp_path / "data", tmp_path / "data2"
    for each in (folder / "a", other):
        each.mkdir(parents=True)
        (each / "list.csv").write_text("file\n")
    (folder / "out").symlink_to(other)
    (folder / "within").symlink_to(folder / "a")
    (folder / "list.zip").symlink_to(other / "list.csv")
    (folder / "circle").symlink_to(folder / "circle")
    os.mkfifo(folder / "pipe.tar")
    return folder


@pytest.mark.parametrize("source", ["", "/", "/a", "/a/", "/a/../a", "/within", "/a/list.csv"])
def test_what_lies_below_is_read_as_what_it_is(data: Path, source: str) -> None:
    """By its real path, so that a link cannot be changed between the look and the reading."""
    opened, options = AllowedSources([str(data)]).check(f"{data}{source}", {"max_image_bytes": 1})
    assert opened == str(Path(f"{data}{source}").resolve())
    assert options == {"max_image_bytes": 1}


@pytest.mark.parametrize(
    "source",
    [
        *("{0}2", "{0}/..", "{0}/../data2", "{0}/a/../../data2/list.csv", "{0}/a/../..", "/"),
        *("{0}/out", "{0}/out/list.csv", "{0}/list.zip", "{0}/circle", "{0}/out/nothing"),
        *("/proc/self/root{0}2", "/proc/self/environ", "data", "", ".", "~", "{0}\0", "file:{0}"),
        *("file://{0}", "s3://bucket", "http://127.0.0.1/", "{0}2/nothing"),
    ],
)
def test_no_path_leads_out(data: Path, source: str) -> None:
    """Neither dots, links, nor names that begin alike; nor is it told what there is outside."""
    with pytest.raises(SourceNotAllowedError):
        AllowedSources([str(data)]).check(source.format(data), {})


def test_a_list_leads_nowhere_else(data: Path) -> None:
    """Where a list's files begin is held to the same folders."""
    allowed = AllowedSources([str(data)])
    chosen = str(data / "a" / "list.csv")
    _, options = allowed.check(chosen, {"root": str(data / "within")})
    assert options["root"] == str(data / "a")
    for root in (str(data.parent), f"{data}2", str(data / "out"), ".", "a"):
        with pytest.raises(SourceNotAllowedError):
            allowed.check(chosen, {"root": root})
    with pytest.raises(SourceNotAllowedError):  # its files are those beside it
        AllowedSources([chosen]).check(chosen, {})


@pytest.mark.parametrize("name", ["pipe.tar", "nothing", "a/nothing.zip"])
def test_only_files_and_folders_are_opened(data: Path, name: str) -> None:
    """A pipe would be waited for without an end."""
    with pytest.raises(OptionsError):
        AllowedSources([str(data)]).check(str(data / name), {})


@pytest.mark.parametrize(
    ("root", "source", "opened"),
    [
        ("s3://bucket", "s3://bucket", None),
        ("s3://bucket", "s3://bucket/any/prefix", None),
        ("s3://bucket/", "S3://bucket/a b%2e".replace(" ", "+"), None),
        ("s3://bucket/chest", "s3://bucket/chest", "s3://bucket/chest/"),
        ("s3://bucket/chest/", "s3://bucket/chest/", None),
        ("s3://bucket/chest", "s3://bucket/chest/2025-0", None),
        ("https://pacs.example/dicom-web", "https://pacs.example/dicom-web", None),
        ("https://pacs.example/dicom-web/", "HTTPS://PACS.example:443/dicom-web/x/", None),
        ("http://[::1]:8042", "http://[::1]:8042/dicom-web", None),
    ],
)
def test_an_address_below(root: str, source: str, opened: str | None) -> None:
    """By whole segments; a bucket's keys that only begin like the prefix are not found."""
    assert AllowedSources([root]).check(source, {}) == (opened or source, {})


@pytest.mark.parametrize(
    ("root", "source"),
    [
        *(("s3://bucket", f"s3://{other}") for other in ("bucket-evil", "bucke", "Bucket", "")),
        *(
            ("s3://bucket/chest", f"s3://bucket{other}")
            for other in (
                *("", "/", "/chest2", "/ches", "/chest/../x", "/chest/..", "//chest", "/./chest"),
                *("/chest//x", "/chest/\n", "/chest\\..\\x", "/chest?x", "/chest#x", "@evil/chest"),
            )
        ),
        *(
            ("https://pacs.example/dicom-web", f"https://{other}")
            for other in (
                *("pacs.example", "pacs.example/dicom-web2", "pacs.example/dicom-web/../admin"),
                *("pacs.example/dicom-web/%2e%2e/x", "pacs.example/dicom-web/%252e", "evil"),
                *("pacs.example@evil/dicom-web", "u:p@pacs.example/dicom-web", "pacs.example."),
                *("pacs.example.evil/dicom-web", "evil/pacs.example/dicom-web", "169.254.169.254"),
                *("pacs.example:8443/dicom-web", "pacs.example:x/dicom-web", "pacs.example\t/d"),
                *("pacs.example/dicom-web\\..", "pacs.example/dicom-web?x", "pacs.example/#"),
                *("pacs.example:99999/dicom-web", "p\u0430cs.example/dicom-web", "[::1/dicom-web"),
                *("pacs.example/dicom-web\r\nHost: evil", "", "/dicom-web", "pacs.example//x"),
            )
        ),
        ("https://pacs.example/dicom-web", "http://pacs.example/dicom-web"),
        ("https://pacs.example/dicom-web", "ftp://pacs.example/dicom-web"),
        ("https://pacs.example/dicom-web", "//pacs.example/dicom-web"),
        ("https://pacs.example/dicom-web", " https://pacs.example/dicom-web"),
    ],
)
def test_no_address_leads_out(root: str, source: str) -> None:
    """One that could be read in two ways is refused."""
    with pytest.raises(SourceNotAllowedError):
        AllowedSources([root]).check(source, {})


@pytest.mark.parametrize(
    "root", ["data", "", "s3://", "ftp://host/", "https://u@host/", "https://host/../x", "s3:// "]
)
def test_a_wrong_root_is_said(root: str) -> None:
    with pytest.raises(ValueError, match=r"path|address"):
        AllowedSources([root])
