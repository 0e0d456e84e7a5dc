"""The header of one compressed frame, for all codecs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from service.imaging.picture import Wavelet

Stream = bytes | memoryview
Family = Literal["jpeg", "jpeg-ls", "jpeg-2000"]  # the last includes HTJ2K

MAX_COMPONENTS = 4  # a radiograph has one, a screenshot three, or four with transparency


class Frame(NamedTuple):
    """The values that a codestream declares."""

    family: Family
    rows: int
    columns: int
    components: int
    precision: int  # bits
    signed: bool
    halvings: int  # how often decoding at a reduced size may halve it
    wavelet: Wavelet | None = None
