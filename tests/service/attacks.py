"""Read files that lie about their size, each in a child of its own; print what came of them.

Run by test_memory.py. JSON: name -> [outcome, peak bytes beyond the child's first].
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from pydicom import uid

from model_store import PreprocessSpec
from service.imaging import ImageError, image_to_tensor
from service.uploads.archives import ArchiveLimits, read_archive

sys.path.insert(0, str(Path(__file__).parent.parent))
from images import dicom, radiograph  # pytest is not there to find it

ZEROS = bytes(2**24)
SIDE = 6400  # a square of it is just below the largest image that is accepted
SQUARE = {"Rows": SIDE, "Columns": SIDE}


def deflate_bomb(copies: int) -> bytes:
    """A valid file meta group, then zeros almost without end."""
    data = dicom(radiograph(64, 64), uid.DeflatedExplicitVRLittleEndian)
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(ZEROS) for _ in range(copies))
    return data[:start] + packed + packer.flush()


def declaring(data: bytes, marker: bytes, offset: int, form: str) -> bytes:
    """The codestream after `marker` declares 65535 x 65535."""
    at = data.index(marker) + offset
    return data[:at] + struct.pack(form, 65535, 65535) + data[at + struct.calcsize(form) :]


def png_of(rows: int, columns: int, bits: int, colour: int, body: bytes) -> bytes:
    """A PNG with this header and these compressed rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rows_of(rows: int, row_bytes: int) -> bytes:
    """Compressed PNG rows of a gradient, repeated and ever brighter."""
    packer = zlib.compressobj(1)
    gradient = np.resize(np.arange(256), (rows, row_bytes)) // 2 + np.arange(rows)[:, None] % 128
    lines = np.insert(gradient.astype(np.uint8), 0, 0, axis=1)
    return b"".join(packer.compress(line.tobytes()) for line in lines) + packer.flush()


def tiled(data: bytes, side: int, tile: int) -> bytes:
    """The JPEG 2000 stream declares a square of this side in tiles of that one."""
    at = data.index(b"\xff\x4f\xff\x51") + 8
    return data[:at] + struct.pack(">6I", side, side, 0, 0, tile, tile) + data[at + 24 :]


def zip_bomb(copies: int) -> bytes:
    """One entry that inflates to gigabytes."""
    buffer = io.BytesIO()
    archive = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("x", "w") as entry:
        for _ in range(copies):
            entry.write(ZEROS)
    return buffer.getvalue()


def attacks() -> dict[str, bytes]:
    """All files, by name; those called "largest" are honest, and as large as may be."""
    picture = radiograph(256, 256)
    gradient = np.linspace(0, 4095, SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    jpeg, wavelet = dicom(picture, uid.JPEGLosslessSV1), dicom(picture, uid.JPEG2000)
    return {
        "png of 50000 x 50000": png_of(50_000, 50_000, 8, 0, b""),
        "dicom of 65535 x 65535": dicom(picture, Rows=65535, Columns=65535),
        "rle of 65535 x 65535": dicom(picture, uid.RLELossless, Rows=65535, Columns=65535),
        "jpeg of 65535 x 65535": declaring(jpeg, b"\xff\xc3", 5, ">HH"),
        "jpeg 2000 of 65535 x 65535": declaring(wavelet, b"\xff\x4f\xff\x51", 8, ">II"),
        "jpeg 2000 of 60516 tiles": tiled(dicom(picture, uid.JPEG2000, **SQUARE), SIDE, 26),
        "deflate bomb": deflate_bomb(40),
        "zip bomb": zip_bomb(60),
        "largest grey": png_of(SIDE, SIDE, 16, 0, rows_of(SIDE, SIDE * 2)),
        "largest colour": png_of(3584, 3584, 8, 2, rows_of(3584, 3584 * 3)),
        "largest jpeg 2000": dicom(gradient, uid.JPEG2000Lossless),
        "largest uncompressed": dicom(gradient),
        "largest deflated": dicom(gradient, uid.DeflatedExplicitVRLittleEndian),
        "largest padded": dicom(gradient, PixelPaddingValue=0),
        "largest lossless jpeg": dicom(gradient, uid.JPEGLosslessSV1),
        "largest stripe": png_of(32, 40 * 2**15, 8, 0, rows_of(32, 40 * 2**15)),
    }


def outcome_of(data: bytes) -> str:
    """The word `answered`, or why not."""
    try:
        if data.startswith(b"PK"):
            (upload,) = read_archive(data, ArchiveLimits(10, 2**26, 200, 2**31))
            return type(upload.error).__name__
        image_to_tensor(data, PreprocessSpec())
    except ImageError as error:
        return error.code
    return "answered"


def memory(key: str) -> int:
    """Bytes of this process, by the kernel's account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def in_a_child(path: Path) -> tuple[str, int]:
    """The outcome, and how much the peak exceeded what the child had with the file."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        data = path.read_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        before = memory("VmRSS")
        outcome = outcome_of(data)
        os.write(writer, json.dumps([outcome, memory("VmHWM") - before]).encode())
        os._exit(0)
    os.close(writer)
    report = os.read(reader, 10_000)
    os.wait()
    outcome, extra = json.loads(report or '["killed", 1e12]')
    return outcome, extra


def write_attacks(folder: Path) -> None:
    """Also in a child: memory that it leaves would be used again by the others, and not be seen."""
    if os.fork() == 0:
        for name, data in attacks().items():
            (folder / name).write_bytes(data)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_attacks(Path(folder))
        print(json.dumps({path.name: in_a_child(path) for path in Path(folder).iterdir()}))
