"""Remove values far outside the range of the radiograph (PreprocessSpec version 2).

A radiograph has a narrow range of values; burned-in marks, overlays and surroundings may be far
outside it. Ordinary radiographs hardly change: among 4,331 public ones, no PFI changed by 0.006.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.imaging.picture import Mask, Picture, sampling

Values = npt.NDArray[np.float32]  # in one dimension

LEVELS = 256  # bins of the histogram of samples
SMOOTHED = 8  # bins that are averaged
# A bin is sparse if it holds less than SPARSE of the mean: compression and scaling smear the edges
# of burned-in marks over all bins. At most PLATE of all samples count for one bin, because an empty
# plate may fill one
SPARSE, PLATE = 0.1, 0.05
# Values beyond a run of sparse bins (a gap) are outliers if the gap is wide enough, as a share of
# the range of the other values: PLATEAU_GAP if the outliers are nearly equal (half of them within
# PLATEAU of that range), like painted marks, else SPREAD_GAP, because they may be the air beside a
# patient. Of 4,331 ordinary radiographs, 58 have such a gap, two of them one of 1.0 or more
PLATEAU_GAP, SPREAD_GAP, PLATEAU = 0.3, 0.75, 0.03
FEW_VALUES = 4  # pictures with so few values, such as PNG of 2 bits, have gaps everywhere
FEW = 0.005  # share of samples; fewer outliers are left to the percentiles of the window
FAR_GAP = 2.0  # the gap beyond which bright surroundings become dark
MAX_OUTLIERS = 6
SPREAD, CONTENT_LEVELS = (2, 98), 64  # percentiles, and bins between them
# Outliers that fill this share of the picture's edge surround the radiograph
SURROUNDS = 0.1
SMEAR_PIXELS = 4  # width of smeared edges, if a file is lossy or decoded at a reduced size


def without_outliers(picture: Picture) -> tuple[Picture, bool]:
    """Remove values that are far from all others: a border, a box, markers.

    They get the darkest or brightest value of the others; bright surroundings that are far off
    become dark.

    Returns:
        The picture, and whether outliers took half of its range or more.
    """
    pixels = picture.pixels
    grid = sampling(pixels)
    found = _rest(pixels[grid].astype(np.float32).ravel())
    if found is None:
        return picture, False
    below, above = pixels < found.low, pixels > found.high
    smeared = picture.smeared and found.outliers_take_half
    if smeared:
        below, above = _widened(below), _widened(above)
        inner = pixels[grid][~(below | above)[grid]]
        if inner.size:
            found = found._replace(low=float(inner.min()), high=float(inner.max()))
    low, high = (pixels.dtype.type(limit) for limit in found.limits)
    clipped = np.clip(pixels, low, high)
    if smeared:
        clipped[below], clipped[above] = low, high
    bright, dark = (below, high) if picture.inverted else (above, low)
    if _surrounds(bright) and found.is_far(picture.inverted):
        clipped[bright] = dark
    return picture._replace(pixels=clipped), found.outliers_take_half


def _surrounds(mask: Mask) -> bool:
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return float(np.mean([edge.mean() for edge in edges])) >= SURROUNDS


def _widened(mask: Mask) -> Mask:
    """Grow a mask by SMEAR_PIXELS; single pixels do not grow, because they have no edge."""
    wide = mask.copy()
    for lines in (wide, wide.T):
        lines[1:] &= lines[:-1]
        lines[:-1] &= lines[1:]
    for lines in (wide, wide.T):
        before = lines.copy()
        for step in range(1, SMEAR_PIXELS + 2):
            lines[step:] |= before[:-step]
            lines[:-step] |= before[step:]
    return wide | mask


class _Gap(NamedTuple):
    """The gap between outliers and the other values."""

    width: float = 0
    wide: float = PLATEAU_GAP  # the least width that counts, as a share of the others' range

    def left(self, extent: float) -> float:
        """The width that remains, if the other values have this extent.

        A gap of `wide` keeps its width, and one of twice that or more has no width left. Between
        them it shrinks continuously, so that small changes by compression change the tensor little.
        """
        return min(self.width, max(0.0, 2 * self.wide * extent - self.width))


class _Rest(NamedTuple):
    """The range of values without outliers, and the gaps below and above it."""

    low: float
    high: float
    below: _Gap
    above: _Gap

    @property
    def extent(self) -> float:
        return self.high - self.low

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value that remain."""
        return self.low - self.below.left(self.extent), self.high + self.above.left(self.extent)

    def is_far(self, below: bool) -> bool:
        """Whether the outliers on one side are too far off to be part of a radiograph."""
        return (self.below if below else self.above).width > FAR_GAP * self.extent

    @property
    def outliers_take_half(self) -> bool:
        return max(self.below.width, self.above.width) > self.extent


