import contextlib
import csv
import io
import os
import socket
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import needs
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from service.backfill.results.rows import ItemError, Source, SourceError
from service.backfill.sources import OptionsError, open_source
from service.backfill.sources.names import locator_of, name_of

ODD = ["a b.dcm", "50%.dcm", "line\nbreak.dcm", "käse/日本.png", "%41.dcm", "x/y/z.jpg"]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def error_of(source: Source, locator: str) -> str:
    with pytest.raises(ItemError) as caught:
        source.read(locator)
    return caught.value.code


@given(st.binary(min_size=1))
def test_every_file_name_has_a_locator_that_leads_back(raw: bytes) -> None:
    """A locator is one line of valid text, and gives the bytes of the name again."""
    name = os.fsdecode(raw)
    locator = locator_of(name)
    assert os.fsencode(name_of(locator)) == raw
    assert len(locator.splitlines()) == 1
    locator.encode()


@given(st.text(st.characters(codec="utf-8")))
def test_every_key_has_a_locator_that_leads_back(key: str) -> None:
    """Object stores have keys of any characters, line breaks too."""
    assert name_of(locator_of(key)) == key


def test_a_folder_gives_each_file_once(tmp_path: Path) -> None:
    """Whatever its name, wherever it lies; hidden, special and linked ones are counted instead."""
    write(tmp_path / "in", *ODD, ".hidden.dcm", ".git/config", "no\udcffutf8.dcm")
    write(tmp_path / "out", "other.dcm")
    os.mkfifo(tmp_path / "in/pipe")
    for link, target in {
        "inner": "a b.dcm",
        "outer": "../out/other.dcm",
        "loop": ".",
        "no": "-",
    }.items():
        (tmp_path / "in" / link).symlink_to(target)
    source = open_source(str(tmp_path / "in"))
    found = list(source.find())
    names = [name_of(locator) for locator in found]
    assert sorted(names) == sorted([*ODD, "no\udcffutf8.dcm", "inner"])
    assert names == [*sorted(n for n in names if "/" not in n), "käse/日本.png", "x/y/z.jpg"]
    for locator, name in zip(found, names, strict=True):
        read = bytes(source.read(locator))
        assert read == (b"a b.dcm" if name == "inner" else os.fsencode(name))
    assert source.left_out == {"hidden": 2, "special": 1, "link": 3}  # type: ignore[attr-defined]


