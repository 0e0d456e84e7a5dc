"""Zip and tar bodies: what lies in them costs its own line, whatever bytes they hold."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from pax import record

from service.api.problems import COUNTED_KINDS
from service.uploads.archives import ArchiveLimits, check_name, read_archive
from service.uploads.upload import (
    CorruptArchiveError,
    EntryNameError,
    TooManyEntriesError,
    UploadError,
)

LIMITS = ArchiveLimits(10_000, 64 * 2**20, 200, 2 * 2**30)
FILE = b"\xff\xd8\xff" + bytes(range(256)) * 4
END = bytes(1024)


def header(name: bytes, kind: bytes, size: int | bytes, **fields: int) -> bytes:
    """A ustar header whose checksum is right."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[482] = fields.get("more", 0)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, kind, len(data)) + data + bytes(-len(data) % 512)


def pax(*lines: bytes) -> bytes:
    return member(b"pax", b"".join(lines), b"x")


def lines_of(body: bytes, limits: ArchiveLimits = LIMITS) -> list[tuple[str, str]]:
    """Name and code of each entry, as a batch answers them; the last line may be the archive's."""
    lines = []
    try:
        for upload in read_archive(body, limits):
            if upload.error is None:
                assert upload.data == FILE
            lines.append((upload.name, upload.error.code if upload.error else "answered"))
    except UploadError as error:
        lines.append(("", error.code))
    return lines


