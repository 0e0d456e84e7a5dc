"""The stored values of Pixel Data (7FE0,0010), from whichever transfer syntax, as grey integers."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydicom import uid
from pydicom.pixels.processing import convert_color_space

from service.imaging.codestream import read_frame_header
from service.imaging.decoders import Decoded, Decoder, Samples, decode_frame, decode_rle
from service.imaging.elements import Elements, PixelData
from service.imaging.errors import ColourImageError, CorruptImageError
from service.imaging.frame import Stream
from service.imaging.grey import check_share, grey_of_colour, is_coloured
from service.imaging.lookup import Table, read_table
from service.imaging.picture import Pixels, Wavelet

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    }
)
ENCAPSULATED = frozenset(
    {
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
    }
)
INEXACT = ENCAPSULATED - {
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
}  # JPEG 2000 lossless belongs here, because its reduced resolutions may overshoot
LOSSY = frozenset(
    {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K}
)
SUPPORTED = NATIVE | ENCAPSULATED | {uid.RLELossless}

FULL_SIZE = 2**31  # as `min_side`: never decode at reduced resolution


ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
MAX_FRAGMENTS = 50_000  # of 1 KiB, they would hold the largest object
CONVERTED_AT_ONCE = 2**20  # samples


class Stored(NamedTuple):
    """Stored values, and how they were got."""

    values: Pixels  # (rows, columns), or half, quarter, ... of them
    wavelet: Wavelet | None = None  # see `Decoded`
    fallbacks: tuple[Decoder, ...] = ()
    warnings: tuple[str, ...] = ()


def stored_values(elements: Elements, pixels: PixelData, syntax: uid.UID, min_side: int) -> Stored:
    """Decode the one frame of an object whose pixel module has been checked.

    Uncompressed values are a view of the object, unless they are big-endian or hold other bits.

    Args:
        elements: The attributes.
        pixels: Its Pixel Data.
        syntax: One of SUPPORTED.
        min_side: See `decode_frame`.

    Raises:
        CorruptImageError, ColourImageError: See `read_dicom`. What Python raises on damaged
            attributes passes through.
    """
    if elements.text("PhotometricInterpretation") == "PALETTE COLOR":
        return _palette(elements, _one_sample(elements, pixels, syntax, FULL_SIZE))
    if elements.integer("SamplesPerPixel") == 3:
        found = _three_samples(elements, pixels, syntax)
        grey, warnings = grey_of_colour(found.samples)
        return Stored(grey, fallbacks=found.fallbacks, warnings=warnings)
    # Padding is recognised by equality, which a reduced wavelet would smear
    side = FULL_SIZE if "PixelPaddingValue" in elements.values else min_side
    found = _one_sample(elements, pixels, syntax, side)
    values = _significant_bits(elements, found.samples, syntax)
    return Stored(values, found.wavelet, found.fallbacks)


def _one_sample(elements: Elements, pixels: PixelData, syntax: uid.UID, min_side: int) -> Decoded:
    shape = elements.integer("Rows"), elements.integer("Columns")
    if syntax in NATIVE:
        return Decoded(_native(elements, pixels, syntax, shape))
    if syntax == uid.RLELossless:
        return Decoded(
            decode_rle(_first_frame(pixels), shape, elements.integer("BitsAllocated") // 8)
        )
    found = decode_frame(_codestream(elements, pixels), min_side)
    if found.samples.ndim == 3:
        raise ColourImageError("the object says one sample per pixel, but its frame has three")
    return found


def _native(
    elements: Elements, pixels: PixelData, syntax: uid.UID, shape: tuple[int, ...]
) -> Samples:
    size, count = elements.integer("BitsAllocated") // 8, math.prod(shape)
    expected, found = count * size, len(pixels.value)
    if found < expected:
        raise CorruptImageError(f"Pixel Data holds {found} of {expected} bytes")
    big = syntax == uid.ExplicitVRBigEndian
    words = np.frombuffer(pixels.value, f"{'>' if big else '<'}u{size}", count)
    if big and size == 1 and pixels.vr == b"OW":
        # PS3.5 8.1.2: bytes travel in words, so each pair is swapped
        whole = np.frombuffer(pixels.value, ">u2", found // 2)
        words = whole.astype("<u2").view(np.uint8)[:count]
    return words.reshape(shape).astype(words.dtype.newbyteorder("="), copy=False)


def _first_frame(pixels: PixelData) -> Stream:
    """The one frame, not copied unless it lies in several fragments.

    References:
        PS3.5 A.4 Encapsulation: a Basic Offset Table, fragments, a Sequence Delimitation Item.
    """
    offsets, *fragments = _items(pixels)
    if len(offsets) > 4:  # the table knows of more frames than the header, so stop at the second
        fragments = _before(fragments, struct.unpack_from("<L", offsets, 4)[0])
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def _before(fragments: list[memoryview], offset: int) -> list[memoryview]:
    """Those that begin before an offset, which counts the heads of items as well."""
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


def _codestream(elements: Elements, pixels: PixelData) -> Stream:
    """The one frame, of the size that the header says."""
    stream = _first_frame(pixels)
    frame = read_frame_header(stream)
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    if (frame.rows, frame.columns) != (rows, columns):
        raise CorruptImageError(
            f"the header says {rows} x {columns} pixels, but the frame holds another size"
        )
    return stream


def _significant_bits(elements: Elements, values: Pixels, syntax: uid.UID) -> Pixels:
    """Keep Bits Stored up to High Bit (old overlays lie above) and restore the sign (PS3.5 8.1.1).

    A lossy or reduced frame of more precision than Bits Stored may overshoot: then the brightest
    pixels would wrap to black, so such frames are clipped and not masked.

    Values that need neither, as nearly all do, are returned as they came: to look costs 0.2 ms.
    """
    if values.dtype.kind == "i":
        return values  # the codestream said itself that it is signed
    size = values.dtype.itemsize * 8
    stored = min(elements.integer("BitsStored"), size)
    signed = elements.integer("PixelRepresentation") != 0
    if syntax in INEXACT and not signed:
        return np.minimum(values, (1 << stored) - 1) if _exceed(values, stored) else values
    high = stored - 1 if syntax in ENCAPSULATED else _high_bit(elements, stored)
    above = size - 1 - high if stored - 1 <= high < size else size - stored
    if signed:
        numbers = values.view(f"i{size // 8}")
        if above == size - stored and not _exceed(numbers, stored - 1):
            return numbers
        return (values << above).view(numbers.dtype) >> (size - stored)
    if above == size - stored and not _exceed(values, stored):
        return values
    return (values << above) >> (size - stored)


def _exceed(values: Pixels, bits: int) -> bool:
    """Whether some value needs more bits, the sign left out."""
    low = -int(values.min()) - 1 if values.dtype.kind == "i" else 0
    return max(low, int(values.max())) >> bits > 0


def _high_bit(elements: Elements, stored: int) -> int:
    return (elements.integer("HighBit") if "HighBit" in elements.values else 0) or stored - 1


def _palette(elements: Elements, found: Decoded) -> Stored:
    """Grey of the colours that the values stand for (PS3.3 C.7.6.3.1.5)."""
    values, raw = found.samples, elements.palettes()
    signed = elements.integer("PixelRepresentation") != 0
    red, green, blue = (
        read_table(raw, f"{colour}PaletteColorLookupTable", signed=signed, little=elements.little)
        for colour in ("Red", "Green", "Blue")
    )
    coloured = is_coloured(np.stack([red.entries, green.entries, blue.entries], axis=1))
    count = int(np.count_nonzero(Table(coloured, green.first).apply(values)))
    warnings = check_share(count, values.size)
    return Stored(green.apply(values), fallbacks=found.fallbacks, warnings=warnings)


def _three_samples(elements: Elements, pixels: PixelData, syntax: uid.UID) -> Decoded:
    """(rows, columns, 3) RGB."""
    if syntax in ENCAPSULATED:  # JPEG and JPEG 2000 come out so
        found = decode_frame(_codestream(elements, pixels), FULL_SIZE)
    else:
        found = Decoded(_rgb(elements, _uncompressed(elements, pixels, syntax)))
    samples = found.samples
    if samples.ndim != 3 or samples.shape[2] != 3 or samples.dtype.kind != "u":
        raise CorruptImageError("the object says three samples per pixel, but its frame has not")
    return found


def _uncompressed(elements: Elements, pixels: PixelData, syntax: uid.UID) -> Samples:
    """(rows, columns, 3) as stored (PS3.3 C.7.6.3.1.2 and 3)."""
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    if syntax == uid.RLELossless:
        size = elements.integer("BitsAllocated") // 8
        return decode_rle(_first_frame(pixels), (3, rows, columns), size).transpose(1, 2, 0)
    if elements.text("PhotometricInterpretation") == "YBR_FULL_422":  # two of Y, then Cb and Cr
        pairs = _native(elements, pixels, syntax, (rows, columns // 2, 4))
        return pairs[..., [[0, 2, 3], [1, 2, 3]]].reshape(rows, columns, 3)
    if "PlanarConfiguration" in elements.values and elements.integer("PlanarConfiguration"):
        return _native(elements, pixels, syntax, (3, rows, columns)).transpose(1, 2, 0)
    return _native(elements, pixels, syntax, (rows, columns, 3))


def _rgb(elements: Elements, samples: Samples) -> Samples:
    """In parts, because the conversion takes twenty times the bytes."""
    photometric = elements.text("PhotometricInterpretation") or ""
    if not photometric.startswith("YBR"):
        return samples
    count = -(-samples.size // CONVERTED_AT_ONCE)
    parts = np.array_split(samples, count)
    return np.concatenate([convert_color_space(part, photometric, "RGB") for part in parts])
