"""What one compressed frame declares, whichever codec wrote it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from service.imaging.picture import Wavelet

Stream = bytes | memoryview
Family = Literal["jpeg", "jpeg-ls", "jpeg-2000"]  # the last with HTJ2K

MAX_COMPONENTS = 4  # a radiograph has one, a screenshot of it three, with transparency four


class Frame(NamedTuple):
    """What a codestream declares."""

    family: Family
    rows: int
    columns: int
    components: int
    precision: int  # bits
    signed: bool
    halvings: int  # how often the size may be halved by decoding less of it
    wavelet: Wavelet | None = None
