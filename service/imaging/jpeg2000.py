"""JPEG 2000 and HTJ2K: read headers, and estimate the work of OpenJPEG.

OpenJPEG allocates memory for every declared tile, precinct and code block, coded or not, and steps
through every packet. 620 bytes can declare gigabytes and hours of work, so these are counted first.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.imaging.errors import CorruptImageError, UnsupportedPixelFormatError
from service.imaging.frame import MAX_COMPONENTS, Frame, Stream
from service.imaging.tensor import MAX_PIXELS

START = b"\xff\x4f\xff\x51"  # SOC, SIZ
JP2_START = b"\x00\x00\x00\x0cjP  "
SIZ, COD, COC, TLM, PLM, PLT = 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF57, 0xFF58
QCD, QCC, RGN, POC, PPM, PPT = 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61
CAP, CPF, CRG, COM, SOT, SOD = 0xFF50, 0xFF59, 0xFF63, 0xFF64, 0xFF90, 0xFF93
MCT, MCC, MCO, CBD = 0xFF74, 0xFF75, 0xFF77, 0xFF78
# Markers whose length OpenJPEG reads; it skips others by two bytes, so this does too
KNOWN = {CAP, SIZ, COD, COC, TLM, PLM, PLT, CPF, QCD, QCC, RGN, POC, PPM, PPT, CRG, COM, SOT} | {
    *(MCT, MCC, MCO, CBD),
}
SEPARATE_PASSES = 0x01 | 0x04  # of the code block style: bypass, termination on each pass
MAX_LEVELS, MAX_BLOCK = 32, 8  # decomposition levels; log2 of the largest side of a block, less 2
MAX_POCS = 32  # OpenJPEG's limit
MAX_PLANES = 31  # OpenJPEG's limit

# Each limit is what a radiograph of 40 megapixels may need, times a margin. Costs were measured
# with OpenJPEG 2.5.4 on one core of 2.5 GHz.
LIMITS = {
    # 1,600 tiles of 160 x 160 pixels, the smallest in use; 10 kB each, 100 MB in all
    "tiles": 10_000,
    # 1,600 tiles of seven resolutions in two parts, each with SOT, PLT and SOD; 2 us each here
    "markers": 100_000,
    # 41,000 of 64 x 64 in three bands and all levels, those of 128 x 128 being usual; 160 bytes
    # and 0.3 us each, and one code block at the least
    "precincts": 250_000,
    # 55,000 of 32 x 32 in all levels, those of 64 x 64 being usual; 400 bytes and 0.7 us each
    "code blocks": 250_000,
    # 14,000 precincts of 64 x 64 in 50 layers; 30 ns each, and two bytes of OpenJPEG's own list
    "packets": 5_000_000,
    # 55,000 code blocks in 20 layers, or in 57 passes that end one by one; up to 56 bytes and 20 ns
    "parts of code blocks": 5_000_000,
    # Samples of 16 bits, two bits of gain, two of guard, and four more where the steps are fine:
    # each plane of each sample takes 9 ns where nothing is decoded smaller
    "bits": 24 * MAX_PIXELS,
}


class Line(NamedTuple):
    """One direction of the grid: the image, and its tiles."""

    start: int
    end: int
    tile: int  # length of a tile
    origin: int  # of the first tile

    @property
    def tiles(self) -> int:
        """The number of tiles in this direction."""
        return -(-(self.end - self.origin) // self.tile)

    @property
    def longest(self) -> int:
        """The length of a whole tile, or of the image if that is shorter."""
        return min(self.tile, self.end - self.start)

    def cells(self, exponent: int) -> int:
        """The most cells of 2**exponent pixels that a tile can have."""
        size = 1 << exponent
        if size >= self.end:
            return 1
        aligned = self.start == self.origin and self.origin % size == 0
        aligned &= self.tile % size == 0 or size % self.tile == 0 or self.tiles == 1
        return -(-self.longest // size) + (not aligned)


class Grid(NamedTuple):
    """The SIZ segment."""

    across: Line
    down: Line
    depths: tuple[int, ...]  # of each component: bits less one, plus 128 if signed
    steps: frozenset[int]  # XRsiz and YRsiz

    @property
    def tiles(self) -> int:
        """The number of tiles."""
        return self.across.tiles * self.down.tiles


class Style(NamedTuple):
    """The coding style of a component: a COD or COC segment."""

    levels: int
    block: tuple[int, int]  # exponents of width and height
    passes: int  # code block style
    reversible: bool
    precincts: tuple[tuple[int, int], ...]  # exponents, by resolution


@dataclass
class Coding:
    """The largest values in all headers of a codestream, over tiles and components."""

    parts: Counter[int] = field(default_factory=Counter)  # tile-parts found, by tile
    promised: dict[int, int] = field(default_factory=dict)  # tile-parts declared, by tile
    layers: int = 0
    styles: list[Style] = field(default_factory=list)
    planes: int = 0  # bit planes
    shift: int = 0  # additional bit planes of a region of interest
    changes: int = 0  # progression order changes


class Count(NamedTuple):
    """The numbers of structures of one component in one tile."""

    precincts: int  # times bands
    blocks: int
    packets: int  # of a layer, for which OpenJPEG allocates memory
    positions: int  # where OpenJPEG may search for packets
    parts: int  # of a code block, without layers


def read_header(stream: Stream) -> Frame:
    """Read the main header; see `read_frame_header`."""
    grid = _grid(stream)
    if len(grid.depths) > MAX_COMPONENTS or grid.steps != {1} or len(set(grid.depths)) > 1:
        raise UnsupportedPixelFormatError(
            "components of another number, size or depth than an image has"
        )
    style = next(_style(stream, at) for marker, at, _ in _headers(stream) if marker == COD)
    across, down = grid.across, grid.down
    return Frame(
        "jpeg-2000",
        down.end - down.start,
        across.end - across.start,
        len(grid.depths),
        precision=(grid.depths[0] & 0x7F) + 1,
        signed=bool(grid.depths[0] & 0x80),
        # A picture that does not begin at the origin would be shifted at a reduced size
        halvings=0 if across.start or down.start else style.levels,
        wavelet="5/3" if style.reversible else "9/7",
    )


def check_work(stream: Stream) -> None:
    """Limit the structures that OpenJPEG would allocate and step through.

    Raises:
        CorruptImageError: A count exceeds LIMITS, or tiles or tile-parts are missing.

    References:
        ITU-T T.800 A.4 to A.6 (marker segments), B.3 to B.12 (tiles, precincts, blocks, packets).
    """
    grid = _grid(stream)
    _check({"tiles": grid.tiles})
    coding = _coding(stream)
    if len(coding.parts) < grid.tiles:  # OpenJPEG would leave the others black
        raise CorruptImageError(
            f"the frame is cut off: it has {len(coding.parts)} of {grid.tiles} tiles"
        )
    # OpenJPEG takes missing packets at the end of a tile for empty ones
    if any(coding.parts[tile] < count for tile, count in coding.promised.items()):
        raise CorruptImageError("the frame is cut off: a tile lacks tile-parts")
    planes = min(MAX_PLANES, coding.planes + coding.shift)
    counts = (_count(grid, style, planes) for style in coding.styles)
    most = Count(*map(max, zip(*counts, strict=True)))
    components = grid.tiles * len(grid.depths)
    packets = coding.layers * most.packets + most.positions
    samples = (grid.across.end - grid.across.start) * (grid.down.end - grid.down.start)
    _check(
        {
            "precincts": components * most.precincts,
            "code blocks": components * most.blocks,
            "packets": components * packets * (1 + min(MAX_POCS, coding.changes)),
            "parts of code blocks": components * most.blocks * (coding.layers + most.parts),
            "bits": samples * len(grid.depths) * planes,
        }
    )


def _check(counts: dict[str, int]) -> None:
    for what, count in counts.items():
        if count > LIMITS[what]:
            raise CorruptImageError(
                f"the frame declares {count} {what}; the limit is {LIMITS[what]}"
            )


def _grid(stream: Stream) -> Grid:
    x1, y1, x0, y0, width, height, left, top, components = struct.unpack_from(">8IH", stream, 8)
    across, down = Line(x0, x1, width, left), Line(y0, y1, height, top)
    for line in (across, down):
        if not line.origin <= line.start < min(line.end, line.origin + line.tile):
            raise ValueError("the first tile is empty")
    sizes = bytes(stream[42 : 42 + 3 * components])
    return Grid(across, down, tuple(sizes[::3]), frozenset(sizes[1::3] + sizes[2::3]))


def _headers(stream: Stream) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and length of all segments, including those of tile-parts."""
    at, end = 2, 0
    for _ in range(LIMITS["markers"]):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == SOT:
            end = at + int(struct.unpack_from(">I", stream, at + 6)[0])
        if marker == SOD:
            if end < at + 2 or bytes(stream[end : end + 2]) != SOT.to_bytes(2):
                return  # the last tile-part may declare 0; otherwise OpenJPEG stops here, too
            at = end
        elif marker in KNOWN:
            yield marker, at, length
            at += 2 + length
        else:
            at += 2
    raise CorruptImageError(f"the JPEG 2000 headers have more than {LIMITS['markers']} segments")


