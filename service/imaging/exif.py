"""The orientation of a picture, from EXIF in JPEG and PNG files, or from TIFF."""

from __future__ import annotations

import struct

import numpy as np

from service.imaging.picture import Pixels

ORIENTATION = 0x0112
UPRIGHT = 1
# By orientation: quarter turns to the left, and whether to mirror left and right afterwards
TURNS = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8; UPRIGHT if it is missing, or the data are damaged.

    Args:
        exif: The content of PNG's eXIf chunk, or of JPEG's APP1 after its name.

    References:
        TIFF 6.0, section 2: byte order, the place of the first directory, its entries of 12 bytes.
        CIPA DC-008 4.6.4 (Orientation).
    """
    order = ">" if exif.startswith(b"MM") else "<"
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", exif, entry)[0] == ORIENTATION:
                return int(struct.unpack_from(f"{order}H", exif, entry + 8)[0])
    except struct.error:
        pass
    return UPRIGHT


def upright(
    pixels: Pixels, size: tuple[int, int], orientation: int
) -> tuple[Pixels, tuple[int, int]]:
    """Rotate and mirror the pixels as EXIF or TIFF says; returns them and their size."""
    turns, mirrored = TURNS.get(orientation, (0, False))
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels, size[::-1] if turns % 2 else size
