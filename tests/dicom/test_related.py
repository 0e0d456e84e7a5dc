"""multipart/related: every legal form is read, however it is cut; hostile ones cost little."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser

from service.dicom.related import (
    MAX_HEADER_BYTES,
    MAX_LOOKALIKES,
    MAX_PREAMBLE_BYTES,
    Part,
    RelatedParser,
    boundary_of_related,
)
from service.uploads.upload import MalformedMultipartError, MediaTypeError, TooManyEntriesError

MIB = 2**20
HEADER = b"Content-Type: application/dicom\r\n"
BOUNDARY_BYTES = st.sampled_from(b"ab-")  # so that the content often resembles a delimiter
CONTENT = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"a", b"b", b" ", b"\0x"]))


def read(
    body: bytes, boundary: bytes = b"B", cuts: Iterator[int] | None = None, **limits: int
) -> list[Part]:
    most = {"max_parts": 20, "max_part_bytes": 4 * MIB} | limits
    parser = RelatedParser(boundary, **most)
    parts = []
    for begin, end in pairwise([0, *(cuts or range(2**16, len(body), 2**16)), len(body)]):
        parts += parser.feed(body[begin:end])
    parser.close()
    return parts


def contents(parts: list[Part]) -> list[bytes]:
    return [bytes(part.data) for part in parts]


def body_of(*parts: bytes, boundary: bytes = b"B") -> bytes:
    written = b"".join(b"--%b\r\n%b\r\n%b\r\n" % (boundary, HEADER, part) for part in parts)
    return written + b"--" + boundary + b"--\r\n"


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """A legal body: its boundary, its bytes, and the media type and content of each part."""
    boundary = bytes(draw(st.lists(BOUNDARY_BYTES, min_size=1, max_size=8)))
    delimiter = b"\r\n--" + boundary

    def content() -> bytes:
        found = b"".join(draw(CONTENT))
        # No line of the content may begin as the delimiter does, nor end where that begins
        while delimiter in b"\r\n" + found + b"\r":
            found = (b"\r\n" + found).replace(delimiter, b"\r\n")[2:]
        return found

    line = b"".join
    written, parts = content() + b"\r\n" if draw(st.booleans()) else b"", []
    for _ in range(draw(st.integers(1, 4))):
        fold = draw(st.sampled_from([b" ", b"", b"\r\n ", b"\r\n\t", b" \r\n  "]))
        name = draw(st.sampled_from([b"Content-Type", b"content-type", b"CONTENT-TYPE "]))
        kind = draw(st.sampled_from([b"application/dicom", b"Application/DICOM", b"text/plain"]))
        typed = line([name, b":", fold, kind, b";", fold, b"transfer-syntax=1.2\r\n"])
        headers = draw(
            st.sampled_from([b"", typed, typed + b"Content-Length: 7\r\n", b"X-Y:\r\n" + typed])
        )
        written += line([b"--", boundary, draw(st.sampled_from([b"", b" ", b"\t "])), b"\r\n"])
        parts.append((kind.lower() if headers else b"", content()))
        written += line([headers, b"\r\n", parts[-1][1], b"\r\n"])
    written += line([b"--", boundary, b"--", draw(st.sampled_from([b"", b"\r\n", b" \r\nx"]))])
    return boundary, written, parts


@given(bodies(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_legal_body_is_read_however_it_is_cut(
    body: tuple[bytes, bytes, list[tuple[bytes, bytes]]], data: st.DataObject
) -> None:
    """The same parts come out, whole or byte by byte."""
    boundary, written, parts = body
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)))))
    for each in (iter(cuts), iter(range(1, len(written))), None):
        read_parts = read(written, boundary, each)
        assert [(part.media_type, bytes(part.data)) for part in read_parts] == parts


@given(st.binary(max_size=80), st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_have_one_meaning(noise: bytes, data: st.DataObject) -> None:
    """Damaged bodies too: the same parts, or the same error, however they are cut."""
    pieces = [b"--B", b"\r\n", b"--", HEADER, b"\r\n\r\n", b" ", noise[:40], noise[40:], b":"]
    body = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=25)))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)))))

    def outcome(cuts: Iterator[int] | None) -> list[bytes] | str:
        try:
            return contents(read(body, cuts=cuts))
        except MalformedMultipartError as error:
            return str(error)

    assert outcome(iter(cuts)) == outcome(None) == outcome(iter(range(1, len(body))))


def by_python_multipart(boundary: bytes, body: bytes) -> list[bytes]:
    """What the parser of forms finds, which reads no folded header fields."""
    parts: list[bytearray] = []
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": lambda: parts.append(bytearray()),
            "on_part_data": lambda data, start, end: parts[-1].extend(data[start:end]),
        },
    )
    parser.write(b"--%b\r\n\r\n\r\n" % boundary + body)
    return [bytes(part) for part in parts[1:]]


@given(bodies())
@settings(max_examples=300, deadline=None)
def test_it_agrees_with_the_parser_of_forms(
    body: tuple[bytes, bytes, list[tuple[bytes, bytes]]],
) -> None:
    """On bodies that both read: header fields are on one line, and names have no space behind."""
    boundary, written, parts = body
    plain = re.sub(rb"(?i)(content-type) ?:\s*(\S+?);\s*", rb"\1: \2; ", written)
    assert by_python_multipart(boundary, plain) == contents(read(plain, boundary))
    assert len(parts) == len(read(plain, boundary))


def test_a_part_may_have_neither_header_fields_nor_content() -> None:
    """RFC 2046 5.1.1; also both of them missing."""
    body = b"--B\r\n\r\none\r\n--B\r\n" + HEADER + b"\r\n--B\r\n\r\n--B\r\n\r\n\r\n--B--"
    assert contents(read(body)) == [b"one", b"", b"", b""]
    assert [part.media_type for part in read(body)] == [b"", b"application/dicom", b"", b""]


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=x', b"x"),
        ("multipart/related; type=application/dicom; boundary=x", b"x"),
        ('Multipart/Related;Boundary="x y";TYPE="Application/DICOM"', b"x y"),
        ('multipart/related; start="<1@a>"; boundary="a;b=c"; type="application/dicom"', b"a;b=c"),
        ('multipart/related; boundary="\'(x)+_,-./:=? y"', b"'(x)+_,-./:=? y"),
        ('multipart/related ; type = "application/dicom" ; boundary = x', b"x"),
        ('multipart/related; type="application/dicom; transfer-syntax=*"; boundary=x', b"x"),
        ("multipart/related; boundary=x", b"x"),
        ("application/dicom", None),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.1", None),
    ],
)
def test_every_form_of_content_type_is_read(header: str, boundary: bytes | None) -> None:
    """Quoted or not, in any order and case."""
    assert boundary_of_related(header) == boundary


@pytest.mark.parametrize(
    "header",
    [
        "",
        "multipart/form-data; boundary=x",
        "multipart/mixed; boundary=x",
        'multipart/related; type="application/dicom+json"; boundary=x',
        'multipart/related; type="image/jpeg"; boundary=x',
        "application/dicom+xml",
        "application/octet-stream",
    ],
)
def test_other_media_types_are_refused(header: str) -> None:
    """Metadata with bulk data apart, forms and images are no DICOM objects."""
    with pytest.raises(MediaTypeError):
        boundary_of_related(header)


@pytest.mark.parametrize("end", ["", "; boundary=", '; boundary=""', "; boundary=" + "x" * 257])
def test_a_boundary_is_needed(end: str) -> None:
    """One of 1 to 256 bytes."""
    with pytest.raises(MalformedMultipartError):
        boundary_of_related('multipart/related; type="application/dicom"' + end)


MALFORMED = {
    "empty": b"",
    "only the end": b"--B--\r\n",
    "another boundary": body_of(b"x", boundary=b"C"),
    "cut off in the content": body_of(b"x" * 99)[:-40],
    "cut off in the header fields": b"--B\r\nContent-Ty",
    "cut off before the last hyphen": body_of(b"x")[:-3],
    "LF only": body_of(b"x").replace(b"\r\n", b"\n"),
    "CR only": body_of(b"x").replace(b"\r\n", b"\r"),
    "no empty line": b"--B\r\nDICM\r\n--B--\r\n\r\n",
    "no colon": b"--B\r\nX\r\n\r\nx\r\n--B--",
    "no name": b"--B\r\n: x\r\n\r\nx\r\n--B--",
    "no token": b"--B\r\nX\xff: x\r\n\r\nx\r\n--B--",
    "a fold first": b"--B\r\n X: x\r\n\r\nx\r\n--B--",
    "NUL": b"--B\r\nX: \0\r\n\r\nx\r\n--B--",
    "CR in a value": b"--B\r\nX: 1\rY: 2\r\n\r\nx\r\n--B--",
    "LF in a value": b"--B\r\nX: 1\nY: 2\r\n\r\nx\r\n--B--",
    "semicolons": b"--B\r\nContent-Type: a" + b";" * 500 + b"\r\n\r\nx\r\n--B--",
    "a header field of 16 MiB": b"--B\r\nX: " + b"a" * 16 * MIB,
    "a million header fields": b"--B\r\n" + b"X: 1\r\n" * MIB,
    "a million folds": b"--B\r\nX:" + b"\r\n " * MIB,
    "a preamble of 16 MiB": b"x" * 16 * MIB,
    "a preamble of lines": b"\r\n--" * 4 * MIB,
    "lookalikes": b"--B\r\n\r\n" + b"\r\n--BX" * MIB,
    "lookalikes with spaces": b"--B\r\n\r\n" + (b"\r\n--B" + b" " * 65) * MIB,
}


@pytest.mark.parametrize("step", [2**16, 3])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_damaged_body_is_malformed(body: bytes, step: int) -> None:
    """At once, however much is sent of it, and without keeping it."""
    if step == 3:
        body = body[:70_000] if len(body) < 16 * MIB else body[: 2 * MAX_PREAMBLE_BYTES]
    start = time.process_time()
    with pytest.raises(MalformedMultipartError):
        read(body, cuts=iter(range(step, len(body), step)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize("part", [b"--B\r\n\r\n", b"--B\r\n\r\n\r\n", b"--B\r\nX: 1\r\n\r\n\r\n"])
def test_too_many_parts_are_refused(part: bytes) -> None:
    """Empty ones too."""
    start = time.process_time()
    with pytest.raises(TooManyEntriesError):
        read(b"\r\n".join([part] * MIB))
    assert time.process_time() - start < 1


def test_ten_thousand_empty_parts_are_read() -> None:
    """If so many are allowed."""
    body = b"--B\r\n\r\n\r\n" * 10_000 + b"--B--"
    assert contents(read(body, max_parts=10_000)) == [b""] * 10_000


def test_the_largest_sizes_that_are_allowed_are_read() -> None:
    """Of the preamble, the header fields and the content, and a few lines like a delimiter."""
    header = b"X: " + b"a" * (MAX_HEADER_BYTES - 5)
    content = b"x" * 4 * MIB
    body = (
        b"p" * (MAX_PREAMBLE_BYTES - 2)
        + b"\r\n--B\r\n"
        + header
        + b"\r\n\r\n"
        + content
        + b"\r\n--B--"
    )
    for step in (2**16, 4099):
        parts = read(body, cuts=iter(range(step, len(body), step)))
        assert contents(parts) == [content]
        assert not parts[0].too_large
    alike = b"\r\n--BX" * MAX_LOOKALIKES
    assert contents(read(body_of(alike))) == [alike]


@pytest.mark.parametrize("step", [1, 1000, 2**16])
def test_a_part_over_the_limit_costs_itself(step: int) -> None:
    """Its data are dropped."""
    body = body_of(b"x" * 10_000, b"y" * 10_001, b"z" * 99_999, b"")
    parts = read(body, cuts=iter(range(step, len(body), step)), max_part_bytes=10_000)
    assert [part.too_large for part in parts] == [False, True, True, False]
    assert [len(part.data) for part in parts] == [10_000, 0, 0, 0]


CHUNK = b"x" * 2**16
STREAMS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a part without end": lambda: iter([b"--B\r\n\r\n", *[CHUNK] * 4096]),
    "parts": lambda: iter([body_of(CHUNK)[:-6] + b"\r\n"] * 4096),
    "what follows the end": lambda: iter([b"--B\r\n\r\n\r\n--B--", *[CHUNK] * 4096]),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_memory_is_that_of_one_part(stream: Callable[[], Iterator[bytes]]) -> None:
    """Of 256 MiB that arrive, no more is held than the largest part, and it is said how much."""
    parser = RelatedParser(b"B", 10_000, MIB)
    tracemalloc.start()
    try:
        for chunk in stream():
            parser.feed(chunk)
            assert parser.held_bytes <= MIB + len(chunk) + 2
        assert tracemalloc.get_traced_memory()[1] < 3 * MIB
    finally:
        tracemalloc.stop()
