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

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import config, uid
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.tag import BaseTag

from service.imaging.errors import (
    CorruptImageError,
    ImageTooLargeError,
    MultiFrameError,
    NoPixelDataError,
    UnsupportedPixelFormatError,
    UnsupportedSopClassError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.header import ViewHeader
from service.imaging.pixel_data import SUPPORTED, stored_values
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
MAX_INFLATED_BYTES = 2 * MAX_PIXELS + 2**24  # pixels of 16 bits, and a generous header


@dataclass(frozen=True)
class DicomImage:
    """A decoded object, before the window."""

    pixels: Pixels  # (rows, columns), or half, quarter, ... where JPEG 2000 was decoded so
    size: tuple[int, int]  # rows, columns of the image itself
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
        values, colour = stored_values(dataset, syntax, min_side)
        inverted = _is_inverted(dataset)
        padding = _padding_mask(dataset, values)
        pixels, descending, rescale = _modality(dataset, values)
        inverted ^= descending
        if padding is not None:
            pixels = _darken(pixels, padding, inverted)
        return DicomImage(
            pixels=pixels,
            size=(int(dataset.Rows), int(dataset.Columns)),
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
        raise UnsupportedSopClassError(f"{name} is not accepted; CR, DX and Secondary Capture are")
    return ()


def _transfer_syntax(dataset: Dataset) -> uid.UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise UnsupportedTransferSyntaxError("the object names no transfer syntax")
    if syntax not in SUPPORTED:
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
    given = [dataset.get_item(keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    if not any(element is not None and element.value for element in given):
        return values, False, ()
    slope = _number(dataset, "RescaleSlope")
    if not math.isfinite(slope) or slope == 0:
        return values, False, ("rescale_ignored",)
    return values, slope < 0, ()


def _number(dataset: Dataset, keyword: str) -> float:
    """NaN where the value is missing or no number."""
    try:
        return float(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return math.nan
