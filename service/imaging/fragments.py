"""Encapsulated Pixel Data: join the fragments of the one frame (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from service.imaging.codestream import is_codestream
from service.imaging.decoders import is_rle
from service.imaging.elements import PixelData
from service.imaging.errors import CorruptImageError
from service.imaging.frame import Stream

ITEM_TAG = b"\xfe\xff\x00\xe0"
ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
MAX_FRAGMENTS = 50_000  # in fragments of 1 KiB, enough for the largest object


def first_frame(pixels: PixelData) -> Stream:
    """The one frame, copied only if it has several fragments.

    References:
        PS3.5 A.4 Encapsulation: a Basic Offset Table, fragments, a Sequence Delimitation Item.
    """
    offsets, *fragments = _items(pixels)
    if _begins_frame(offsets):  # the Basic Offset Table, which may be empty, is missing
        fragments.insert(0, offsets)
    elif len(offsets) > 4:
        # The table knows of more frames than the header, so stop at the second; but some writers
        # list fragments in it
        before = _before(fragments, struct.unpack_from("<L", offsets, 4)[0])
        if len(before) < len(fragments) and _begins_frame(fragments[len(before)]):
            fragments = before
    if not any(fragments):
        raise CorruptImageError("Pixel Data hold no frame")
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def _begins_frame(fragment: memoryview) -> bool:
    """Whether a fragment begins a frame. Within a codestream these bytes cannot occur; within RLE
    they may, but its frames have one fragment each.
    """
    return is_codestream(fragment) or is_rle(fragment)


def _before(fragments: list[memoryview], offset: int) -> list[memoryview]:
    """The fragments that begin before an offset, which includes the headers of items."""
    at, kept = 0, []
    for fragment in fragments:
        if at < offset:
            kept.append(fragment)
        at += 8 + len(fragment)
    return kept


def _items(pixels: PixelData) -> Iterator[memoryview]:
    value, at = pixels.value, 0
    for _ in range(MAX_FRAGMENTS):
        if at == len(value) and not pixels.endless:
            return
        group, element, length = struct.unpack_from("<HHL", value, at)
        at += 8
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            return
        if tag != ITEM or at + length > len(value):
            raise CorruptImageError("the object is cut off within its Pixel Data")
        yield value[at : at + length]
        at += length
    raise CorruptImageError(f"Pixel Data lie in more than {MAX_FRAGMENTS} fragments")
