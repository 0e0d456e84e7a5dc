"""The one door: bytes in, radiograph out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model_store import PreprocessSpec
from service.imaging.dicom import read_dicom
from service.imaging.errors import EmptyImageError, UnrecognisedFormatError
from service.imaging.header import ViewHeader
from service.imaging.raster import read_raster
from service.imaging.tensor import Tensor, pixels_to_tensor

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
    sop_instance_uid: str | None = None
    transfer_syntax: str | None = None
    warnings: tuple[str, ...] = ()


def sniff(data: bytes) -> Format:
    """Tell the format by content; names and Content-Type headers are often wrong.

    Raises:
        EmptyImageError, UnrecognisedFormatError
    """
    if not data:
        raise EmptyImageError("there are no bytes")
    if data[128:132] == b"DICM":
        return "dicom"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    for start, name in KNOWN_OTHERS.items():
        if data.startswith(start):
            raise UnrecognisedFormatError(f"this is {name}; send DICOM, PNG or JPEG")
    raise UnrecognisedFormatError("neither DICOM (Part 10), PNG nor JPEG, by content")


def read_radiograph(data: bytes, spec: PreprocessSpec) -> Radiograph:
    """Read one radiograph in any accepted format.

    Args:
        data: A whole DICOM Part 10, PNG or JPEG file.
        spec: The model's preprocessing, from its card.

    Raises:
        ImageError: A subclass that says why it cannot be classified.
    """
    kind = sniff(data)
    if kind == "dicom":
        # At twice the size that is needed, reduced JPEG 2000 differs by a grey level at most edges
        image = read_dicom(data, min_side=2 * spec.size)
        return Radiograph(
            tensor=pixels_to_tensor(image.pixels, image.inverted, spec, image.size),
            format=kind,
            header=image.header,
            sop_instance_uid=image.sop_instance_uid,
            transfer_syntax=image.transfer_syntax,
            warnings=image.warnings,
        )
    pixels, warnings = read_raster(data, kind)
    return Radiograph(pixels_to_tensor(pixels, False, spec), kind, warnings=warnings)


def image_to_tensor(data: bytes, spec: PreprocessSpec) -> Tensor:
    """The only path from a file to the network's input, in training and in serving.

    Returns:
        (1, S, S) uint8, bone bright and air dark.

    Raises:
        ImageError: As `read_radiograph`.
    """
    return read_radiograph(data, spec).tensor
