"""Recognise files that need no decoder."""

from __future__ import annotations

import struct

from pydicom import uid

from service.imaging.elements import read_elements
from service.imaging.errors import ImageError

# Only so many bytes are parsed here; Pixel Data must begin within them
HEAD_BYTES = 2**16
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
PLAIN = frozenset({uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian})


def is_uncompressed(data: bytes | bytearray | memoryview) -> bool:
    """Whether this is a DICOM object with uncompressed grey pixels.

    For such a file `read_radiograph` uses neither a codec nor slow code for colour, palettes and
    Modality LUTs: it parses a short header, and computes on a view of the pixels.

    Args:
        data: The whole file. Only its first HEAD_BYTES are parsed, which usually takes 20 us.

    Returns:
        False for all other files, and for damaged ones.
    """
    head = bytes(data[:HEAD_BYTES])
    # Parsing a deflated object would inflate it
    if head[128:132] != b"DICM" or uid.DeflatedExplicitVRLittleEndian.encode() in head:
        return False
    try:
        elements = read_elements(memoryview(head))
    except (ImageError, struct.error):
        return False
    pixels = elements.pixels
    return (
        pixels is not None
        and not pixels.endless
        and not pixels.floating
        and not elements.modality_lut
        and elements.text("TransferSyntaxUID") in PLAIN
        and elements.text("PhotometricInterpretation") in GREY
        and elements.values.get("SamplesPerPixel") == b"\1\0"
    )
