"""JPEG whose data end before or behind the picture: libjpeg only warns.

Neither Pillow nor imagecodecs passes its warnings on. But what a decoder lacks, it takes from
whatever follows: a picture that changes when bytes are put behind its data lacks some. And one
that does not change with its last data had ended before: bytes were lost or overwritten within.
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

# At the end of a scan: enough to be more than padding, and more than a block of 64 coefficients can
# take, of which decoding at a reduced size passes most over
END_BYTES, BLOCK_BYTES = 8, 512

# Some thousand Huffman codes of any kind. A zero comes first, so that a fill byte before it begins
# no marker, and there is no FF
MORE = b"\0" + hashlib.shake_128(b"more").digest(4095).replace(b"\xff", b"\xfe")


def decode_whole(decode: Callable[[bytes], Samples], stream: bytes, frame: Frame) -> Samples:
    """Decode a JPEG, and refuse it where libjpeg did not find all of it.

    Where data lack, a block gets coefficients of 0 and a row of lossless JPEG the first prediction:
    half of the range. Only where the last pixel has that value the frame is decoded twice, and
    where several scans refine each other, because a later one shows nowhere for sure; and where
    the data hold a stretch of zeros, as disks leave it.

    Not noticed are data that lack within one restart interval, a cut through the last block, or the
    last row of lossless JPEG, and bytes that were overwritten by others than zeros.

    Args:
        decode: By libjpeg, at any size.
        stream: DCT or lossless JPEG, that `check_work` has passed.
        frame: What it declares.

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
    except (RuntimeError, ValueError, OSError):  # so it was read to its end
        return False
