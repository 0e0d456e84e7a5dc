"""The entry points of the package: from bytes or pixels to a radiograph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model_store import PreprocessSpec
from service.imaging import jpeg, jpeg2000, png, tiff
from service.imaging.data_set import PREAMBLE, PREFIX, offset_of, resembles_dicom
from service.imaging.decoders import Decoder
from service.imaging.dicom import DicomImage, read_dicom
from service.imaging.display import Display, display_of, min_side_of, window_of_part
from service.imaging.errors import (
    CorruptImageError,
    EmptyImageError,
    UnrecognisedFormatError,
    UnsupportedPixelFormatError,
)
from service.imaging.header import ViewHeader
from service.imaging.origin import Origin
from service.imaging.others import START_BYTES, name_of, was_sent_as_text
from service.imaging.picture import Picture
from service.imaging.preprocess import Prepared, prepare
from service.imaging.raster import Raster, RasterFormat, read_raster
from service.imaging.tensor import Tensor, check_size

DOUBTS = frozenset({"panels", "small_field"})  # warnings
FileFormat = Literal["dicom", RasterFormat]
Format = Literal["array", FileFormat]

OTHERS = "PNG, JPEG, JPEG-LS, JPEG 2000"
# First bytes of each format
STARTS: dict[bytes, RasterFormat] = {
    png.START: "png",
    jpeg.START: "jpeg",  # and JPEG-LS
    jpeg2000.START: "jpeg-2000",
    jpeg2000.JP2_START: "jpeg-2000",
    **dict.fromkeys(tiff.STARTS, "tiff"),
}


@dataclass(frozen=True)
class Radiograph:
    """One image as the network's input, with attributes of its file."""

    tensor: Tensor = field(repr=False)  # (1, S, S) uint8
    format: Format
    header: ViewHeader | None = None  # only for DICOM
    origin: Origin | None = field(default=None, repr=False)  # only for DICOM, and for archives
    sop_instance_uid: str | None = None
    transfer_syntax: str | None = None
    warnings: tuple[str, ...] = ()
    fallbacks: tuple[Decoder, ...] = ()  # decoders that could not read it
    display: Display | None = field(default=None, repr=False)  # only if it was asked for

    @property
    def doubtful(self) -> bool:
        """Whether a warning about the picture makes any answer doubtful."""
        return not DOUBTS.isdisjoint(self.warnings)


def sniff(data: bytes | bytearray | memoryview) -> FileFormat:
    """Recognise the format by content; names and Content-Type headers are often wrong.

    Args:
        data: The file, or its first bytes: 132 are enough for accepted formats, START_BYTES to name
            others.

    Returns:
        The format; "jpeg" also for JPEG-LS, which begins in the same way.

    Raises:
        EmptyImageError: There are no bytes.
        UnrecognisedFormatError: It is none of the accepted formats.
    """
    start = bytes(data[:START_BYTES])
    if not start:
        raise EmptyImageError("there are no bytes")
    if start[PREAMBLE:].startswith(PREFIX):
        return "dicom"
    for magic, kind in STARTS.items():
        if start.startswith(magic):
            return kind
    if offset_of(start) is not None:
        return "dicom"
    if name := name_of(start):
        raise UnrecognisedFormatError(f"this is {name}; send DICOM, {OTHERS} or TIFF")
    if resembles_dicom(start):
        raise UnrecognisedFormatError(
            "this begins with a group of DICOM, but has neither the prefix DICM of Part 10 nor a "
            "first element of a known tag, with its value representation and a fitting length"
        )
    raise UnrecognisedFormatError(f"neither DICOM, {OTHERS} nor TIFF, by content")


