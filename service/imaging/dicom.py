"""Read one DICOM object: grey pixels, their polarity, and the header's claims about the view."""

from __future__ import annotations

import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import config, uid
from pydicom.errors import BytesLengthException, InvalidDicomError

from service.imaging.decoders import Decoder
from service.imaging.elements import (
    Elements,
    PixelData,
    read_elements,
    read_first_elements,
    text_of,
)
from service.imaging.errors import (
    CorruptImageError,
    MultiFrameError,
    NoPixelDataError,
    UnrecognisedFormatError,
    UnsupportedPixelFormatError,
    UnsupportedSopClassError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.header import ViewHeader
from service.imaging.lookup import read_table
from service.imaging.origin import Origin, origin_of, valid_uid, view_header_of
from service.imaging.picture import Mask, Picture, Pixels
from service.imaging.pixel_data import SUPPORTED, Stored, stored_values
from service.imaging.shutter import shutter_of
from service.imaging.tensor import check_size

# Warnings of pydicom quote attribute values, which may be a patient's, so they are disabled
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom|service\.imaging")

RADIOGRAPHS = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
SOP_INSTANCE_UID = 0x00080018
# Lossy compression changes padding values by up to 1 / MOVED_SHARE of the range of values
MOVED_SHARE = 64
# Errors of pydicom on damaged objects, found by fuzzing
PARSE_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    AttributeError,
    EOFError,
    KeyError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class DicomImage:
    """A decoded object, before windowing."""

    picture: Picture  # after the Modality LUT
    header: ViewHeader
    origin: Origin
    sop_instance_uid: str | None
    transfer_syntax: str | None  # None if the object names none
    warnings: tuple[str, ...]
    fallbacks: tuple[Decoder, ...]  # decoders that refused the frame


def read_dicom(data: bytes | memoryview, min_side: int) -> DicomImage:
    """Decode one radiograph; VOI windows are ignored by design.

    Memory: uncompressed pixels are a view of `data`; a compressed frame is copied at most once, and
    decoded at the chosen size. Padding takes two copies of the pixels, a Modality LUT and colour a
    few.

    Args:
        data: A DICOM object with a single-frame image, with or without preamble and File Meta
            Information; it must not change during the call.
        min_side: See `decode_frame`.

    Returns:
        Pixels after the Modality LUT, with their polarity and a mask of Pixel Padding.

    Raises:
        CorruptImageError: Truncated, or its attributes contradict each other.
        NoPixelDataError: No Pixel Data (7FE0,0010).
        MultiFrameError, ColourImageError: More than one frame; channels that differ.
        UnsupportedSopClassError: Neither CR, DX nor Secondary Capture.
        UnsupportedTransferSyntaxError, UnsupportedPixelFormatError: There is no decoder for it.
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.

    References:
        PS3.3 C.11.1 Modality LUT; C.7.6.3.1.2 Photometric Interpretation; C.7.5.1.1.2 Pixel
        Padding; C.8.11.3 Presentation LUT Shape.
    """
    with _damage_is_corrupt_image():
        elements = read_elements(memoryview(data))
        sop_class = _check_sop_class(elements)
        syntax = _transfer_syntax(elements)
        untold = () if syntax else ("transfer_syntax_missing",)
        stored = stored_values(elements, _checked_pixel_data(elements), syntax, min_side)
        inverted = _is_inverted(elements)
        padding = _padding_mask(elements, stored)
        pixels, descending, rescale = _modality(elements, stored.values)
        inverted ^= descending
        size = elements.integer("Rows"), elements.integer("Columns")
        shutter, spoilt = shutter_of(elements, size, pixels.shape)
        return DicomImage(
            picture=Picture(pixels, size, inverted, stored.wavelet, stored.lossy, padding, shutter),
            header=view_header_of(elements),
            origin=origin_of(elements),
            sop_instance_uid=valid_uid(elements.text("SOPInstanceUID")),
            transfer_syntax=syntax.name if syntax else None,
            warnings=(*sop_class, *untold, *stored.warnings, *rescale, *spoilt),
            fallbacks=stored.fallbacks,
        )


def read_sop_instance_uid(data: bytes | bytearray | memoryview) -> str | None:
    """The SOP Instance UID of a DICOM object by its first elements, in microseconds.

    Args:
        data: The whole file.

    Returns:
        None if it has none, or no valid one; also for a deflated or damaged object.
    """
    try:
        values = read_first_elements(memoryview(data), SOP_INSTANCE_UID)
    except (CorruptImageError, UnrecognisedFormatError, struct.error):
        return None
    return valid_uid(text_of(values.get("SOPInstanceUID", b"")))


def read_header(data: bytes | bytearray | memoryview, kept: Mapping[int | None, str]) -> Elements:
    """The raw values of some attributes before Pixel Data, which is not read.

    Time and memory are bounded whatever the header holds, see `service.imaging.walk`.

    Args:
        data: The whole file; it must not change while the result is in use.
        kept: The keywords to be kept, by tag. Transfer Syntax UID is kept in any case.

    Raises:
        CorruptImageError: It is cut off within its header, or not a sequence of elements.
        ImageTooLargeError: A deflated object inflates to more than any radiograph.
        UnrecognisedFormatError: It is not a DICOM object.
    """
    with _damage_is_corrupt_image():
        return read_elements(memoryview(data), kept)


@contextmanager
def _damage_is_corrupt_image() -> Iterator[None]:
    try:
        yield
    except PARSE_ERRORS as error:
        raise CorruptImageError("the DICOM object is damaged or cut off") from error


def _check_sop_class(elements: Elements) -> tuple[str, ...]:
    sop_class = elements.text("SOPClassUID") or elements.text("MediaStorageSOPClassUID")
    if not sop_class:
        return ("sop_class_missing",)
    if sop_class not in RADIOGRAPHS:
        raise UnsupportedSopClassError(
            f"{_name(sop_class)} is not accepted; CR, DX and Secondary Capture are"
        )
    return ()


def _transfer_syntax(elements: Elements) -> uid.UID | None:
    """The Transfer Syntax UID; None if the object names none."""
    syntax = elements.text("TransferSyntaxUID")
    if syntax and syntax not in SUPPORTED:
        raise UnsupportedTransferSyntaxError(f"no decoder for {_name(syntax)}")
    return uid.UID(syntax) if syntax else None


def _name(value: str) -> str:
    """The name of a UID, or a private UID itself; other text of a damaged object is not shown."""
    return uid.UID(value).name if uid.UID(value).is_valid else "an invalid UID"


def _checked_pixel_data(elements: Elements) -> PixelData:
    """Pixel Data, whose size and number of frames and samples are checked."""
    pixels = elements.pixels
    if pixels is None or not pixels.value:
        raise NoPixelDataError("the object has no Pixel Data")
    if pixels.floating:
        raise UnsupportedPixelFormatError("floating-point pixels are no radiograph")
    if elements.text("NumberOfFrames") and elements.integer("NumberOfFrames") > 1:
        raise MultiFrameError("the object has more than one frame; send each radiograph by itself")
    samples = elements.integer("SamplesPerPixel")
    check_size(elements.integer("Rows"), elements.integer("Columns"), samples)
    if samples not in {1, 3}:
        raise UnsupportedPixelFormatError(f"{samples} samples per pixel")
    return pixels


def _is_inverted(elements: Elements) -> bool:
    """Whether the lowest value is displayed white: MONOCHROME1 and INVERSE both mean this.

    A conforming DX object of MONOCHROME1 carries INVERSE as well (PS3.3 C.8.11.3.1.2: it "shall be
    used if Photometric Interpretation is MONOCHROME1"), so two of them do not cancel out. INVERSE
    with MONOCHROME2 does not conform, but exists.
    """
    photometric = elements.text("PhotometricInterpretation")
    return photometric == "MONOCHROME1" or elements.text("PresentationLUTShape") == "INVERSE"


def _padding_mask(elements: Elements, stored: Stored) -> Mask | None:
    """The mask of declared Pixel Padding; None if no pixel has it, or all have."""
    if "PixelPaddingValue" not in elements.values:
        return None
    values = stored.values
    signed = values.dtype.kind == "i"  # of the decoded values, which the header may contradict
    padding = elements.integer("PixelPaddingValue", signed=signed)
    limit = padding
    if "PixelPaddingRangeLimit" in elements.values:
        limit = elements.integer("PixelPaddingRangeLimit", signed=signed)
    low, high = sorted((padding, limit))
    if stored.lossy:
        moved = (int(values.max()) - int(values.min())) // MOVED_SHARE
        low, high = low - moved, high + moved
    mask: Mask = values == low if low == high else (values >= low) & (values <= high)
    return mask if mask.any() and not mask.all() else None


def _modality(elements: Elements, values: Pixels) -> tuple[Pixels, bool, tuple[str, ...]]:
    """Apply the Modality LUT, or only the sign of Rescale Slope.

    The window cancels every positive Rescale, so of Slope and Intercept only the slope's sign
    matters. Returns the pixels, whether their order is reversed, and warnings.
    """
    if found := elements.table():
        signed = values.dtype.kind == "i"  # of the decoded values, which the header may contradict
        table = read_table(found, "LUT", signed=signed, little=elements.little)
        return table.apply(values), False, ()
    if not {"RescaleSlope", "RescaleIntercept"} & elements.values.keys():
        return values, False, ()
    slope = elements.decimal("RescaleSlope")
    if not math.isfinite(slope) or slope == 0:
        return values, False, ("rescale_ignored",)
    return values, slope < 0, ()
