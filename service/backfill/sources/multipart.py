"""The one part of a multipart/related answer."""

from __future__ import annotations

from python_multipart.multipart import parse_options_header


class MultipartError(Exception):
    """The body is cut off, or does not have exactly one part."""


def only_part(content_type: str, body: bytes) -> memoryview:
    """The content of the only part of `body`, not copied.

    A body that is not multipart is returned whole: some archives send one instance without it.

    Raises:
        MultipartError: The body is cut off, or does not have exactly one part.

    References:
        RFC 2046 5.1.1, RFC 2387; DICOM PS3.18 8.6.1.2.
    """
    kind, parameters = parse_options_header(content_type)
    if not kind.lower().startswith(b"multipart/"):
        return memoryview(body)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise MultipartError("a multipart answer without a boundary")
    delimiter = b"--" + boundary
    begin = _after_delimiter(body, delimiter)
    end = body.find(b"\r\n" + delimiter, begin)
    if end < 0:
        raise MultipartError("a multipart answer without an end")
    after = end + 2 + len(delimiter)
    if body[after : after + 2] != b"--":
        raise MultipartError("a multipart answer that is cut off, or of several parts")
    return memoryview(body)[begin:end]


def _after_delimiter(body: bytes, delimiter: bytes) -> int:
    """The offset of the content of the first part, after its headers."""
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter)
    if at < 0:
        raise MultipartError("a multipart answer without a part")
    # An empty line ends the headers. Without headers, it follows the delimiter's line at once
    headers = body.find(b"\r\n", at + 2)
    blank = body.find(b"\r\n\r\n", headers)
    if headers < 0 or blank < 0:
        raise MultipartError("a multipart answer without a part")
    return blank + 4
