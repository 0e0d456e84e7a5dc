"""Values far outside of the radiograph's: PreprocessSpec version 2.

A narrow range of values holds a radiograph; what burns in, covers or surrounds it may lie far
outside. An ordinary radiograph hardly changes: of 4,331 public ones, no PFI moved by 0.006.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.imaging.picture import Mask, Picture, sampling

Values = npt.NDArray[np.float32]  # in one dimension

LEVELS = 256  # into which the range of samples is cut
SMOOTHED = 8  # of these are counted together
# A level is sparse if it holds less than this part of what each would hold if all held the same:
# compression and scaling smear the edges of what was burned in over all levels. Of a level that
# holds more than PLATE of all samples, as an empty plate does, no more than that counts
SPARSE, PLATE = 0.1, 0.05
# Values beyond a run of sparse levels are outliers if it is so wide, as a part of the range of the
# rest: the first if they are nearly equal (half of them differ by less than PLATEAU of that range),
# as what was painted is, and the second if not, as the air beside a patient may be. Of 4,331
# ordinary radiographs, 58 have such a gap, two of them one of 1.0 or more
PLATEAU_GAP, SPREAD_GAP, PLATEAU = 0.3, 0.75, 0.03
FEW_VALUES = 4  # pictures of so few, as PNG of 2 bits, have gaps only
FEW = 0.005  # of the samples: fewer are left to the percentiles of the window
FAR_GAP = 2.0  # the same, where what surrounds a radiograph and is bright becomes dark
MAX_OUTLIERS = 6
SPREAD, CONTENT_LEVELS = (2, 98), 64  # percentiles, and levels between them
# Of the picture's edge: a plateau that holds so much of it surrounds the radiograph
SURROUNDS = 0.1
SMEAR_PIXELS = 4  # around outliers, where a file is lossy or was decoded at a reduced size


def without_outliers(picture: Picture) -> tuple[Picture, bool]:
    """Without values that are far from all others: a border, a box, markers.

    They become as dark or bright as the rest is; what surrounds the radiograph and is far off
    becomes dark, whatever it was.

    Returns:
        The picture, and whether they took half of its range or more.
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
    """With what lies within SMEAR_PIXELS of it; not of single pixels, which have no edge."""
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
    """Between outliers and the rest."""

    width: float = 0
    wide: float = PLATEAU_GAP  # as a part of the range of the rest: then it is one

    def left(self, extent: float) -> float:
        """What is left of it, next to a rest of this extent.

        At `wide` it stays as it is, and from twice that on nothing is left: between them it shrinks
        steadily, as one picture must not get two tensors when compression moves a value.
        """
        return min(self.width, max(0.0, 2 * self.wide * extent - self.width))


class _Rest(NamedTuple):
    """The range of what are no outliers, and the gaps on both of its sides."""

    low: float
    high: float
    below: _Gap
    above: _Gap

    @property
    def extent(self) -> float:
        return self.high - self.low

    @property
    def limits(self) -> tuple[float, float]:
        """Darkest and brightest value that are left."""
        return self.low - self.below.left(self.extent), self.high + self.above.left(self.extent)

    def is_far(self, below: bool) -> bool:
        """Whether what lies on one side is no part of any radiograph's range."""
        return (self.below if below else self.above).width > FAR_GAP * self.extent

    @property
    def outliers_take_half(self) -> bool:
        return max(self.below.width, self.above.width) > self.extent


def _rest(values: Values) -> _Rest | None:
    """What lies between outliers; None where there are none."""
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
    """Cut at the widest gap, and keep what says more; None where it is narrow."""
    smallest, largest = float(values.min()), float(values.max())
    if smallest == largest:
        return None
    levels = (values - smallest) * ((LEVELS - 1e-3) / (largest - smallest))
    counts = np.bincount(levels.astype(np.uint8), minlength=LEVELS)
    # Both ends are of the range, so no gap begins or ends outside of it
    around = np.convolve(counts, np.full(SMOOTHED, 1 / SMOOTHED), mode="same")
    spread = np.minimum(counts, PLATE * len(values)).sum()
    start, end = _widest(around < SPARSE * spread / LEVELS)
    # As in most pictures. Smoothing hides SMOOTHED levels of a gap
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
    # Where all that is beyond the gap is as sparse, it reaches to the end of the range
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
    """The first of the longest run, and the one after its last; equal where there is none."""
    edges = np.flatnonzero(np.diff(sparse, prepend=False, append=False)).reshape(-1, 2)
    if not len(edges):
        return 0, 0
    start, end = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return int(start), int(end)


def _content(values: Values) -> float:
    """How much these say: how many they are, how much they differ, and how few are the same.

    A plate or a marker is of one value, with smeared edges; a radiograph of many.
    """
    if not len(values):
        return 0
    low, high = np.percentile(values, SPREAD)
    if low == high:
        return 0
    counts, _ = np.histogram(values, CONTENT_LEVELS, (low, high))
    return float((len(values) - counts.max()) * (high - low))
