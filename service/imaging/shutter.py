"""Display Shutter: the shapes outside of which an image must not be shown (PS3.3 C.7.6.11)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from service.imaging.elements import Elements
from service.imaging.picture import Mask

# Edges, centres and vertices are rows and columns of the image, from 1; a radius is in pixels
RECTANGLE = (
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
)
CENTRE, RADIUS = "CenterOfCircularShutter", "RadiusOfCircularShutter"
VERTICES = "VerticesOfThePolygonalShutter"
MAX_NUMBER = 10**6  # larger coordinates are invalid


def shutter_of(
    elements: Elements, size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[Mask | None, tuple[str, ...]]:
    """The mask of pixels inside all shutter shapes of an object.

    Args:
        elements: The attributes.
        size: Rows, columns of the image.
        shape: Rows, columns of the pixels as decoded, perhaps half, quarter, ... of `size`.

    Returns:
        The mask, or None without a shutter; and a warning if a shape cannot be read, or is a
        bitmap. Such a shape is ignored.
    """
    shapes = (elements.text("ShutterShape") or "").split("\\")
    makers = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
    shown: Mask | None = None
    spoilt = False
    for name in filter(None, map(str.strip, shapes)):
        try:
            part = makers[name](elements, size, shape)
        except (KeyError, ValueError):
            spoilt = True
        else:
            shown = part if shown is None else shown & part
    return shown, ("shutter_ignored",) if spoilt else ()


def _numbers(elements: Elements, keyword: str) -> list[int]:
    text = elements.text(keyword)
    if text is None:
        raise KeyError(keyword)
    # By float, because some writers use "1.0"; int(inf) raises
    found = [int(float(part)) for part in text.split("\\")]
    if max(map(abs, found)) > MAX_NUMBER:
        raise ValueError(keyword)
    return found


def _places(size: tuple[int, int], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The image's row and column at the centre of each decoded pixel, from 1."""
    rows, columns = (
        (np.arange(count) + 0.5) * (whole / count) + 0.5
        for whole, count in zip(size, shape, strict=True)
    )
    return rows[:, np.newaxis], columns[np.newaxis]


def _rectangle(elements: Elements, size: tuple[int, int], shape: tuple[int, ...]) -> Mask:
    top, bottom, left, right = (_numbers(elements, keyword)[0] for keyword in RECTANGLE)
    rows, columns = _places(size, shape)
    inside: Mask = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    return inside


def _circle(elements: Elements, size: tuple[int, int], shape: tuple[int, ...]) -> Mask:
    row, column = _numbers(elements, CENTRE)
    (radius,) = _numbers(elements, RADIUS)
    rows, columns = _places(size, shape)
    inside: Mask = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return inside


def _polygon(elements: Elements, size: tuple[int, int], shape: tuple[int, ...]) -> Mask:
    numbers = _numbers(elements, VERTICES)
    row, column = (
        (np.array(numbers[at::2]) - 0.5) * (count / whole) - 0.5
        for at, whole, count in zip((0, 1), size, shape, strict=True)
    )
    if len(row) < 3:
        raise ValueError("no polygon")
    mask = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(mask).polygon([*zip(column, row, strict=True)], fill=1, outline=1)
    return np.array(mask)
