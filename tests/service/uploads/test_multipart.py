"""Multipart forms: hostile ones are refused with 400 or 413, and cost little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from service.uploads.multipart import boundary_of, read_form
from service.uploads.upload import (
    EntryTooLargeError,
    MalformedMultipartError,
    TooManyEntriesError,
    Upload,
)

PART = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
END = b"\r\n--B--\r\n"
MIB = 2**20


def read(
    body: bytes, boundary: bytes = b"B", step: int = 2**16, most: int = 20, largest: int = 4 * MIB
) -> list[Upload]:
    async def chunks(write: Callable[[bytes], object]) -> None:
        for at in range(0, len(body), step):
            write(body[at : at + step])

    return asyncio.run(read_form(chunks, boundary, "files", most, largest))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 2**16])
@pytest.mark.parametrize(
    "before",
    [b"", b"\r\n", b"This is text.\r\n", b"--A\r\n-\r\n--\r\n", b"a--B\r\n", b"\n" * 99 + b"\r\n"],
)
def test_text_before_the_first_boundary_is_ignored(before: bytes, step: int) -> None:
    """RFC 2046 5.1.1 calls it the preamble; after the last boundary comes an epilogue."""
    body = before + PART + b"one" + END
    assert [bytes(each.data) for each in read(body + b"epilogue", step=step)] == [b"one"]


@pytest.mark.parametrize("step", [1, 5, 2**16])
@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n", b"\r\n--", b"\r\n--A", b"\r\r\n--\r\n", b"--B", b"\r\n" * 500, b"\r\n--C--\r\n"],
)
def test_data_that_resembles_a_boundary_comes_through(data: bytes, step: int) -> None:
    """Byte by byte, and at once."""
    body = PART + data + b"\r\n" + PART + b"two" + END
    assert [bytes(each.data) for each in read(body, step=step)] == [data, b"two"]


def test_space_behind_a_boundary_is_ignored() -> None:
    """RFC 2046 5.1.1: transports may have added it."""
    body = (PART + b"one\r\n" + PART + b"two" + END).replace(b"--B\r", b"--B \t\r")
    assert [bytes(each.data) for each in read(body)] == [b"one", b"two"]


MALFORMED = {
    "empty": b"",
    "only the end": b"--B--\r\n",
    "another field": PART.replace(b"files", b"others") + b"x" + END,
    "cut off": PART + b"x",
    "LF only": PART.replace(b"\r\n", b"\n") + b"x" + END,
    "a header of 64 MiB": b"--B\r\nX: " + b"a" * 64 * MIB,
    "a name of a header of 64 MiB": b"--B\r\n" + b"a" * 64 * MIB,
    "64 MiB of spaces": b"--B\r\nX:" + b" " * 64 * MIB,
    "a million headers": b"--B\r\n" + b"X: 1\r\n" * MIB,
    "semicolons": b"--B\r\nContent-Disposition: form-data" + b";" * 8000 + b"\r\n\r\nx" + END,
    "quotes": b"--B\r\nContent-Disposition: form-data;" + b'";' * 4000 + b"\r\n\r\nx" + END,
    "no token": b"--B\r\nCont\xffent: x\r\n\r\nx" + END,
    "no colon": b"--B\r\nX\r\n\r\nx" + END,
    "no name of a header": b"--B\r\n: x\r\n\r\nx" + END,
    "CR alone": b"--B\r\nX: 1\rY: 2\r\n\r\nx" + END,
    "NUL": b"--B\r\n\0: 1\r\n\r\nx" + END,
    "extended name only": PART.replace(b'name="files"', b"name*=utf-8''files") + b"x" + END,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_damaged_form_is_malformed(body: bytes) -> None:
    """At once, however much is sent of it."""
    start = time.process_time()
    with pytest.raises(MalformedMultipartError):
        read(body)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("length", [257, 5000, 30_000])
def test_a_very_long_boundary_is_malformed(length: int) -> None:
    """RFC 2046 allows 70 characters."""
    boundary = boundary_of("multipart/form-data; boundary=" + "x" * length)
    assert boundary is not None
    with pytest.raises(MalformedMultipartError):
        read(b"--" + boundary, boundary)


@pytest.mark.parametrize("length", [1, 70, 200])
def test_boundaries_of_other_lengths_are_read(length: int) -> None:
    """One character is enough; some programs send more than the 70 that are allowed."""
    boundary = b"-" * length
    body = (PART + b"one" + END).replace(b"--B", b"--" + boundary)
    assert [bytes(each.data) for each in read(body, boundary)] == [b"one"]


@pytest.mark.parametrize(
    "parameters", ["", "; boundary=", ";" * 16_000, '";' * 8000, "; boundary*=x"]
)
def test_a_form_without_a_boundary_is_malformed(parameters: str) -> None:
    """Also where its header is long."""
    start = time.process_time()
    with pytest.raises(MalformedMultipartError):
        boundary_of(f"multipart/form-data{parameters}")
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    "body",
    [
        b"--B\r\n\r\n\r\n" * MIB,
        (b"--B\r\nContent-Disposition: form-data; name=x\r\n\r\nx\r\n") * 10_000,
        PART + b"\r\n--BX" * MIB,
        (PART + b"x\r\n") * 21,
    ],
    ids=["empty", "other fields", "look like a boundary", "files"],
)
@pytest.mark.parametrize("step", [3, 2**16])
def test_too_many_parts_are_refused(body: bytes, step: int) -> None:
    """Those of fields that are not asked for, too; and lines that begin as a boundary does."""
    start = time.process_time()
    with pytest.raises(TooManyEntriesError):
        read(body[: len(body) if step > 3 else 70_000], step=step)
    assert time.process_time() - start < 2


def test_a_file_over_the_limit_costs_itself() -> None:
    """And holds no more than the limit."""
    first, second = read(PART + b"x" * 5 * MIB + b"\r\n" + PART + b"two" + END)
    assert isinstance(first.error, EntryTooLargeError)
    assert not first.data
    assert bytes(second.data) == b"two"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'form-data; name="files"; filename="a;b.jpg"', "a;b.jpg"),
        (b'form-data; name="files"; filename="a\\"b.jpg"', 'a"b.jpg'),
        (b"form-data; name=files; filename=\xff\xfe", "\ufffd\ufffd"),
        (b"form-data; name=files; filename*=utf-8''x; filename=y", "y"),
        (b'form-data; name="files"', "files[0]"),
    ],
)
def test_names_of_files_are_text(disposition: bytes, name: str) -> None:
    """RFC 7578 4.2: plain parameters; bytes that are no UTF-8 are replaced."""
    body = b"--B\r\nContent-Disposition: %b\r\n\r\nx" % disposition + END
    assert [each.name for each in read(body)] == [name]
