"""Pictures, and the files that hold them: what the tests send."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

Array = npt.NDArray[Any]

# (unsigned samples, Bits Stored) -> one compressed frame, for the syntaxes that have codestreams
CODECS: dict[str, Callable[[Array, int], bytes | bytearray]] = {
    uid.JPEGBaseline8Bit: lambda values, _: imagecodecs.jpeg_encode(values, 95),
    uid.JPEGExtended12Bit: lambda values, _: imagecodecs.jpeg_encode(values, 98, bitspersample=12),
    uid.JPEGLossless: lambda values, bits: imagecodecs.jpeg_encode(
        values, lossless=True, predictor=6, bitspersample=bits
    ),
    uid.JPEGLosslessSV1: lambda values, bits: imagecodecs.jpeg_encode(
        values, lossless=True, predictor=1, bitspersample=bits
    ),
    uid.JPEGLSLossless: lambda values, _: imagecodecs.jpegls_encode(values),
    uid.JPEGLSNearLossless: lambda values, _: imagecodecs.jpegls_encode(values, 2),
    uid.JPEG2000Lossless: lambda values, bits: imagecodecs.jpeg2k_encode(
        values, 0, codecformat="j2k", reversible=True, bitspersample=bits
    ),
    uid.JPEG2000: lambda values, bits: imagecodecs.jpeg2k_encode(
        values, 80, codecformat="j2k", reversible=False, bitspersample=bits
    ),
    uid.HTJ2KLossless: lambda values, _: imagecodecs.htj2k_encode(values, reversible=True),
    uid.HTJ2KLosslessRPCL: lambda values, _: imagecodecs.htj2k_encode(values, reversible=True),
    uid.HTJ2K: lambda values, _: imagecodecs.htj2k_encode(values, 1e-4, reversible=False),
}
NATIVE: tuple[uid.UID, ...] = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


def radiograph(rows: int = 512, columns: int = 448, bits: int = 12, seed: int = 0) -> Array:
    """A thorax, roughly: dark air, two dark lungs, a bright spine and a heart, a little noise.

    Returns:
        (rows, columns) uint16, from 0 to 2**bits - 1.
    """
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = 1 / (1 + np.exp(12 * (np.hypot(x, 0.7 * y) - 0.85)))
    lungs = sum(np.exp(-(((x - at) / 0.22) ** 2) - (y / 0.55) ** 2) for at in (-0.42, 0.42))
    bright = np.exp(-((x / 0.1) ** 2)) + np.exp(-(((x - 0.15) / 0.2) ** 2) - ((y - 0.3) / 0.2) ** 2)
    picture = body * (0.6 - 0.4 * lungs + 0.3 * bright)
    picture += np.random.default_rng(seed).normal(0, 0.005, picture.shape)
    picture -= picture.min()
    return np.asarray(np.rint(picture / picture.max() * (2**bits - 1)), np.uint16)


def dicom(
    pixels: Array,
    syntax: str = uid.ExplicitVRLittleEndian,
    **attributes: Any,
) -> bytes:
    """A CR object that holds these pixels, as a Part 10 file.

    Args:
        pixels: (rows, columns) integers, signed or not, or (rows, columns, 3) uint8.
        syntax: How they are stored: one of NATIVE, RLE Lossless or one of CODECS.
        attributes: By keyword, file meta too; a DataElement serves where the VR matters, and None
            deletes. They change what the header says, not how the pixels are stored, except
            Bits Stored (by default 8, 12 or 16, as the values need) and Planar Configuration.
    """
    dataset = _object(pixels, attributes)
    _store(dataset, pixels, syntax)
    for keyword, value in attributes.items():
        tag = tag_for_keyword(keyword)
        target = dataset.file_meta if tag is not None and tag >> 16 == 2 else dataset
        if value is None:
            del target[keyword]
        elif isinstance(value, DataElement):
            target.add(value)
        else:
            setattr(target, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax == uid.ImplicitVRLittleEndian,
        little_endian=syntax != uid.ExplicitVRBigEndian,
    )
    return buffer.getvalue()


def png(pixels: Array) -> bytes:
    """A PNG file of (rows, columns) uint8 or uint16, or (rows, columns, 3) uint8."""
    return _saved(pixels, "PNG", compress_level=1)


def jpeg(pixels: Array, quality: int = 95) -> bytes:
    """A JPEG file of (rows, columns) or (rows, columns, 3) uint8."""
    return _saved(pixels, "JPEG", quality=quality)


def tiff(
    pixels: Array,
    *,
    order: str = "<",
    compression: int = 1,
    predictor: int = 1,
    piece: tuple[int, int] | None = None,
    tiled: bool = False,
    planar: bool = False,
    following: int = 0,
    tags: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """A TIFF file of one page.

    Args:
        pixels: (rows, columns) or (rows, columns, samples) of 8 or 16 bits, signed or not.
        order: "<" or ">", of bytes.
        compression: 1 none, 5 LZW, 8 deflate, 32773 PackBits.
        predictor: 2 for differences.
        piece: Rows and columns of a tile, or rows of a strip and anything.
        tiled: Tiles instead of strips.
        planar: One plane for each sample.
        following: Where the next directory is, 0 for none.
        tags: Others, or other values; of 16 bits where they all fit, else of 32.
    """
    samples = np.atleast_3d(pixels)
    rows, columns, count = samples.shape
    height, width = piece or (rows, columns)
    width = width if tiled else columns
    planes = np.split(samples, count, axis=2) if planar else [samples]
    pieces = []
    for plane in planes:
        for top in range(0, rows, height):
            for left in range(0, columns, width):
                part = plane[top : top + height, left : left + width]
                if tiled:
                    missing = height - part.shape[0], width - part.shape[1]
                    part = np.pad(part, [(0, missing[0]), (0, missing[1]), (0, 0)])
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=part.dtype.type(0))
                pieces.append(_packed(part.astype(part.dtype.newbyteorder(order)), compression))
    places = 8 + np.cumsum([0, *map(len, pieces)])
    entries: dict[int, tuple[int, ...]] = {
        256: (columns,),
        257: (rows,),
        258: (samples.dtype.itemsize * 8,) * count,
        259: (compression,),
        262: (2 if count > 2 else 1,),
        277: (count,),
        284: (1 + planar,),
        317: (predictor,),
        339: (2 if samples.dtype.kind == "i" else 1,) * count,
        **({322: (width,), 323: (height,)} if tiled else {278: (height,)}),
        324 if tiled else 273: tuple(places[:-1].tolist()),
        325 if tiled else 279: tuple(map(len, pieces)),
        **(tags or {}),
    }
    end = int(places[-1])
    directory, beyond = directory_of_tiff(entries, order, end, following)
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, end + len(beyond))
    return head + b"".join(pieces) + beyond + directory


def _packed(values: Array, compression: int) -> bytes:
    data = values.tobytes()
    encoders: dict[int, Callable[[bytes], bytes | bytearray]] = {
        1: bytes,
        5: imagecodecs.lzw_encode,
        8: zlib.compress,
        32773: imagecodecs.packbits_encode,
    }
    return bytes(encoders.get(compression, bytes)(data))


def directory_of_tiff(
    entries: dict[int, tuple[int, ...]], order: str = "<", at: int = 0, following: int = 0
) -> tuple[bytes, bytes]:
    """A directory, and the values that stand before it from `at` on."""
    found, beyond = struct.pack(f"{order}H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        short = max(values, default=0) < 2**16
        data = struct.pack(f"{order}{len(values)}{'H' if short else 'I'}", *values)
        if len(data) > 4:
            data, beyond = struct.pack(f"{order}I", at + len(beyond)), beyond + data
        head = struct.pack(f"{order}HHI", tag, 3 if short else 4, len(values))
        found += head + data.ljust(4, b"\0")
    return found + struct.pack(f"{order}I", following), beyond


def _saved(pixels: Array, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _object(pixels: Array, attributes: dict[str, Any]) -> Dataset:
    bits = pixels.dtype.itemsize * 8
    fits_12 = pixels.dtype == np.uint16 and int(pixels.max()) < 4096
    dataset = Dataset()
    dataset.SOPClassUID = uid.ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality = "CR"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "4711"
    dataset.PatientBirthDate = "19640229"
    dataset.ViewPosition = "PA"
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = attributes.get("PlanarConfiguration", 0)
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = bits
    dataset.BitsStored = attributes.get("BitsStored") or (12 if fits_12 else bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    return dataset


def _store(dataset: Dataset, pixels: Array, syntax: str) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.preamble = bytes(128)
    if syntax in CODECS:
        mask = (1 << dataset.BitsStored) - 1
        values = np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}")
        frame = CODECS[syntax](values & values.dtype.type(mask), dataset.BitsStored)
        dataset.add_new("PixelData", "OB", encapsulate([bytes(frame)]))
        dataset["PixelData"].is_undefined_length = True
        return
    planar = syntax in NATIVE and dataset.get("PlanarConfiguration") == 1
    stored = pixels.transpose(2, 0, 1) if planar else pixels
    data = stored.astype(
        stored.dtype.newbyteorder(">" if syntax == uid.ExplicitVRBigEndian else "<")
    ).tobytes()
    dataset.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", data)
    if syntax == uid.RLELossless:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


def png_with_bytes_to_spare(pixels: Array) -> bytes:
    """A PNG that the first decoder refuses, and the next one reads."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    packed = b"IDAT" + zlib.compress(rows + bytes(500))
    whole = png(pixels)
    body = struct.pack(">I", len(packed) - 4) + packed + struct.pack(">I", zlib.crc32(packed))
    return whole[:33] + body + whole[-12:]


BAD = {"notes.txt": b"no image", "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}


def kinds(folder: Path) -> dict[str, bytes]:
    """The JPEGs and DICOM objects of a folder, and the former as PNG and DICOM, too."""
    jpegs = {path.name: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}
    made: dict[str, bytes] = {}
    for name, data in jpegs.items():
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        view = "PA" if name.startswith("frontal") else "LL"
        made[f"{name}.png"] = png(pixels)
        made[f"{name}.dcm"] = dicom(pixels, ViewPosition=view)
        made[f"{name}.long.png"] = png_with_bytes_to_spare(pixels)
    return jpegs | made | {path.name: path.read_bytes() for path in sorted(folder.glob("*.dcm"))}
