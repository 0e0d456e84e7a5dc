"""Load the decoders' libraries before the first file."""

from __future__ import annotations

import imagecodecs
import numpy as np

from model_store import PreprocessSpec
from service.imaging.decoders import decode_frame
from service.imaging.radiograph import read_radiograph

SIDE = 64


def load_decoders() -> None:
    """Load all decoders' libraries by decoding one picture of each format.

    Most libraries load at their first use, which takes up to 50 ms. Processes that are forked later
    share them.
    """
    picture = np.arange(SIDE**2, dtype=np.uint16).reshape(SIDE, SIDE).astype(np.uint8)
    read_radiograph(imagecodecs.png_encode(picture), PreprocessSpec(size=SIDE))
    for frame in (
        imagecodecs.jpeg8_encode(picture),
        imagecodecs.jpegls_encode(picture),
        imagecodecs.jpeg2k_encode(picture, codecformat="j2k"),
    ):
        decode_frame(bytes(frame), min_side=SIDE // 2)
    deflated = imagecodecs.deflate_encode(picture.tobytes(), raw=True)
    imagecodecs.deflate_decode(deflated, raw=True, out=bytearray(picture.nbytes))
    imagecodecs.packbits_decode(b"\0\0", out=1)  # also LZW, for TIFF
    # RLE uses the libraries of PNG and deflate
