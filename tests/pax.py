"""Lines of pax headers, for tars that tests build byte by byte."""

from __future__ import annotations


def record(key: bytes, value: bytes) -> bytes:
    """`length key=value`, with its true length, which counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest
