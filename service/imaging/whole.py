"""Detect JPEG with missing or surplus data, about which libjpeg only warns.

Neither Pillow nor imagecodecs reports these warnings. But a decoder that lacks data reads the bytes
that follow. So if the picture changes when bytes are appended to its data, data are missing. If it
does not change when its last data are changed, the decoder had ended before them: bytes within were
lost or overwritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from service.imaging.errors import CorruptImageError
from service.imaging.frame import Frame
from service.imaging.jpeg import has_lost_bytes, is_sequential, with_more, with_other_end

Samples = npt.NDArray[Any]

# Changed bytes at the end of a scan: more than padding; and, if decoding at a reduced size may skip
# coefficients, more than a block of 64 coefficients can take
END_BYTES, BLOCK_BYTES = 8, 512

# Appended bytes: some thousand arbitrary Huffman codes. The first is zero, so that a fill byte
# before it does not begin a marker; none is FF
MORE = b"\0" + hashlib.shake_128(b"more").digest(4095).replace(b"\xff", b"\xfe")


def decode_whole(decode: Callable[[bytes], Samples], stream: bytes, frame: Frame) -> Samples:
    """Decode a JPEG, and refuse it if data are missing or overwritten.

    For missing data libjpeg takes coefficients of 0, and in lossless JPEG the first prediction,
    which is half of the range. So the frame is decoded a second time only in three cases: if the
    last pixel has that value; if several scans refine each other, because a missing later scan may
    be visible nowhere; and if the data hold a stretch of zeros, as from a failed disk.

    Not detected: missing data within one restart interval, a cut through the last block or the last
    row of lossless JPEG, and bytes overwritten by others than zeros.

    Args:
        decode: Decodes with libjpeg, at any size.
        stream: A DCT or lossless JPEG that has passed `check_work`.
        frame: Its header.

    Raises:
        CorruptImageError: The data are cut off, or overwritten.

    References:
        ITU-T T.81 B.2.1, F.2.1.3.1, H.1.2.1; libjpeg's jdhuff.c (insufficient_data).
    """
    samples = decode(stream)
    sequential = is_sequential(stream)
    lost = sequential and has_lost_bytes(stream)
    end = BLOCK_BYTES if frame.halvings else END_BYTES
    if lost and _reads_alike(decode, with_other_end(stream, end), samples):
        raise CorruptImageError("the JPEG is damaged: its data go on behind the picture")
    grey = bool((samples[-1, -1] == 1 << (frame.precision - 1)).all())
    if sequential and not (lost or grey):
        return samples
    if not np.array_equal(decode(with_more(stream, MORE)), samples):
        raise CorruptImageError("the JPEG is cut off: its data end before the picture")
    return samples


def _reads_alike(decode: Callable[[bytes], Samples], stream: bytes, samples: Samples) -> bool:
    try:
        return np.array_equal(decode(stream), samples)
    except (RuntimeError, ValueError, OSError):  # an error shows that it reads to the end
        return False