def _coding(stream: Stream) -> Coding:
    coding = Coding()
    for marker, at, length in _headers(stream):
        if marker in {COD, COC}:
            coding.styles.append(_style(stream, at))
        if marker == COD:
            coding.layers = max(coding.layers, struct.unpack_from(">H", stream, at + 6)[0])
        elif marker in {QCD, QCC}:
            start = at + (4 if marker == QCD else 5)
            coding.planes = max(coding.planes, _planes(bytes(stream[start : at + 2 + length])))
        elif marker == SOT:
            tile, _, _, count = struct.unpack_from(">HIBB", stream, at + 4)
            coding.parts[tile] += 1
            coding.promised[tile] = max(count, coding.promised.get(tile, 0))
        elif marker == RGN:
            coding.shift = max(coding.shift, stream[at + 6])
        elif marker == POC:
            coding.changes += length // 7
    return coding


def _style(stream: Stream, at: int) -> Style:
    """Read a COD or COC segment. Without precinct sizes, precincts have the maximum size."""
    component = struct.unpack_from(">H", stream, at)[0] == COC  # has a byte for the component
    has_precincts = stream[at + 4 + component] & 1
    at += 6 if component else 9
    levels, width, height, passes, transform = struct.unpack_from(">5B", stream, at)
    if levels > MAX_LEVELS or width > MAX_BLOCK or height > MAX_BLOCK:
        raise ValueError("not of the Standard")
    sizes = bytes(stream[at + 5 : at + 6 + levels]) if has_precincts else b"\xff" * (levels + 1)
    precincts = tuple((size & 15, size >> 4) for size in sizes)
    if len(precincts) <= levels or any(0 in pair for pair in precincts[1:]):
        raise ValueError("no such precincts")
    return Style(levels, (width + 2, height + 2), passes, transform == 1, precincts)


