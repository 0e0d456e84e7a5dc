"""Lookup tables of a DICOM object: the Modality LUT, and palettes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.imaging.errors import CorruptImageError
from service.imaging.grey import check_share, is_coloured
from service.imaging.picture import Pixels

DESCRIPTOR_BYTES = 6
AT_ONCE = 2**20  # pixels; indices take eight bytes each


class Table(NamedTuple):
    """A lookup table for consecutive stored values."""

    entries: npt.NDArray[Any]
    first: int  # the stored value of the first entry

    def apply(self, values: Pixels) -> Pixels:
        """Look up (rows, columns); values outside the table get its first or last entry."""
        found = np.empty(values.shape, self.entries.dtype)
        rows = max(1, AT_ONCE // values.shape[1])
        for at in range(0, len(values), rows):
            index = values[at : at + rows].astype(np.int64) - self.first
            found[at : at + rows] = self.entries[index.clip(0, len(self.entries) - 1)]
        return found


def grey_of_palette(
    values: Pixels, colours: npt.NDArray[Any], green: Table
) -> tuple[Pixels, tuple[str, ...]]:
    """The green of each value, and a warning if some pixels are coloured.

    Args:
        values: (rows, columns).
        colours: (entries, 3), unsigned.
        green: The table of the second column of `colours`.

    Raises:
        ColourImageError: See `check_share`.
    """
    coloured = Table(is_coloured(colours), green.first).apply(values)
    return green.apply(values), check_share(int(np.count_nonzero(coloured)), values.size)


def read_table(found: Mapping[str, bytes], name: str, *, signed: bool, little: bool) -> Table:
    """Read a lookup table from its attributes.

    Args:
        found: Raw values by keyword; `name` + "Descriptor" and `name` + "Data" are read.
        name: The common part of the two keywords.
        signed: Whether stored values are signed.
        little: Whether the object is little endian.

    Raises:
        CorruptImageError: An attribute is missing, or the table is shorter than declared.

    References:
        PS3.3 C.11.1.1.1 LUT Descriptor, C.7.6.3.1.5 and 6 Palette Color Lookup Tables. Entries of 8
        bits may be packed or lie in words.
    """
    descriptor, data = found.get(f"{name}Descriptor", b""), found.get(f"{name}Data", b"")
    if len(descriptor) != DESCRIPTOR_BYTES or not data:
        raise CorruptImageError(f"the object has no {name}Descriptor or no {name}Data")
    order = "<" if little else ">"
    # The descriptor's VR may be US although stored values are signed; the latter applies
    count, first, _ = struct.unpack(f"{order}H{'h' if signed else 'H'}H", descriptor)
    count = count or 2**16
    if len(data) in {count, count + 1}:
        return Table(np.frombuffer(data, np.uint8, count), first)
    if len(data) < 2 * count:
        raise CorruptImageError(f"{name}Data holds {len(data)} bytes, and not {count} entries")
    words = np.frombuffer(data, f"{order}u2", len(data) // 2).astype(np.uint16)
    return Table(words.astype(np.uint8) if words.max() < 2**8 else words, first)
