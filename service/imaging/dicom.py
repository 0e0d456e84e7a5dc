"""One DICOM object -> grey pixels, their polarity and what the header claims."""

from __future__ import annotations

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import config, uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag

from service.imaging.codestream import decode_frame, decode_rle
from service.imaging.errors import (
    ColourImageError,
    CorruptImageError,
    ImageTooLargeError,
    MultiFrameError,
    NoPixelDataError,
    UnsupportedPixelFormatError,
    UnsupportedSopClassError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.grey import grey_of_colour
from service.imaging.header import ViewHeader
from service.imaging.tensor import MAX_PIXELS, Pixels, check_size

# pydicom quotes attribute values when it warns, and they may be a patient's: it must not speak.
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

# What pydicom raises on damaged objects, found by fuzzing
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
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

PIXEL_DATA_TAG = b"\xe0\x7f\x10\x00"  # as encapsulated objects, always little endian, write it
FULL_SIZE = 2**31  # as `min_side`: never decode at reduced resolution
MAX_INFLATED_BYTES = 2 * MAX_PIXELS + 2**24  # pixels of 16 bits, and a generous header


@dataclass(frozen=True)
class DicomImage:
    """A decoded object, before the window."""

    pixels: Pixels  # (rows, columns), or fewer where JPEG 2000 was decoded at reduced resolution
    inverted: bool  # low values are displayed bright
    header: ViewHeader
    sop_instance_uid: str | None
    transfer_syntax: str
    warnings: tuple[str, ...]


def read_dicom(data: bytes, min_side: int) -> DicomImage:
    """Decode one radiograph; VOI windows are ignored on purpose.

    Args:
        data: A DICOM Part 10 file holding a single-frame image.
        min_side: See `decode_frame`.

    Returns:
        Pixels after the Modality LUT, Pixel Padding set to the darkest value, with their polarity.

    Raises:
        CorruptImageError: Truncated, or it contradicts itself.
        NoPixelDataError: No Pixel Data (7FE0,0010).
        MultiFrameError, ColourImageError: More than one frame; channels that differ.
        UnsupportedSopClassError: Neither CR, DX nor Secondary Capture.
        UnsupportedTransferSyntaxError, UnsupportedPixelFormatError: No decoder for it.
        ImageTooSmallError, ImageTooLargeError: By its declared size, before it is decoded.

    References:
        PS3.3 C.11.1 Modality LUT; C.7.6.3.1.2 Photometric Interpretation; C.7.5.1.1.2 Pixel
        Padding; C.8.11.3 Presentation LUT Shape.
    """
    with _damage_is_corrupt_image():
        dataset = _parse(data)
        sop_class = _check_sop_class(dataset)
        syntax = _transfer_syntax(dataset)
        _check_pixel_data(dataset, data)
        _check_pixel_module(dataset)
        values, colour = _stored_values(dataset, syntax, min_side)
        inverted = _is_inverted(dataset)
        padding = _padding_mask(dataset, values)
        pixels, descending, rescale = _modality(dataset, values)
        inverted ^= descending
        if padding is not None:
            pixels = _darken(pixels, padding, inverted)
        return DicomImage(
            pixels=pixels,
            inverted=inverted,
            header=ViewHeader(_text(dataset, "ViewPosition")),
            sop_instance_uid=_text(dataset, "SOPInstanceUID"),
            transfer_syntax=syntax.name,
            warnings=(*sop_class, *colour, *rescale),
        )


@contextmanager
def _damage_is_corrupt_image() -> Iterator[None]:
    try:
        yield
    except PARSE_ERRORS as error:
        raise CorruptImageError(
            f"the DICOM object is damaged or cut off ({type(error).__name__})"
        ) from error


def _parse(data: bytes) -> Dataset:
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta
    )
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(io.BytesIO(data))
    # pydicom would inflate without a bound, and 1 MB of zeros deflates to 1 kB
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data[stream.tell() :], MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise ImageTooLargeError(f"the deflated object exceeds {MAX_INFLATED_BYTES} bytes")
    if not inflater.eof:
        raise CorruptImageError("the deflated object is cut off")
    dataset = read_dataset(io.BytesIO(inflated), is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = meta  # type: ignore[assignment]  # a Dataset serves where its subclass does
    return dataset


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = dataset.get(keyword)
    return (str(value).strip().upper() or None) if value is not None else None


def _check_sop_class(dataset: Dataset) -> tuple[str, ...]:
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if not sop_class:
        return ("sop_class_missing",)
    if sop_class not in RADIOGRAPHS:
        name = uid.UID(sop_class).name  # the UID itself where it is private
        raise UnsupportedSopClassError(f"{name} is not a radiograph (CR, DX or Secondary Capture)")
    return ()


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise UnsupportedTransferSyntaxError("the object names no transfer syntax")
    if syntax not in NATIVE | ENCAPSULATED | {uid.RLELossless}:
        raise UnsupportedTransferSyntaxError(f"no decoder for {uid.UID(syntax).name}")
    return uid.UID(syntax)


def _check_pixel_data(dataset: Dataset, data: bytes) -> None:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnsupportedPixelFormatError("floating-point pixels are no radiograph")
    if dataset.get("PixelData"):
        return
    if "PixelData" not in dataset and PIXEL_DATA_TAG in data:
        # pydicom drops an element of undefined length whose end is missing
        raise CorruptImageError("the object is cut off within its Pixel Data")
    raise NoPixelDataError("the object has no Pixel Data")


def _check_pixel_module(dataset: Dataset) -> None:
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise MultiFrameError("the object has more than one frame; send each radiograph by itself")
    check_size(int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in {8, 16, 32} or not 1 <= stored <= allocated:
        raise UnsupportedPixelFormatError(f"{stored} bits stored in {allocated} allocated")
    if int(dataset.SamplesPerPixel) not in {1, 3}:
        raise UnsupportedPixelFormatError(f"{dataset.SamplesPerPixel} samples per pixel")


def _stored_values(
    dataset: Dataset, syntax: uid.UID, min_side: int
) -> tuple[Pixels, tuple[str, ...]]:
    if int(dataset.SamplesPerPixel) == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return grey_of_colour(_colour_samples(dataset, syntax))
    if syntax in NATIVE:
        values = _native(dataset, syntax)
    else:
        values = _encapsulated(dataset, syntax, min_side)
    return _significant_bits(dataset, values, syntax), ()


def _native(dataset: Dataset, syntax: uid.UID) -> Pixels:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    size = int(dataset.BitsAllocated) // 8
    expected, found = rows * columns * size, len(dataset.PixelData)
    if found < expected:
        raise CorruptImageError(f"Pixel Data holds {found} of {expected} bytes")
    big = syntax == uid.ExplicitVRBigEndian
    words = np.frombuffer(dataset.PixelData, f"{'>' if big else '<'}u{size}", rows * columns)
    if big and size == 1 and dataset["PixelData"].VR == "OW":
        # PS3.5 8.1.2: bytes travel in words, so each pair is swapped
        whole = np.frombuffer(dataset.PixelData, ">u2", found // 2)
        words = whole.astype("<u2").view(np.uint8)[: rows * columns]
    return words.reshape(rows, columns).astype(words.dtype.newbyteorder("="), copy=False)


def _encapsulated(dataset: Dataset, syntax: uid.UID, min_side: int) -> Pixels:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == uid.RLELossless:
        return decode_rle(stream, rows, columns, int(dataset.BitsAllocated) // 8)
    # Padding is recognised by equality, which a reduced wavelet would smear
    values = decode_frame(stream, FULL_SIZE if "PixelPaddingValue" in dataset else min_side)
    if values.ndim == 3:
        raise ColourImageError("the object says one sample per pixel, but its frame has three")
    _check_agrees(values, rows, columns)
    return values


def _check_agrees(values: npt.NDArray[Any], rows: int, columns: int) -> None:
    """The frame may be smaller by a power of two, as reduced JPEG 2000 is, but not otherwise."""
    for halvings in range(16):
        if values.shape[:2] == (-(-rows >> halvings), -(-columns >> halvings)):
            return
    raise CorruptImageError(
        f"the header says {rows} x {columns} pixels, but the frame holds another size"
    )


def _significant_bits(dataset: Dataset, values: Pixels, syntax: uid.UID) -> Pixels:
    """Keep Bits Stored up to High Bit (old overlays lie above) and restore the sign (PS3.5 8.1.1).

    A lossy or reduced frame of more precision than Bits Stored may overshoot: then the brightest
    pixels would wrap to black, so such frames are clipped and not masked.
    """
    if values.dtype.kind == "i":
        return values  # the codestream said itself that it is signed
    size = values.dtype.itemsize * 8
    stored = min(int(dataset.BitsStored), size)
    signed = int(dataset.PixelRepresentation) != 0
    if syntax in INEXACT and not signed:
        return np.minimum(values, (1 << stored) - 1) if stored < size else values
    high = stored - 1 if syntax in ENCAPSULATED else int(dataset.get("HighBit") or stored - 1)
    above = size - 1 - high if stored - 1 <= high < size else size - stored
    if above:
        values = values << above
    if signed:
        values = values.view(f"i{size // 8}")
    return values >> (size - stored) if stored < size else values


def _colour_samples(dataset: Dataset, syntax: uid.UID) -> npt.NDArray[Any]:
    photometric = str(dataset.PhotometricInterpretation)
    if syntax in ENCAPSULATED:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        samples = decode_frame(stream, FULL_SIZE)  # JPEG and JPEG 2000 come out as RGB
    else:
        samples = pixel_array(dataset, raw=True)
        if photometric.startswith("YBR"):
            samples = convert_color_space(samples, photometric, "RGB")
    if photometric == "PALETTE COLOR":
        samples = apply_color_lut(samples, dataset)
    if samples.ndim != 3 or samples.shape[2] != 3 or samples.dtype.kind != "u":
        raise CorruptImageError("the object says three samples per pixel, but its frame has not")
    return samples


def _is_inverted(dataset: Dataset) -> bool:
    """MONOCHROME1 and INVERSE say the same thing: the lowest value is displayed white.

    A conforming DX object of MONOCHROME1 carries INVERSE as well (PS3.3 C.8.11.3.1.2: it "shall be
    used if Photometric Interpretation is MONOCHROME1"), so two of them do not cancel out. INVERSE
    with MONOCHROME2 does not conform, but exists.
    """
    photometric = _text(dataset, "PhotometricInterpretation")
    return photometric == "MONOCHROME1" or _text(dataset, "PresentationLUTShape") == "INVERSE"


def _padding_mask(dataset: Dataset, values: Pixels) -> npt.NDArray[np.bool_] | None:
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((int(padding), int(padding if limit is None else limit)))
    mask: npt.NDArray[np.bool_] = (values >= ends[0]) & (values <= ends[1])
    return mask if mask.any() and not mask.all() else None


def _darken(pixels: Pixels, padding: npt.NDArray[np.bool_], inverted: bool) -> Pixels:
    """Give padding the darkest value of the rest: it neither widens the window nor shows."""
    rest = pixels[~padding]
    return np.where(padding, rest.max() if inverted else rest.min(), pixels)


def _modality(dataset: Dataset, values: Pixels) -> tuple[Pixels, bool, tuple[str, ...]]:
    """Apply the Modality LUT as far as the tensor depends on it.

    The window undoes every positive Rescale, so of Slope and Intercept only the slope's sign
    matters. Returns pixels, whether they now descend, and warnings.
    """
    if dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(values, dataset), False, ()
    slope, intercept = (_number(dataset, key) for key in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return values, False, ()
    if slope is None or not math.isfinite(slope) or slope == 0:
        return values, False, ("rescale_ignored",)
    return values, slope < 0, ()


def _number(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    return float(value)