def _planes(quantisation: bytes) -> int:
    """The bit planes of the deepest band, by its exponent and guard bits (T.800 E.1)."""
    exponents = quantisation[1 :: 2 if quantisation[0] & 0x1F else 1]
    return (quantisation[0] >> 5) + (max(exponents) >> 3) - 1


def _count(grid: Grid, style: Style, planes: int) -> Count:
    """The counts of one component with this style in the largest tile."""
    precincts = blocks = largest = 0
    finest = [style.levels + 15] * 2
    for resolution, precinct in enumerate(style.precincts):
        halvings = style.levels - resolution
        finer = min(1, resolution)  # except for the coarsest resolution, bands have half the size
        exponents = [side + halvings for side in precinct]
        finest = [min(pair) for pair in zip(finest, exponents, strict=True)]
        here = _cells(grid, exponents)
        block = [
            min(side + finer, limit) + halvings
            for side, limit in zip(style.block, precinct, strict=True)
        ]
        bands = 3 if finer else 1
        precincts += bands * here
        blocks += bands * _cells(grid, block)
        largest = max(largest, here)
    return Count(
        precincts,
        blocks,
        packets=largest * (style.levels + 1),
        positions=_cells(grid, finest) * (style.levels + 1),
        parts=3 * planes if style.passes & SEPARATE_PASSES else 1,
    )


def _cells(grid: Grid, exponents: Sequence[int]) -> int:
    return grid.across.cells(exponents[0]) * grid.down.cells(exponents[1])
