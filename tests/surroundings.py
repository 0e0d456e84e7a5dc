"""What archives put around and over a radiograph, each with the plain picture it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[Any]

# Corners of a collimator that stands at an angle: x and y, as parts of the sides
TILTED = ((0.12, 0.02), (0.98, 0.1), (0.9, 0.98), (0.02, 0.9))


class Odd(NamedTuple):
    """A picture as an archive might hold it."""

    pixels: Array  # (rows, columns), uint16 or int16; bone bright
    plain: Array  # what of it is a radiograph, uint16 of 12 bits
    attributes: Mapping[str, Any] = MappingProxyType({})  # of the object that holds it


def on_plate(pixels: Array, scale: float, value: int, dtype: str = "u2", seed: int = 0) -> Array:
    """A larger picture of one value with this one somewhere on it."""
    rows, columns = pixels.shape
    plate = np.full((int(rows * scale), int(columns * scale)), value, dtype)
    random = np.random.default_rng(seed)
    row, column = (
        random.integers(0, b - s + 1) for b, s in zip(plate.shape, pixels.shape, strict=True)
    )
    plate[row : row + rows, column : column + columns] = pixels
    return plate


def framed(pixels: Array, share: float, value: int, dtype: str = "u2") -> Array:
    """The outermost part of the sides, overwritten."""
    found = pixels.astype(dtype)
    rows, columns = (max(1, int(share * side)) for side in pixels.shape)
    found[:rows] = found[-rows:] = found[:, :columns] = found[:, -columns:] = value
    return found


def _inside(pixels: Array, share: float) -> Array:
    rows, columns = (max(1, int(share * side)) for side in pixels.shape)
    return pixels[rows:-rows, columns:-columns]


def mask_of(shape: tuple[int, int], draw: Callable[[ImageDraw.ImageDraw], None]) -> Array:
    """Where something was drawn."""
    image = Image.new("1", shape[::-1])
    draw(ImageDraw.Draw(image))
    return np.array(image)


def tilted(shape: tuple[int, int]) -> Array:
    """Within a collimator that stands at an angle."""
    rows, columns = shape
    return mask_of(
        shape, lambda to: to.polygon([(x * columns, y * rows) for x, y in TILTED], fill=1)
    )


def circle(shape: tuple[int, int]) -> Array:
    """Within the largest circle."""
    rows, columns = shape
    y, x = np.ogrid[:rows, :columns]
    radius = min(shape) / 2
    return (y - rows / 2 + 0.5) ** 2 + (x - columns / 2 + 0.5) ** 2 <= radius**2


def _bars(shape: tuple[int, int], share: float = 0.01) -> Array:
    rows, columns = shape
    height, width = int(rows * 0.06), int(columns * share / 0.06)
    mask = np.zeros(shape, bool)
    mask[rows // 12 : rows // 12 + height, columns // 10 : columns // 10 + width] = True
    return mask


def _text(shape: tuple[int, int]) -> Array:
    rows, columns = shape

    def draw(to: ImageDraw.ImageDraw) -> None:
        size = rows // 12
        to.text((columns // 20, rows // 30), "L  PORTABLE", fill=1, font_size=size)
        to.text((columns // 2, rows // 30), "AP SUPINE", fill=1, font_size=size)

    return mask_of(shape, draw)


def _set(pixels: Array, mask: Array, value: int, dtype: str = "u2") -> Array:
    found = pixels.astype(dtype)
    found[mask] = value
    return found


def burned_in(pixels: Array) -> Iterator[tuple[str, Odd]]:
    """Values far outside of the radiograph's, over it or around it."""
    black, white = int(pixels.min()), int(pixels.max())
    for share in (0.03, 0.15):
        inner = _inside(pixels, share) if share > 0.1 else framed(pixels, share, black)
        for value, dtype in ((-32768, "i2"), (65535, "u2"), (-2000, "i2"), (30000, "u2")):
            yield f"frame {share} at {value}", Odd(framed(pixels, share, value, dtype), inner)
    for name, outside in (("tilted", ~tilted(pixels.shape)), ("circle", ~circle(pixels.shape))):
        for value, dtype in ((-32768, "i2"), (65535, "u2")):
            odd = _set(pixels, outside, value, dtype)
            yield f"{name} at {value}", Odd(odd, _set(pixels, outside, black))
    for name, mask in (("bars", _bars(pixels.shape)), ("text", _text(pixels.shape))):
        for value in (65535, 16383):
            yield f"{name} at {value}", Odd(_set(pixels, mask, value), _set(pixels, mask, white))
    box = _bars(pixels.shape, 0.03)
    high = (pixels + 60000).astype("u2")
    yield "box at 0 under 60000", Odd(_set(high, box, 0), _set(pixels, box, black))
    both = _set(_set(high - np.uint16(30000), box, 0), np.roll(box, 200, 1), 65535)
    yield (
        "box at 0, marker at 65535",
        Odd(both, _set(_set(pixels, box, black), np.roll(box, 200, 1), white)),
    )


