"""Pictures that a PACS renders: which size to request, and which not to trust."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.imaging import ImageError
from service.imaging.radiograph import sniff
from service.imaging.raster import read_raster

FRAMES, ROWS, COLUMNS = "00280008", "00280010", "00280011"
PHOTOMETRIC, LUT_SHAPE, SLOPE = "00280004", "20500020", "00281053"
BITS, PADDING = "00280101", "00280120"
LISTED = (FRAMES, ROWS, COLUMNS, PHOTOMETRIC, LUT_SHAPE, SLOPE, BITS, PADDING)

LEAST_SIDE = 256  # pixels; no model has a larger input
# The least number of grey levels that each have more than this share of the pixels. A radiograph in
# 8 bits has 100 or more; with fewer, padding or a marker takes most of the range
LEAST_LEVELS, OF_PIXELS = 20, 1e-4

Instance = dict[str, Any]  # a listed instance in the DICOM JSON model (PS3.18 F.2)


def picture_of(stored: str, instance: Instance, side: int) -> str:
    """The path of an instance's picture, or of the instance if no picture can be trusted.

    The viewport has the image's aspect ratio. Some archives fill a viewport of another shape with
    bars, which the model would take for collimation.

    Args:
        stored: The path of the instance.
        instance: Its attributes from the listing.
        side: The picture's shorter side in pixels, if the instance is larger.

    References:
        DICOM PS3.18 8.3.5.1.3 (viewport).
    """
    if _misleads(instance):
        return stored
    rows, columns = _integer(instance, ROWS), _integer(instance, COLUMNS)
    shorter = min(rows, columns)
    if shorter <= side:  # or the size is unknown (0): no viewport, so the shape is right
        return f"{stored}/rendered"
    width, height = round(columns * side / shorter), round(rows * side / shorter)
    return f"{stored}/rendered?viewport={width},{height}"


def is_picture(data: memoryview) -> bool:
    """Whether the bytes are PNG or JPEG, and not an error page or a video."""
    try:
        return sniff(data) in {"png", "jpeg"}
    except ImageError:
        return False


def is_squeezed(data: memoryview) -> bool:
    """Whether a picture has so few grey levels that the stored instance must be read instead.

    False for a picture that cannot be read: the error then comes from its classification.
    """
    try:
        kind = sniff(data)
        if kind == "dicom":
            return False
        pixels = read_raster(data, kind, LEAST_SIDE).picture.pixels
    except ImageError:
        return False
    if pixels.dtype != np.uint8:
        return False
    counts = np.bincount(pixels.ravel(), minlength=256)
    return int(np.count_nonzero(counts > OF_PIXELS * pixels.size)) < LEAST_LEVELS


def _misleads(instance: Instance) -> bool:
    """Whether its picture may be one frame of several, inverted, or low in contrast from padding.

    Archives render these in different ways (docs/backfill-rendered.md).
    """
    mono1 = value(instance, PHOTOMETRIC) == "MONOCHROME1"
    negative = value(instance, SLOPE).startswith("-")
    inverse = value(instance, LUT_SHAPE) == "INVERSE" and not mono1
    black = 2 ** _integer(instance, BITS) - 1 if mono1 else 0
    padded = value(instance, PADDING) not in {"", str(black)}
    return _integer(instance, FRAMES) > 1 or negative or inverse or padded


def _integer(instance: Instance, tag: str) -> int:
    text = value(instance, tag)
    return int(text) if text.isdecimal() else 0


def value(instance: Instance, tag: str) -> str:
    """The first value of an attribute."""
    element = instance.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values else ""