@pytest.mark.parametrize("since", [None, "2020-01-01"])
def test_a_link_to_itself_is_an_outcome_and_the_others_are_read(
    tmp_path: Path, since: str | None
) -> None:
    """It cannot be looked at, so it is found, and fails by itself; so do links in a circle."""
    write(tmp_path, "a.dcm", "z/b.dcm")
    for link, target in {"self": "self", "one": "z/two", "z/two": "../one"}.items():
        (tmp_path / link).symlink_to(target)
    source = open_source(str(tmp_path), {"since": since} if since else {})
    assert list(source.find()) == ["a.dcm", "one", "self", "z/b.dcm", "z/two"]
    for link in ("self", "one", "z/two"):
        assert error_of(source, link) == "unreadable_file"
    assert source.read("z/b.dcm") == b"z/b.dcm"


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    """Its size is enough to refuse it."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(6 * 2**30)
    start = time.process_time()
    assert error_of(open_source(str(tmp_path)), "huge") == "entry_too_large"
    assert time.process_time() - start < 0.05


def test_a_socket_or_a_device_is_left_out(tmp_path: Path) -> None:
    """And is no file where a list names it; to open a device may do things."""
    write(tmp_path, "a.dcm")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")  # by a name that is short enough
    (tmp_path / "null").symlink_to("/dev/null")
    source = open_source(str(tmp_path))
    assert list(source.find()) == ["a.dcm"]
    assert source.left_out == {"special": 1, "link": 1}  # type: ignore[attr-defined]
    assert error_of(source, "socket") == "unreadable_file"


@pytest.mark.parametrize(
    ("locator", "code"),
    [
        ("gone.dcm", "not_found"),
        ("a.dcm/below", "not_found"),
        ("folder", "unreadable_file"),
        ("pipe", "unreadable_file"),
        ("loop", "unreadable_file"),
        ("../secret", "entry_name"),
        ("/etc/hostname", "entry_name"),
        ("outer", "entry_name"),
        ("a%00.dcm", "entry_name"),
        ("large.dcm", "entry_too_large"),
    ],
)
def test_what_a_folder_cannot_give_is_an_outcome_of_its_own(
    tmp_path: Path, locator: str, code: str
) -> None:
    """A file that vanished, is none, or lies outside, fails by itself."""
    write(tmp_path, "in/a.dcm", "in/folder/b.dcm", "secret", "in/large.dcm")
    (tmp_path / "in/large.dcm").write_bytes(bytes(101))
    os.mkfifo(tmp_path / "in/pipe")
    (tmp_path / "in/outer").symlink_to("../secret")
    (tmp_path / "in/loop").symlink_to("loop")
    source = open_source(str(tmp_path / "in"), {"max_image_bytes": "100"})
    assert error_of(source, locator) == code
    assert source.read("a.dcm") == b"in/a.dcm"


@pytest.mark.skipif(os.geteuid() == 0, reason=needs.NOT_ROOT)
def test_a_folder_that_cannot_be_listed_is_said_after_all_others(tmp_path: Path) -> None:
    """Nothing is silently left out."""
    write(tmp_path, "a/1.dcm", "b/2.dcm", "c/3.dcm")
    (tmp_path / "b").chmod(0)
    found = []
    with pytest.raises(SourceError, match="1 folders"):
        found.extend(open_source(str(tmp_path)).find())
    (tmp_path / "b").chmod(0o700)


def test_a_folder_in_whose_place_another_is_mounted_loses_no_image(tmp_path: Path) -> None:
    """Files of an archive that was unmounted are not gone: the archive is."""
    source = open_source(str(write(tmp_path / "in", "a.dcm")))
    (tmp_path / "in").rename(tmp_path / "away")
    with pytest.raises(SourceError):
        source.read("a.dcm")
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError):
        source.read("a.dcm")


def test_a_period_is_of_whole_days(tmp_path: Path) -> None:
    """From the first moment of the first day to the last of the last."""
    day = datetime(2024, 5, 2).astimezone()
    times = {
        "before": day - timedelta(seconds=1),
        "first": day,
        "last": day + timedelta(days=2) - timedelta(seconds=1),
        "after": day + timedelta(days=2),
    }
    for name, when in times.items():
        os.utime(write(tmp_path, name) / name, (when.timestamp(), when.timestamp()))

    def found(**options: str) -> set[str]:
        return set(open_source(str(tmp_path), options).find())

    assert found(since="2024-05-02", until="2024-05-03") == {"first", "last"}
    assert found(since="2024-05-02") == {"first", "last", "after"}
    assert found(until="2024-05-03") == {"before", "first", "last"}


def table(path: Path, rows: list[str | None], column: str = "file") -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([["n", column], *((i, row) for i, row in enumerate(rows))])
    else:
        parquet.write_table(pa.table({"n": range(len(rows)), column: rows}), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_gives_what_it_names(tmp_path: Path, suffix: str) -> None:
    """By paths from its own folder, or from anywhere; a path has one locator however written."""
    write(tmp_path, *ODD)
    rows = [*ODD, f"{tmp_path}/a b.dcm", "x/../a b.dcm", "gone.dcm"]
    source = open_source(str(table(tmp_path / f"list{suffix}", rows)))
    found = list(source.find())
    assert [name_of(locator) for locator in found] == [*ODD, "a b.dcm", "a b.dcm", "gone.dcm"]
    assert [bytes(source.read(locator)) for locator in found[:6]] == [n.encode() for n in ODD]
    assert error_of(source, "gone.dcm") == "not_found"
    assert error_of(source, "../x") == "entry_name"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_list_says_its_column_and_its_root(tmp_path: Path, suffix: str) -> None:
    """Which may be another than the list's folder."""
    write(tmp_path / "images", "a.dcm")
    path = str(table(tmp_path / f"list{suffix}", ["a.dcm"], "dicom"))
    source = open_source(path, {"column": "dicom", "root": str(tmp_path / "images")})
    assert [bytes(source.read(locator)) for locator in source.find()] == [b"a.dcm"]
    with pytest.raises(SourceError, match="no column file or path"):
        list(open_source(path).find())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("bad", ["", "../a.dcm", "/etc/hostname", "."])