def small_fields(pixels: Array) -> Iterator[tuple[str, Odd]]:
    """A small radiograph on a large plate, of which nothing is declared."""
    black, white = int(pixels.min()), int(pixels.max())
    for scale in (1.5, 2, 3):
        for name, value in (("black", black), ("white", white), ("grey", (black + white) // 3)):
            yield f"{name} plate {scale}", Odd(on_plate(pixels, scale, value), pixels)
        noisy = on_plate(pixels, scale, black).astype(float)
        noisy += np.random.default_rng(1).normal(0, 20, noisy.shape)
        yield f"noisy plate {scale}", Odd(noisy.clip(0, 4095).astype("u2"), pixels)


def declared(pixels: Array) -> Iterator[tuple[str, Odd]]:
    """What is not shown, as the object says itself."""
    black, white = int(pixels.min()), int(pixels.max())
    for scale in (1.2, 3):
        for value, dtype in ((0, "u2"), (4095, "u2"), (65535, "u2"), (-2000, "i2")):
            odd = on_plate(pixels.clip(1, 4094), scale, value, dtype)
            yield f"padding {scale} at {value}", Odd(odd, pixels, {"PixelPaddingValue": value})
    outside = ~tilted(pixels.shape)
    yield (
        "padding, tilted",
        Odd(_set(pixels, outside, 4095), _set(pixels, outside, black), {"PixelPaddingValue": 4095}),
    )
    rows, columns = pixels.shape
    edges = (rows // 8, rows - rows // 10, columns // 9, columns - columns // 7)
    keys = ("UpperHorizontal", "LowerHorizontal", "LeftVertical", "RightVertical")
    rectangle: dict[str, Any] = {
        f"Shutter{key}Edge": edge for key, edge in zip(keys, edges, strict=True)
    }
    rectangle["ShutterShape"] = "RECTANGULAR"
    inner = pixels[edges[0] - 1 : edges[1], edges[2] - 1 : edges[3]]
    for value in (white, black):
        hidden = np.full_like(pixels, value)
        hidden[edges[0] - 1 : edges[1], edges[2] - 1 : edges[3]] = inner
        yield f"rectangular shutter over {value}", Odd(hidden, inner, rectangle)
    radius = min(rows, columns) // 2
    attributes: dict[str, Any] = {
        "ShutterShape": "CIRCULAR",
        "CenterOfCircularShutter": [(rows + 1) // 2, (columns + 1) // 2],
        "RadiusOfCircularShutter": radius,
    }
    inside = circle(pixels.shape)
    at = (rows - 2 * radius) // 2, (columns - 2 * radius) // 2
    round_one = _set(pixels, ~inside, black)[at[0] : rows - at[0], at[1] : columns - at[1]]
    yield "circular shutter", Odd(_set(pixels, ~inside, white), round_one, attributes)
    vertices = [int(v) + 1 for x, y in TILTED for v in (y * rows, x * columns)]
    attributes = {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": vertices}
    hidden = ~tilted(pixels.shape)
    yield (
        "polygonal shutter",
        Odd(_set(pixels, hidden, white), _set(pixels, hidden, black), attributes),
    )
