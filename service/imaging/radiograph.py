"""The one door: bytes in, radiograph out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model_store import PreprocessSpec
from service.imaging.data_set import PREAMBLE, PREFIX, offset_of, resembles_dicom
from service.imaging.decoders import Decoder
from service.imaging.dicom import read_dicom
from service.imaging.errors import EmptyImageError, UnrecognisedFormatError
from service.imaging.header import ViewHeader
from service.imaging.origin import Origin
from service.imaging.raster import read_raster
from service.imaging.tensor import Tensor, pixels_to_tensor

START_BYTES = 512  # tell the format
Format = Literal["dicom", "png", "jpeg"]

# Named in the refusal, because these are what people send by mistake
KNOWN_OTHERS = {
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
    b"\x1f\x8b": "gzip",
    b"RIFF": "WebP",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000 (outside DICOM)",
    b"\xff\x4f\xff\x51": "JPEG 2000 (outside DICOM)",
}


@dataclass(frozen=True)
class Radiograph:
    """One image, ready for the network, and what its file said of it."""

    tensor: Tensor = field(repr=False)  # (1, S, S) uint8
    format: Format
    header: ViewHeader | None = None  # None for PNG and JPEG, which have no DICOM header
    origin: Origin | None = field(default=None, repr=False)  # as header; for archives only
    sop_instance_uid: str | None = None
    transfer_syntax: str | None = None
    warnings: tuple[str, ...] = ()
    fallbacks: tuple[Decoder, ...] = ()  # decoders that refused it, before one could read it


def sniff(data: bytes | bytearray | memoryview) -> Format:
    """Tell the format by content; names and Content-Type headers are often wrong.

    Raises:
        EmptyImageError, UnrecognisedFormatError
    """
    start = bytes(data[:START_BYTES])
    if not start:
        raise EmptyImageError("there are no bytes")
    if start[PREAMBLE:].startswith(PREFIX):
        return "dicom"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if offset_of(start) is not None:
        return "dicom"
    for magic, name in KNOWN_OTHERS.items():
        if start.startswith(magic):
            raise UnrecognisedFormatError(f"this is {name}; send DICOM, PNG or JPEG")
    if resembles_dicom(start):
        raise UnrecognisedFormatError(
            "this begins with a group of DICOM, but has neither the prefix DICM of Part 10 nor a "
            "first element of a known tag, with its value representation and a fitting length"
        )
    raise UnrecognisedFormatError("neither DICOM, PNG nor JPEG, by content")


def read_radiograph(data: bytes | bytearray | memoryview, spec: PreprocessSpec) -> Radiograph:
    """Read one radiograph in any accepted format.

    Args:
        data: A whole DICOM, PNG or JPEG file; it is not copied, and must not change
            meanwhile.
        spec: The model's preprocessing, from its card.

    Raises:
        ImageError: A subclass that says why it cannot be classified.
    """
    kind = sniff(data)
    view = memoryview(data)
    if kind == "dicom":
        image = read_dicom(view, min_side=spec.size)
        return Radiograph(
            tensor=pixels_to_tensor(
                image.pixels, image.inverted, spec, image.size, wavelet=image.wavelet
            ),
            format=kind,
            header=image.header,
            origin=image.origin,
            sop_instance_uid=image.sop_instance_uid,
            transfer_syntax=image.transfer_syntax,
            warnings=image.warnings,
            fallbacks=image.fallbacks,
        )
    raster = read_raster(view, kind, min_side=spec.size)
    tensor = pixels_to_tensor(raster.pixels, False, spec, raster.size)
    return Radiograph(tensor, kind, warnings=raster.warnings, fallbacks=raster.fallbacks)


def image_to_tensor(data: bytes | bytearray | memoryview, spec: PreprocessSpec) -> Tensor:
    """The only path from a file to the network's input, in training and in serving.

    Returns:
        (1, S, S) uint8, bone bright and air dark.

    Raises:
        ImageError: As `read_radiograph`.
    """
    return read_radiograph(data, spec).tensor