def read_radiograph(
    data: bytes | bytearray | memoryview, spec: PreprocessSpec, *, displayed: bool = False
) -> Radiograph:
    """Read one radiograph in any accepted format.

    Args:
        data: A whole file; it is not copied, and must not change during the call.
        spec: The model's preprocessing, from its card.
        displayed: Also render the frame for display. The tensor is the same.

    Raises:
        ImageError: A subclass with the reason why it cannot be classified.
    """
    kind = sniff(data)
    view = memoryview(data)
    if was_sent_as_text(view):
        raise CorruptImageError(
            "a carriage return stands before every line feed: the file was transferred as text"
        )
    found = _read(view, kind, spec, spec.size)
    if (
        finer := found.prepared.finer
    ) is not None:  # the field is small, and the decoded size too coarse for it
        found = _read(view, kind, spec, finer)
    if not displayed:
        return found.radiograph
    return replace(found.radiograph, display=_display(view, kind, spec, found))


def read_array(
    pixels: npt.NDArray[Any], spec: PreprocessSpec, *, inverted: bool = False
) -> Radiograph:
    """Make a radiograph of an array, with the same preprocessing as for files.

    Args:
        pixels: (rows, columns), integers or floats in any unit; must not change during the call.
        spec: The model's preprocessing, from its card.
        inverted: Whether low values are bright, as in MONOCHROME1.

    Raises:
        UnsupportedPixelFormatError: The array has other dimensions or types, or values that are not
            finite.
        ImageTooSmallError, ImageTooLargeError, BlankImageError: See their classes.
    """
    if pixels.ndim != 2:
        raise UnsupportedPixelFormatError(f"an array of {pixels.ndim} dimensions; two are expected")
    rows, columns = pixels.shape
    check_size(rows, columns)
    if pixels.dtype.kind == "f":
        values = pixels.astype(np.float32)
        if not np.isfinite(values).all():
            raise UnsupportedPixelFormatError("an array of values that are not finite")
    elif pixels.dtype.kind in "iu":
        # 64-bit integers are converted, because averages are computed in float32
        values = pixels.astype(np.float32) if pixels.dtype.itemsize > 4 else pixels
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    else:
        raise UnsupportedPixelFormatError(f"an array of {pixels.dtype}; numbers are expected")
    prepared = prepare(Picture(values, (rows, columns), inverted), spec)
    return Radiograph(prepared.tensor, "array", warnings=prepared.warnings)


class _Found(NamedTuple):
    radiograph: Radiograph
    picture: Picture
    prepared: Prepared


def _read(data: memoryview, kind: FileFormat, spec: PreprocessSpec, min_side: int) -> _Found:
    image = _decoded(data, kind, min_side)
    prepared = prepare(image.picture, spec)
    if isinstance(image, DicomImage):
        radiograph = Radiograph(
            tensor=prepared.tensor,
            format="dicom",
            header=image.header,
            origin=image.origin,
            sop_instance_uid=image.sop_instance_uid,
            transfer_syntax=image.transfer_syntax,
            warnings=image.warnings + prepared.warnings,
            fallbacks=image.fallbacks,
        )
    else:
        radiograph = Radiograph(
            tensor=prepared.tensor,
            format=image.format,
            warnings=image.warnings + prepared.warnings,
            fallbacks=image.fallbacks,
        )
    return _Found(radiograph, image.picture, prepared)


def _decoded(data: memoryview, kind: FileFormat, min_side: int) -> DicomImage | Raster:
    return read_dicom(data, min_side) if kind == "dicom" else read_raster(data, kind, min_side)


def _display(data: memoryview, kind: FileFormat, spec: PreprocessSpec, found: _Found) -> Display:
    picture = found.picture
    shown = found.prepared.shown or picture
    window, field = window_of_part(shown, spec), picture.place_of(shown)
    if (finer := min_side_of(picture)) is not None:
        picture = _decoded(data, kind, finer).picture
    return display_of(picture, field, window)


def image_to_tensor(data: bytes | bytearray | memoryview, spec: PreprocessSpec) -> Tensor:
    """From a file to the network's input; training and serving both use this function.

    Returns:
        (1, S, S) uint8, bone bright and air dark.

    Raises:
        ImageError: As `read_radiograph`.
    """
    return read_radiograph(data, spec).tensor
