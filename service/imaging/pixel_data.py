"""The stored values of Pixel Data (7FE0,0010) of any transfer syntax, as grey integers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from pydicom import uid

from service.imaging.arrangement import check_rows, in_byte_order
from service.imaging.codestream import is_codestream, read_frame_header
from service.imaging.decoders import Decoded, Decoder, Samples, decode_frame, decode_rle, is_rle
from service.imaging.depth import bits_of, by_frame, by_header, said_to_be_signed
from service.imaging.elements import Elements, PixelData
from service.imaging.errors import (
    ColourImageError,
    CorruptImageError,
    UnsupportedPixelFormatError,
)
from service.imaging.fragments import ITEM_TAG, first_frame
from service.imaging.frame import Frame
from service.imaging.grey import grey_of_colour, grey_of_luminance
from service.imaging.lookup import grey_of_palette, read_table
from service.imaging.picture import Pixels, Wavelet, sampling

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
# Lossless, so that no edge is smeared at full size
EXACT = frozenset(
    {
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
    }
)
FRAGMENTED = ENCAPSULATED | {uid.RLELossless}
SUPPORTED = NATIVE | FRAGMENTED

FULL_SIZE = 2**31  # as `min_side`: never decode at reduced resolution


COLOUR = 3  # dimensions of a colour array
NEARER = 1.2  # how much nearer to grey the other planar configuration must be than the declared one
COLOURS = 3
GREYS, PALETTE = {"MONOCHROME1", "MONOCHROME2"}, "PALETTE COLOR"


class Stored(NamedTuple):
    """Stored values, and how they were decoded."""

    values: Pixels  # (rows, columns), or half, quarter, ... of them
    wavelet: Wavelet | None = None  # see `Decoded`
    lossy: bool = False  # lossy compression
    fallbacks: tuple[Decoder, ...] = ()
    warnings: tuple[str, ...] = ()


def stored_values(
    elements: Elements, pixels: PixelData, syntax: uid.UID | None, min_side: int
) -> Stored:
    """Decode the one frame of an object whose pixel module has been checked.

    Uncompressed values are a view of the object, unless they are big-endian or have unused bits
    set. A compressed frame is read by its codestream's header (PS3.5 8.2); if the object's header
    differs, there is a warning.

    Args:
        elements: The attributes.
        pixels: The object's Pixel Data.
        syntax: One of SUPPORTED; None if the object names none: fragments are recognised by
            content.
        min_side: See `decode_frame`.

    Raises:
        CorruptImageError, ColourImageError: See `read_dicom`.
        Exception: One of `dicom.PARSE_ERRORS`, for damaged attributes.
    """
    photometric = elements.text("PhotometricInterpretation")
    if photometric is None:  # whether low values are dark is unknown
        raise CorruptImageError("the object has no PhotometricInterpretation")
    palette = photometric == PALETTE
    # Padding is recognised by equality, which a reduced wavelet would smear
    exact = palette or "PixelPaddingValue" in elements.values
    found, warnings = _decoded(elements, pixels, syntax, FULL_SIZE if exact else min_side)
    if palette:
        values, more = _palette(elements, found.samples)
    elif found.samples.ndim == COLOUR:
        values, more = _grey(elements, found)
    elif found.frame:
        values, more = by_frame(elements, found.samples, found.frame)
    else:
        signed = said_to_be_signed(elements)
        ordered, order = in_byte_order(found.samples, bits_of(elements), signed=signed)
        values, more = by_header(elements, ordered)
        more = (*order, *more)
    if not found.frame and not palette:
        check_rows(values)
    if photometric not in GREYS | {PALETTE} and found.samples.ndim != COLOUR:
        more = (*more, "photometric_interpretation_contradicted")
    lossy = found.frame is not None and found.frame.family != "jpeg-ls" and syntax not in EXACT
    return Stored(values, found.wavelet, lossy, found.fallbacks, (*warnings, *more))


def _decoded(
    elements: Elements, pixels: PixelData, syntax: uid.UID | None, min_side: int
) -> tuple[Decoded, tuple[str, ...]]:
    """Samples as coded, (rows, columns) or (rows, columns, 3), and warnings."""
    samples = elements.integer("SamplesPerPixel")
    # If the transfer syntax contradicts the content, the content decides
    fragments = pixels.endless or (syntax not in NATIVE and pixels.value[:4] == ITEM_TAG)
    warnings = (
        ("transfer_syntax_contradicted",) if syntax in (FRAGMENTED, NATIVE)[fragments] else ()
    )
    if not fragments:
        _check_bits(elements)
        surplus = _surplus(elements, pixels)
        return Decoded(_uncompressed(elements, pixels)), (*warnings, *surplus)
    stream = first_frame(pixels)
    if is_rle(stream) or (syntax == uid.RLELossless and not is_codestream(stream)):
        _check_bits(elements)
        shape = elements.integer("Rows"), elements.integer("Columns")
        size = elements.integer("BitsAllocated") // 8
        if samples == 1:
            return Decoded(decode_rle(stream, shape, size)), warnings
        return Decoded(decode_rle(stream, (samples, *shape), size).transpose(1, 2, 0)), warnings
    frame = read_frame_header(stream)
    _check_frame(elements, frame, samples)
    # Two's complement coded as unsigned has a jump at zero, which a reduced size would smear
    jumps = said_to_be_signed(elements) and not frame.signed
    return decode_frame(stream, FULL_SIZE if jumps else min_side, raw_colour=True), warnings


def _check_bits(elements: Elements) -> None:
    allocated, stored = elements.integer("BitsAllocated"), elements.integer("BitsStored")
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated:
        raise UnsupportedPixelFormatError(f"{stored} bits stored in {allocated} allocated")


def _check_frame(elements: Elements, frame: Frame, samples: int) -> None:
    """Refuse a frame whose size or number of components differs from the object's header.

    Three components are accepted although the header says one: they may be grey.
    """
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    if (frame.rows, frame.columns) != (rows, columns):
        raise CorruptImageError(
            f"the header says {rows} x {columns} pixels, but the frame holds "
            f"{frame.rows} x {frame.columns}"
        )
    if frame.components not in {samples, COLOURS}:
        raise CorruptImageError(
            f"the header says {samples} samples per pixel, but the frame has {frame.components}"
        )


def _expected(elements: Elements) -> tuple[int, int]:
    """The expected bytes of the uncompressed frame, and of one row (PS3.5 8.1.1)."""
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    samples, bits = elements.integer("SamplesPerPixel"), elements.integer("BitsAllocated")
    if elements.text("PhotometricInterpretation") == "YBR_FULL_422" and samples == COLOURS:
        samples = 2
    row = columns * samples * bits // 8
    return rows * row, row


def _surplus(elements: Elements, pixels: PixelData) -> tuple[str, ...]:
    """A warning about surplus bytes: more than one byte of padding, but less than a row.

    Raises:
        CorruptImageError: There are too few bytes, or a whole row too many, so that the header does
            not describe these pixels.
    """
    expected, row = _expected(elements)
    found = len(pixels.value)
    if found < expected:
        raise CorruptImageError(f"Pixel Data holds {found} of {expected} bytes")
    if found >= expected + row:
        raise CorruptImageError(
            f"Pixel Data holds {found} bytes, but the header describes {expected}"
        )
    return ("surplus_pixel_bytes_ignored",) if found > expected + expected % 2 else ()


def _native(elements: Elements, pixels: PixelData, shape: tuple[int, ...]) -> Samples:
    """The samples of uncompressed Pixel Data, whose length `_surplus` has checked."""
    size, count = elements.integer("BitsAllocated") // 8, math.prod(shape)
    big = not elements.little
    words = np.frombuffer(pixels.value, f"{'>' if big else '<'}u{size}", count)
    if big and size == 1 and pixels.vr == b"OW":
        # PS3.5 8.1.2: 8-bit samples are stored in words, so each pair of bytes is swapped
        whole = np.frombuffer(pixels.value, ">u2", len(pixels.value) // 2)
        words = whole.astype("<u2").view(np.uint8)[:count]
    return words.reshape(shape).astype(words.dtype.newbyteorder("="), copy=False)


def _palette(elements: Elements, values: Samples) -> tuple[Pixels, tuple[str, ...]]:
    """The grey of values that are indices of a palette (PS3.3 C.7.6.3.1.5)."""
    if values.ndim == COLOUR:
        raise CorruptImageError("the header says PALETTE COLOR, but the frame has three components")
    raw = elements.palettes()
    if any(keyword.startswith("Segmented") for keyword in raw):
        raise UnsupportedPixelFormatError("the palette is segmented, which is not read")
    signed = elements.integer("PixelRepresentation") != 0
    red, green, blue = (
        read_table(raw, f"{colour}PaletteColorLookupTable", signed=signed, little=elements.little)
        for colour in ("Red", "Green", "Blue")
    )
    colours = np.stack([red.entries, green.entries, blue.entries], axis=1)
    return grey_of_palette(values, colours, green)


def _grey(elements: Elements, found: Decoded) -> tuple[Pixels, tuple[str, ...]]:
    """The grey of three components, read as RGB or as luminance and chroma, the declared one first.

    Markers and attributes often declare the wrong one; a grey image that is read the wrong way is
    coloured everywhere.
    """
    samples, photometric = found.samples, elements.text("PhotometricInterpretation") or ""
    if samples.dtype.kind != "u":
        raise CorruptImageError("the components of a colour image are signed")
    bits = found.frame.precision if found.frame else elements.integer("BitsStored")
    bits = min(bits, samples.dtype.itemsize * 8)
    # JPEG codes luminance unless it is RGB; the JPEG 2000 decoder converts YBR_RCT and YBR_ICT
    luminance = photometric.startswith(("YBR_FULL", "YBR_PARTIAL"))
    readings = [grey_of_colour, grey_of_luminance]
    contradicted = photometric in GREYS or elements.integer("SamplesPerPixel") != COLOURS
    try:
        grey, warnings = readings[luminance](samples, bits)
    except ColourImageError:
        if not found.frame:
            raise
        grey, warnings = readings[not luminance](samples, bits)
        contradicted = True
    return grey, (*warnings, *(("photometric_interpretation_contradicted",) * contradicted))


def _uncompressed(elements: Elements, pixels: PixelData) -> Samples:
    """(rows, columns) or (rows, columns, 3) as stored (PS3.3 C.7.6.3.1.2 and 3)."""
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    if elements.integer("SamplesPerPixel") == 1:
        return _native(elements, pixels, (rows, columns))
    if elements.text("PhotometricInterpretation") == "YBR_FULL_422":  # Y, Y, Cb, Cr
        pairs = _native(elements, pixels, (rows, columns // 2, 4))
        return pairs[..., [[0, 2, 3], [1, 2, 3]]].reshape(rows, columns, 3)
    planes = _native(elements, pixels, (3, rows, columns)).transpose(1, 2, 0)
    mixed = _native(elements, pixels, (rows, columns, 3))
    planar = "PlanarConfiguration" in elements.values and elements.integer("PlanarConfiguration")
    said, other = (planes, mixed) if planar else (mixed, planes)
    # Grey stored as colour is nearly grey in only one of the two planar configurations
    luminance = (elements.text("PhotometricInterpretation") or "").startswith("YBR")
    middle = 1 << (elements.integer("BitsStored") - 1) if luminance else None
    return other if NEARER * _colour(other, middle) < _colour(said, middle) else said


def _colour(samples: Samples, middle: int | None) -> float:
    """How far sampled pixels are from grey: mean difference of channels, or of chroma."""
    some = samples[sampling(samples[..., 0])].astype(np.int32)
    apart = np.diff(some, axis=-1) if middle is None else some[..., 1:] - middle
    return float(np.abs(apart).mean())
