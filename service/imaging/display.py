"""A radiograph as a person sees it: small, in its aspect ratio, in the window of the tensor."""

from __future__ import annotations

import io
import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store import PreprocessSpec
from service.imaging.picture import Field, Picture
from service.imaging.tensor import block_sums, quantised, squash, window_of

Grey = npt.NDArray[np.uint8]  # (rows, columns)

LONGEST_SIDE = 512  # pixels of a display
JPEG_QUALITY = 90


class Display(NamedTuple):
    """The whole frame for display, and the part that became the network's input."""

    pixels: Grey  # at most LONGEST_SIDE on each side, and never enlarged
    field: Field


def min_side_of(picture: Picture) -> int | None:
    """The `min_side` at which a picture must be decoded for its display; None: it is fine enough.

    The tensor is made of a picture that may be decoded at half, quarter, ... of its size.
    """
    if picture.reduction == 1 or max(picture.pixels.shape) >= LONGEST_SIDE:
        return None
    return math.ceil(LONGEST_SIDE * min(picture.size) / max(picture.size))


def display_of(picture: Picture, field: Field, window: tuple[float, float]) -> Display:
    """Reduce a whole picture.

    Args:
        picture: As decoded, with borders and padding.
        field: The part of it that became the tensor.
        window: The values, bone bright, that become 0 and 255.
    """
    factor = max(1, max(picture.pixels.shape) // LONGEST_SIDE)
    means = block_sums(picture.pixels, factor).astype(np.float32) / factor**2
    levels = quantised(-means if picture.inverted else means, window)
    scale = min(1.0, LONGEST_SIDE / max(picture.size))
    rows, columns = (max(1, round(side * scale)) for side in picture.size)
    small = Image.fromarray(levels).resize((columns, rows), Image.Resampling.BOX)
    return Display(np.asarray(small), field)


def window_of_part(part: Picture, spec: PreprocessSpec) -> tuple[float, float]:
    """The window by which a part of a picture became the tensor."""
    thumbnail = squash(part.pixels, spec.size, part.size, wavelet=part.wavelet)
    return window_of(-thumbnail if part.inverted else thumbnail, spec)


def encoded(pixels: Grey, kind: Literal["PNG", "JPEG"]) -> bytes:
    """The pixels as a file."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if kind == "PNG":
        image.save(file, kind, compress_level=1)
    else:
        image.save(file, kind, quality=JPEG_QUALITY)
    return file.getvalue()