def _rest(values: Values) -> _Rest | None:
    """The range between outliers; None if there are none."""
    below = above = _Gap()
    for _ in range(MAX_OUTLIERS):
        cut = _cut(values)
        if cut is None:
            break
        values = cut.kept
        if cut.upper:
            above = cut.gap
        else:
            below = cut.gap
    if not below.width and not above.width:
        return None
    return _Rest(float(values.min()), float(values.max()), below, above)


class _Cut(NamedTuple):
    """Values without those beyond a gap."""

    kept: Values
    gap: _Gap
    upper: bool  # those above it were cut off


def _cut(values: Values) -> _Cut | None:
    """Split at the widest gap, and keep the side with more content; None if the gap is narrow."""
    smallest, largest = float(values.min()), float(values.max())
    if smallest == largest:
        return None
    levels = (values - smallest) * ((LEVELS - 1e-3) / (largest - smallest))
    counts = np.bincount(levels.astype(np.uint8), minlength=LEVELS)
    # The ends of the range are values, so no gap reaches beyond it
    around = np.convolve(counts, np.full(SMOOTHED, 1 / SMOOTHED), mode="same")
    spread = np.minimum(counts, PLATE * len(values)).sum()
    start, end = _widest(around < SPARSE * spread / LEVELS)
    # True of most pictures. Smoothing hides SMOOTHED bins of a gap
    if end - start + SMOOTHED < PLATEAU_GAP * min(start or LEVELS, LEVELS - end or LEVELS):
        return None
    beyond = len(values) - max(counts[:start].sum(), counts[end:].sum())
    if beyond < FEW * len(values):
        return None
    low, high = values[levels < start], values[levels >= end]
    upper = _content(low) > _content(high)
    kept, others = (low, high) if upper else (high, low)
    if not len(kept):
        return None
    extent = float(kept.max() - kept.min())
    # If all bins beyond the gap are sparse, the gap reaches to the end of the range
    width = float(high.min(initial=largest) - low.max(initial=smallest))
    gap = _Gap(width, PLATEAU_GAP if _is_plateau(others, extent) else SPREAD_GAP)
    if width < gap.wide * extent or len(np.unique(values)) <= FEW_VALUES:
        return None
    return _Cut(kept, gap, upper)


def _is_plateau(values: Values, extent: float) -> bool:
    if not len(values):
        return False
    low, high = np.percentile(values, (25, 75))
    return bool(high - low <= PLATEAU * extent)


def _widest(sparse: Mask) -> tuple[int, int]:
    """The first bin of the longest run, and the one after its last; equal if there is none."""
    edges = np.flatnonzero(np.diff(sparse, prepend=False, append=False)).reshape(-1, 2)
    if not len(edges):
        return 0, 0
    start, end = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return int(start), int(end)


def _content(values: Values) -> float:
    """A measure of content: large for many different values over a wide range.

    A plate or a marker has one value, with smeared edges; a radiograph has many.
    """
    if not len(values):
        return 0
    low, high = np.percentile(values, SPREAD)
    if low == high:
        return 0
    counts, _ = np.histogram(values, CONTENT_LEVELS, (low, high))
    return float((len(values) - counts.max()) * (high - low))