def test_a_list_says_which_row_is_bad(tmp_path: Path, suffix: str, bad: str) -> None:
    """By its line, or in Parquet its row."""
    path = table(tmp_path / f"list{suffix}", ["a.dcm", "line\nbreak.dcm", bad, "b.dcm"])
    place = "line 5" if suffix == ".csv" else "row 3"
    with pytest.raises(SourceError, match=place):
        list(open_source(str(path)).find())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"file,n\na.dcm\n", "line 2 .* 1 fields, not 2"),
        ("a.csv", b'file\n"a.dcm\n', "line 2 .* no CSV"),
        ("a.csv", b"file\n\xff.dcm\n", "not UTF-8"),
        ("a.csv", b"", "no column"),
        ("a.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    """With what is wrong, and where."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=says):
        list(open_source(str(tmp_path / name)).find())


def zipped(
    path: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def tarred(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "a"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_gives_each_entry_once(tmp_path: Path, suffix: str) -> None:
    """From many threads at once, two of the same name too; a new start needs no new listing."""
    entries = [(name, name.encode() * 50) for name in ODD] * 2
    entries += [(f"many/{n}.dcm", os.urandom(1000 + n)) for n in range(200)]
    path = tmp_path / f"a{suffix}"
    zipped(path, entries) if suffix == ".zip" else tarred(path, entries)
    found = list(open_source(str(path)).find())
    if suffix == ".tar":
        assert found.pop() == "link"
    assert len(set(found)) == len(entries)
    source = open_source(str(path))
    with ThreadPoolExecutor(8) as pool:
        safe = [n for n, (name, _) in enumerate(entries) if name.isprintable()]
        read = pool.map(source.read, [found[n] for n in safe])
        assert [bytes(data) for data in read] == [entries[n][1] for n in safe]
    assert [name_of(locator.split("%00")[0]) for locator in found] == [n for n, _ in entries]
    assert error_of(source, "line%0Abreak.dcm") == "entry_name"


def test_archives_refuse_what_uploads_refuse(tmp_path: Path) -> None:
    """Entry by entry, with the same codes."""
    inner = zipped(tmp_path / "inner.zip", [("a", b"a")]).read_bytes()
    bad = [("../a", b"a"), ("big", os.urandom(2000)), ("bomb", bytes(999)), ("nested", inner)]
    source = open_source(
        str(zipped(tmp_path / "a.zip", bad)), {"max_image_bytes": 1000, "max_ratio": 20}
    )
    codes = ["entry_name", "entry_too_large", "entry_ratio", "nested_archive"]
    assert [error_of(source, locator) for locator in source.find()] == codes
    packed = open_source(str(zipped(tmp_path / "b.zip", [("a", b"a")], zipfile.ZIP_BZIP2)))
    assert error_of(packed, "a") == "entry_kind"
    tar = open_source(str(tarred(tmp_path / "a.tar", bad)), {"max_image_bytes": 1000})
    assert error_of(tar, "link") == "entry_kind"
    assert error_of(tar, "../a") == "entry_name"
    assert error_of(tar, "none") == "not_found"
    with pytest.raises(SourceError, match="more than 3 entries"):
        list(open_source(str(tmp_path / "a.zip"), {"max_entries": 3}).find())


def test_a_damaged_entry_does_not_end_the_others(tmp_path: Path) -> None:
    """And a damaged archive cannot be listed."""
    path = zipped(tmp_path / "a.zip", [("a", b"A" * 99), ("b", b"B" * 99)], zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"A" * 99, b"A" * 98 + b"X"))
    source = open_source(str(path))
    assert error_of(source, "a") == "corrupt_archive"
    assert source.read("b") == b"B" * 99
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError):
        list(open_source(str(path)).find())
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read("b")


def test_a_tar_that_is_damaged_gives_what_comes_before(tmp_path: Path) -> None:
    """Nothing is silently left out: the listing ends with an error."""
    path = tarred(tmp_path / "a.tar", [("a", b"A" * 99), ("b", b"B" * 99), ("c", b"C" * 99)])
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 10] ^= 1  # in the name of the third, so that the checksum is wrong
    path.write_bytes(data)
    source = open_source(str(path))
    found: list[str] = []
    with pytest.raises(SourceError, match="not whole"):
        found.extend(source.find())
    assert found == ["a", "b"]
    assert source.read("b") == b"B" * 99


def test_a_tar_with_hostile_headers_is_listed_in_no_time(tmp_path: Path) -> None:
    """CVE-2024-6232: `tarfile` of older Pythons takes the square of the length of this header."""
    path = tarred(tmp_path / "a.tar", [("pax", b"1" * 2**19), ("a", b"A"), ("b", b"B")])
    data = bytearray(path.read_bytes())
    data[156:157] = b"x"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    start = time.process_time()
    source = open_source(str(path))
    assert list(source.find()) == ["a", "b", "link"]
    assert error_of(source, "a") == "corrupt_archive"
    assert source.read("b") == b"B"
    assert time.process_time() - start < 0.5


def test_names_of_entries_that_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """The index of an archive has a limit in bytes, too."""
    names = [f"{'n' * 3000}{n}" for n in range(10)]
    path = zipped(tmp_path / "a.zip", [(name, b"x") for name in names])
    with pytest.raises(SourceError, match="longer names"):
        list(open_source(str(path), {"max_entries": 20}).find())
    assert len(list(open_source(str(path), {"max_entries": 200}).find())) == 10


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_pipe_is_no_archive(tmp_path: Path, suffix: str) -> None:
    """It would be waited for."""
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(SourceError, match="not a file"):
        open_source(str(tmp_path / f"a{suffix}"))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("nowhere", {}),
        ("a.tar.gz", {}),
        ("ftp://host/x", {}),
        (".", {"sinse": "2020-01-01"}),
        (".", {"since": "2020-01-02", "until": "2020-01-01"}),
        ("s3://B_", {}),
        ("https://pacs/dicom-web", {}),
        ("https://user:hunter2@pacs/dicom-web", {"since": "2020-01-01"}),
        ("https://pacs/", {"since": "2020-01-01", "off_peak": "19:00"}),
        ("https://pacs/", {"since": "2020-01-01", "time_zone": "Mars/Base"}),
        ("https://pacs/", {"since": "2020-01-01", "modalities": "CR,d*"}),
    ],
)
def test_what_is_no_source_is_refused_before_anything_is_asked(
    text: str, options: dict[str, str]
) -> None:
    """An option that is unknown, or a word that is misspelt; a secret is not repeated."""
    with pytest.raises(OptionsError) as caught:
        open_source(text, options)
    assert "hunter2" not in str(caught.value)