GOOD, FIRST = ("good.jpg", "answered"), ("first.jpg", "answered")
LAST = member(b"good.jpg", FILE) + END
BEFORE = member(b"first.jpg", FILE)
BAD, CUT = ("bad", "corrupt_archive"), ("", "corrupt_archive")
TARS = {
    "quadratic": (pax(b"1" * 10**6) + member(b"bad", FILE), [BAD, GOOD]),
    "records": (pax(b"5 a=\n" * 200_000) + member(b"bad", FILE), [BAD, GOOD]),
    "size of a record": (pax(b"9" * 4000 + b" a=b\n") + member(b"bad", FILE), [BAD, GOOD]),
    "backwards": (pax(b"0 a=b\n", b"-9 a=b\n") + member(b"bad", FILE), [BAD, GOOD]),
    "no equals": (pax(b"7 abcd\n") + member(b"bad", FILE), [BAD, GOOD]),
    "chain": (pax(record(b"a", b"b")) * 3000 + member(b"bad", FILE), [BAD, GOOD]),
    "long names": (
        member(b"", b"abcd\0", b"L") * 3000 + member(b"bad", FILE),
        [("abcd", BAD[1]), GOOD],
    ),
    "gigantic name": (member(b"", b"n" * 2**21, b"L") + member(b"bad", FILE), [BAD, GOOD]),
    "long name": (
        member(b"", b"n" * 5000, b"L") + member(b"bad", FILE),
        [("n" * 5000, "entry_name"), GOOD],
    ),
    "negative pax size": (pax(record(b"size", b"-512")) + member(b"bad", FILE), [BAD, GOOD]),
    "vast pax size": (pax(record(b"size", b"9" * 5000)) + member(b"bad", FILE), [BAD, GOOD]),
    "pax size beyond the end": (pax(record(b"size", b"9" * 18)) + member(b"bad", FILE), [BAD, CUT]),
    "negative size": (header(b"bad", b"0", b"\xff" * 10 + b"\xfe\0"), [BAD, CUT]),
    "negative octal": (header(b"bad", b"0", b"-0000000512\0"), [BAD, CUT]),
    "underscore": (header(b"bad", b"0", b"1_0        \0"), [BAD, CUT]),
    "base 256": (header(b"bad", b"0", b"\x80" + (2**80).to_bytes(11, "big")), [BAD, CUT]),
    "name beyond the end": (header(b"", b"L", 2**33 - 1), [CUT]),
    "binary name": (
        pax(record(b"hdrcharset", b"BINARY"), record(b"path", b"\xff\xfe")) + member(b"x", FILE),
        [("\\xff\\xfe", "entry_name"), GOOD],
    ),
    "a number of 5000 digits": (
        pax(record(b"mtime", b"9" * 5000)) + member(b"first.jpg", FILE),
        [FIRST, GOOD],
    ),
    "sparse, GNU": (header(b"bad", b"S", 512) + bytes(512), [("bad", "entry_kind"), GOOD]),
    "sparse, map goes on": (
        header(b"bad", b"S", 512, more=1) + bytes(1024),
        [("bad", "entry_kind"), GOOD],
    ),
    "sparse 1.0": (
        pax(record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.name", b"bad"))
        + member(b"x", b"9" * 512),
        [("bad", "entry_kind"), GOOD],
    ),
    "sparse 0.1": (
        pax(record(b"GNU.sparse.map", b"1," * 9999)) + member(b"bad", FILE),
        [("bad", "entry_kind"), GOOD],
    ),
    "unknown kind": (member(b"bad", FILE, b"Z"), [("bad", "entry_kind"), GOOD]),
    "links": (
        header(b"bad", b"1", 100) + header(b"pipe", b"6", 0),
        [("bad", "entry_kind"), ("pipe", "entry_kind"), GOOD],
    ),
    "old folder": (header(b"folder/", b"\0", 0), [GOOD]),
    "a damaged header": (b"x" * 512, [CUT]),
}


@pytest.mark.parametrize(("entry", "lines"), TARS.values(), ids=TARS)
def test_a_hostile_tar_header_costs_its_own_entry(
    entry: bytes, lines: list[tuple[str, str]]
) -> None:
    """Its neighbours are answered, or the last line says that the tar cannot be read on."""
    start = time.process_time()
    assert lines_of(BEFORE + entry + LAST) == [FIRST, *lines]
    assert time.process_time() - start < 1


def test_a_sparse_map_that_never_ends_ends_the_tar() -> None:
    """Each block of it says that another follows."""
    block = bytes(504) + b"\1" + bytes(7)
    assert lines_of(BEFORE + header(b"bad", b"S", 0, more=1) + block * 3) == [FIRST, CUT]


@pytest.mark.parametrize(
    ("kind", "size"), [(b"x", 2**20), (b"L", 2**20), (b"g", 2**20), (b"S", 0)], ids="xLgS"
)
def test_no_header_keeps_other_threads_waiting(kind: bytes, size: int) -> None:
    """64 MiB of the worst headers leave the lock of the interpreter to others all the time."""
    filling = {b"x": b"4 =\n", b"S": bytes(504) + b"\1" + bytes(7)}.get(kind, b"1234")
    data = filling * (max(size, 2**20) // len(filling))
    count = 2**26 // (len(data) + 512)
    body = BEFORE + (header(b"e", kind, size, more=1) + data) * count
    waits, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            start = time.perf_counter()
            time.sleep(0.001)
            waits.append(time.perf_counter() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        lines_of(body)
    finally:
        done.set()
        watcher.join()
    assert max(waits, default=0) < 0.5


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_sizes_are_those_that_other_programs_write(form: int) -> None:
    """Long names and names of other scripts, in each of the formats, with folders between."""
    names = ["a.jpg", "ü日本.jpg", "/".join(["folder"] * 20) + "/x.jpg"]
    names += ["n" * 99, "n" * 100] + ["n" * 200] * (form != tarfile.USTAR_FORMAT)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(FILE)
            info.mtime = 1.5  # in pax a record
            info.uid = 2**40 if form != tarfile.USTAR_FORMAT else 0
            archive.addfile(info, io.BytesIO(FILE))
    assert lines_of(buffer.getvalue()) == [(name, "answered") for name in names]


def test_a_tar_without_the_mark_of_its_end_is_whole() -> None:
    """Many programs leave it out; one that is cut off within an entry says so."""
    assert lines_of(BEFORE) == [FIRST]
    assert lines_of(BEFORE + header(b"bad", b"0", 2000) + b"x" * 999) == [FIRST, BAD, CUT]
    assert lines_of(BEFORE + bytes(100)) == [FIRST]
    assert lines_of(BEFORE + b"x" * 100) == [FIRST, CUT]


def zipped(method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in ("first.jpg", "bad", "good.jpg"):
            archive.writestr(name, FILE)
    return bytearray(buffer.getvalue())


def places_of(body: bytearray, signature: bytes) -> list[int]:
    """Of the three local headers, or of the three records of the directory."""
    places = [body.find(signature)]
    while len(places) < 3:
        places.append(body.find(signature, places[-1] + 1))
    return places


def central(offset: int, form: str, *values: int) -> Callable[[bytearray], None]:
    """Change the directory's record of the entry in the middle."""

    def change(body: bytearray) -> None:
        struct.pack_into(form, body, places_of(body, b"PK\1\2")[1] + offset, *values)

    return change


def local(offset: int, form: str, *values: int) -> Callable[[bytearray], None]:
    """Change the header before the entry in the middle."""

    def change(body: bytearray) -> None:
        struct.pack_into(form, body, places_of(body, b"PK\3\4")[1] + offset, *values)

    return change


def with_extra(*fields: bytes, at: int = 42) -> Callable[[bytearray], None]:
    """A number of the record is all ones, and the extra field is to say it."""

    def change(body: bytearray) -> None:
        place, extra = places_of(body, b"PK\1\2")[1], b"".join(fields)
        struct.pack_into("<I", body, place + at, 2**32 - 1)
        struct.pack_into("<H", body, place + 30, len(extra))
        body[place + 49 : place + 49] = extra
        end = body.rfind(b"PK\5\6")
        size = int.from_bytes(body[end + 12 : end + 16], "little") + len(extra)
        struct.pack_into("<I", body, end + 12, size)

    return change


def no_text(body: bytearray) -> None:
    """The flag says UTF-8, which the name is not."""
    central(8, "<H", 0x800)(body)
    local(6, "<H", 0x800)(body)
    central(46, "3B", 0xFF, 0xFE, 0x80)(body)
    local(30, "3B", 0xFF, 0xFE, 0x80)(body)


ZIPS = {
    "encrypted": (central(8, "<H", 1), "entry_kind"),
    "patched": (central(8, "<H", 0x20), "entry_kind"),
    "strongly encrypted": (central(8, "<H", 0x40), "entry_kind"),
    "masked": (central(8, "<H", 0x2000), "entry_kind"),
    "encrypted in its header": (local(6, "<H", 1), "entry_kind"),
    "needs a version to come": (central(6, "<H", 250), "answered"),
    "method": (central(10, "<H", 14), "entry_kind"),
    "another method in its header": (local(8, "<H", 0), "corrupt_archive"),
    "another name in its header": (local(30, "3B", 65, 65, 65), "corrupt_archive"),
    "no UTF-8 in its header": (local(30, "3B", 255, 254, 253), "corrupt_archive"),
    "length of the name in its header": (local(26, "<H", 65535), "corrupt_archive"),
    "length of the extra field in its header": (local(28, "<H", 65535), "corrupt_archive"),
    "no header": (local(0, "4s", b"PK\7\7"), "corrupt_archive"),  # type: ignore[arg-type]
    "crc": (central(16, "<I", 0), "corrupt_archive"),
    "packed size, less": (central(20, "<I", 3), "corrupt_archive"),
    "packed size, more": (central(20, "<I", 500), "corrupt_archive"),
    "packed size, vast": (central(20, "<I", 2**32 - 2), "entry_too_large"),
    "packed size, beyond": (central(20, "<I", 60_000), "corrupt_archive"),
    "offset, beyond": (central(42, "<I", 2**32 - 2), "corrupt_archive"),
    "offset of its neighbour": (central(42, "<I", 0), "corrupt_archive"),
    "offset within its neighbour": (central(42, "<I", 50), "corrupt_archive"),
    "link": (central(38, "<I", 0o120777 << 16), "entry_kind"),
    "device": (central(38, "<I", 0o020666 << 16), "entry_kind"),
    "zip64 without its field": (with_extra(), "corrupt_archive"),
    "zip64, cut off": (with_extra(struct.pack("<HHI", 1, 8, 0)), "corrupt_archive"),
    "zip64, vast offset": (with_extra(struct.pack("<HHQ", 1, 8, 2**64 - 1)), "corrupt_archive"),
    "zip64, large offset": (with_extra(struct.pack("<HHQ", 1, 8, 2**62)), "corrupt_archive"),
    "zip64, vast size": (with_extra(struct.pack("<HHQ", 1, 8, 2**63), at=20), "entry_too_large"),
    "many fields": (with_extra(bytes(64_000), struct.pack("<HHQ", 1, 8, 0)), "corrupt_archive"),
}


@pytest.mark.parametrize(("change", "code"), ZIPS.values(), ids=ZIPS)
def test_a_hostile_record_of_a_zip_costs_its_own_entry(
    change: Callable[[bytearray], None], code: str
) -> None:
    """Both neighbours are answered."""
    body = zipped()
    change(body)
    assert lines_of(bytes(body)) == [FIRST, ("bad", code), GOOD]


def test_a_name_that_is_no_text_is_shown_escaped() -> None:
    """The line is JSON that any program reads."""
    body = zipped()
    no_text(body)
    assert lines_of(bytes(body)) == [FIRST, ("\\xff\\xfe\\x80", "entry_name"), GOOD]


def test_an_entry_that_lies_over_its_neighbours_takes_no_answer_from_them() -> None:
    """Of entries that share bytes the first that can be read is."""
    body = zipped(zipfile.ZIP_STORED)
    first, bad, _ = places_of(body, b"PK\1\2")
    body[bad : bad + 46] = body[first : first + 46]
    body[bad + 28] = 3  # the length of the name
    assert lines_of(bytes(body)) == [FIRST, ("bad", "corrupt_archive"), GOOD]
    record = bytes(body[first : first + 55])
    twice = body[:first] + record * 2 + body[first:]
    end = twice.rfind(b"PK\5\6")
    struct.pack_into("<I", twice, end + 12, end - first)
    found = [code for name, code in lines_of(bytes(twice)) if name == "first.jpg"]
    assert found == ["answered", "corrupt_archive", "corrupt_archive"]


@pytest.mark.parametrize("comment", [b"", b"PK\5\6" * 16_000, b"PK\6\7" * 9, b"x" * 65535])
@pytest.mark.parametrize("before", [b"", b"PK\3\4 a program that unpacks itself"])
def test_a_zip_may_have_a_comment_and_a_program_before_it(comment: bytes, before: bytes) -> None:
    """Whatever stands in them."""
    body = zipped()
    struct.pack_into("<H", body, len(body) - 2, len(comment))
    assert lines_of(before + bytes(body) + comment) == [FIRST, ("bad", "answered"), GOOD]


def test_zip64_is_read() -> None:
    """As programs write it for an entry of unknown size, and for 65,536 entries or more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        with archive.open("first.jpg", "w", force_zip64=True) as entry:
            entry.write(FILE)
        for number in range(65_540):
            archive.writestr(str(number), b"")
    body = buffer.getvalue()
    with pytest.raises(TooManyEntriesError):
        read_archive(body, LIMITS)
    limits = ArchiveLimits(70_000, 2**20, 200, 2**30)
    names = [upload.name for upload in read_archive(body, limits)]
    assert names == ["first.jpg", *map(str, range(65_540))]


@pytest.mark.parametrize("cut", [1, 22, 60, 200])
def test_a_zip_without_its_end_says_so(cut: int) -> None:
    """It has no list of entries."""
    assert lines_of(bytes(zipped()[:-cut])) == [CUT]


def test_a_directory_that_is_damaged_ends_there() -> None:
    """What it lists before is answered."""
    body = zipped()
    body[places_of(body, b"PK\1\2")[1]] = 0
    assert lines_of(bytes(body)) == [FIRST, CUT]


def test_a_zip_that_denies_its_entries_is_counted() -> None:
    """The end of the directory declares one of three."""
    body = zipped()
    struct.pack_into("<HH", body, len(body) - 14, 1, 1)
    limits = ArchiveLimits(2, 2**20, 200, 2**30)
    assert lines_of(bytes(body), limits)[-1] == ("", "too_many_files")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "a/..",
        "..\\x",
        "/x",
        "\\x",
        "\\\\host\\x",
        "C:x",
        "a\0",
        "a\n",
        "\udcff",
        "n" * 5000,
    ],
)
def test_unsafe_names_are_refused(name: str) -> None:
    """Those that lead elsewhere on any system, or that no line can show."""
    with pytest.raises(EntryNameError):
        check_name(name)


def test_each_error_has_the_code_that_its_answer_has() -> None:
    """A backfill takes the code from the error, the service from its table."""
    for kind in UploadError.__subclasses__():
        assert COUNTED_KINDS[kind].code == kind.code
    assert CorruptArchiveError.code == "corrupt_archive"


@pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)
def test_archives_of_well_formed_lies_are_answered_or_refused() -> None:
    """A few of those that `structured_archives.py` writes; each kind of end does occur."""
    program = Path(__file__).parent.parent / "structured_archives.py"
    command = [sys.executable, str(program), "--cases", "60"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for end in ("zip: end", "tar: end", "zip: corrupt_archive", "tar: corrupt_archive"):
        assert end in run.stdout
