"""Whether values lie as the header says: the bytes of each, and how many make a row.

Of values that are not in a codestream, only the header tells, and lengths cannot prove it wrong.
The picture can: neighbours in it are alike. Two thousand of them are looked at, in 0.1 ms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.imaging.errors import CorruptImageError
from service.imaging.picture import Pixels

BYTE_ORDER = ("byte_order_contradicted",)
# Looked at: runs of neighbours, all over the picture and in no pattern that it could have as well
RUNS = (np.arange(1, 129) * ((5**0.5 - 1) / 2) % 1).astype(np.float64)
RUN = 16
# The high bytes of neighbours are equal more often than the low ones. Swapped are values whose high
# byte changes so much more often, and which are so much rougher than they would be if swapped
CHANGES, ROUGHER = 1.3, 1.5
# Rows of the right length bend less than those of the other: of 3,209 radiographs that are not
# square 1.1 times, where the sides are nearly equal, and 30 times in the median
EXCHANGED = 1.5
LEAST_BENDS = 0.08  # of what was looked at: fewer are edges of a flat picture
LEAST_VALUES = 16  # fewer are dithered, and neighbours differ
MULTIPLE = 0.05  # so near to twice or three times the other side, patterns of rows look like it


def in_byte_order(values: Pixels, bits: int, *, signed: bool) -> tuple[Pixels, tuple[str, ...]]:
    """Values of two bytes, swapped where that makes a smooth picture of a rough one: a warning.

    Args:
        values: (rows, columns), unsigned, as the header says that they lie.
        bits: The lowest so many of a value count; old overlays may lie above.
        signed: Whether they are two's complement.
    """
    if values.dtype.itemsize != np.dtype(np.uint16).itemsize:
        return values, ()
    pair = neighbours(values)
    mask = np.uint16((1 << bits) - 1)
    change = (pair[0] ^ pair[1]) & mask
    high, low = np.count_nonzero(change >> 8), np.count_nonzero(change & 0xFF)
    if not low or high < CHANGES * low:  # as of nearly all
        return values, ()
    here, there = pair
    swapped = _roughness(here.byteswap() & mask, there.byteswap() & mask, signed)
    rough = _roughness(here & mask, there & mask, signed)
    return (values.byteswap(), BYTE_ORDER) if ROUGHER * swapped < rough else (values, ())


def check_rows(values: Pixels) -> None:
    """Refuse pixels whose rows are as long as the header says that columns are.

    Args:
        values: (rows, columns).

    Raises:
        CorruptImageError: Rows and Columns are exchanged.
    """
    rows, columns = values.shape
    flat, furthest = values.reshape(-1), max(values.shape)
    ratio = furthest / min(values.shape)
    if abs(ratio - round(ratio)) < MULTIPLE * (ratio > 1.5) or rows == columns:
        return
    for runs in (RUNS[::4], RUNS):  # some tell of nearly all pictures that they are right
        places = _places(furthest, flat.size - furthest, runs)
        as_said, exchanged = (_bends(flat, places, step) for step in (columns, rows))
        if EXCHANGED * exchanged.mean() >= as_said.mean():
            return
    told = np.count_nonzero(as_said) >= LEAST_BENDS * places.size
    if told and len(np.unique(flat[places])) >= LEAST_VALUES:
        raise CorruptImageError(
            f"the header says {rows} x {columns} pixels, but rows of them are {rows} long: "
            "Rows and Columns are exchanged"
        )


def neighbours(values: Pixels) -> tuple[Pixels, Pixels]:
    """Some two thousand pixels, and the one behind each."""
    flat = values.reshape(-1)
    places = _places(0, flat.size - 1)
    return flat[places], flat[places + 1]


def _places(start: int, end: int, runs: npt.NDArray[np.float64] = RUNS) -> npt.NDArray[np.intp]:
    starts = start + (runs * (end - start - RUN)).astype(np.intp)
    return np.add.outer(starts, np.arange(RUN)).reshape(-1)


def _roughness(here: Pixels, there: Pixels, signed: bool) -> float:
    """The mean difference of neighbours as a part of the spread of all."""
    numbers = [(each.view("i2") if signed else each).astype(np.float64) for each in (here, there)]
    spread = float(numbers[0].std())
    return float(np.abs(numbers[0] - numbers[1]).mean()) / spread if spread else 0.0


def _bends(flat: Pixels, places: npt.NDArray[np.intp], step: int) -> npt.NDArray[np.float64]:
    """Second differences, over so many values: none along a slope, however steep."""
    above, here, below = (flat[places + at].astype(np.float64) for at in (-step, 0, step))
    return np.abs(above + below - 2 * here)
