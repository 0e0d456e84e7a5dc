"""Files that are read without any decoder."""

from __future__ import annotations

import struct

from pydicom import uid

from service.imaging.elements import read_elements
from service.imaging.errors import ImageError

# Pixel Data begin within so many bytes; this bounds the header that is parsed here
HEAD_BYTES = 2**16
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
PLAIN = frozenset({uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian})


def is_uncompressed(data: bytes | bytearray | memoryview) -> bool:
    """Whether this is a DICOM object of plain grey pixels.

    `read_radiograph` then uses neither a codec nor pydicom's slow path (colour, palettes, Modality
    LUTs): it parses a bounded header and computes on a view of the pixels.

    Args:
        data: The whole file. Only its first HEAD_BYTES are parsed, in 20 us where it is ordinary.

    Returns:
        False for everything else, and for what is damaged.
    """
    head = bytes(data[:HEAD_BYTES])
    # A deflated object would be inflated to be parsed
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
