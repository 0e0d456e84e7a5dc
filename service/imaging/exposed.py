"""What of a picture shows the patient, and in which range: PreprocessSpec version 2.

A narrow range of values holds a radiograph; what burns in, covers or surrounds it may lie far
outside. Nothing here changes an ordinary radiograph: of 4,331 public ones, no PFI moved by 0.006.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.imaging.picture import WHOLE, Field, Mask, Picture, Pixels
from service.imaging.tensor import Tensor

Values = npt.NDArray[np.float32]  # in one dimension

SAMPLES = 128  # rows and columns that are looked at for outliers
LEVELS = 256  # into which their range is cut
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
FEW = 0.005  # of the samples: fewer are left to the percentiles of the window
FAR_GAP = 2.0  # the same, where what surrounds a radiograph and is bright becomes dark
MAX_OUTLIERS = 6
SPREAD, CONTENT_LEVELS = (2, 98), 64  # percentiles, and levels between them
# Of the picture's edge: a plateau that holds so much of it surrounds the radiograph
SURROUNDS = 0.1
SMEAR_PIXELS = 4  # around outliers, where a file is lossy or was decoded at a reduced size

# Rows and columns of a border: grey levels of 255 from the most frequent one, and the share of its
# pixels that must be so near. The tensor's pixels are means of many, so that noise is small there
BORDER_LEVELS = 4
BORDER_SHARE = 0.98
# An edge ends it if, within so many lines behind it, no more than this share is so near
EDGE_LINES, EDGE_LEVELS, EDGE_SHARE = 2, 12, 0.9
# A border is cut off if it leaves less of the picture. Of ordinary radiographs, the least is 0.63,
# and at 0.7 no PFI moves by 0.008; at 0.85, two of 4,331 do, both towards their view
FIELD_AREA = 0.7
LOOKS = 4  # at a picture; each sees what is left of a border finer, or sees that nothing is

# Of declared padding and shutters: a row or column belongs to the field if so much of it is shown
SHOWN_SHARE = 0.02
DARKEST_PERCENTILE = 0.5  # of what is shown: single pixels of a smeared edge may be darker


def declared_field(picture: Picture, grid: int = 1) -> Picture:
    """Without what the file itself says is not shown: padding, and what a shutter hides.

    The picture is cut to the field; within it, hidden pixels get the darkest value of the rest.

    Args:
        picture: As decoded.
        grid: See `Picture.cropped`.
    """
    shown = _shown(picture)
    if shown is None:
        return picture
    rows, columns = (_ends(shown.mean(axis=axis) >= SHOWN_SHARE) for axis in (1, 0))
    if rows is None or columns is None:  # hardly anything is: then this cannot be meant
        return picture._replace(padding=None, shutter=None)
    height, width = shown.shape
    field = Field(rows[0] / height, rows[1] / height, columns[0] / width, columns[1] / width)
    cropped = picture.cropped(field, grid)
    inner = _shown(cropped)
    assert inner is not None
    if not inner.all():
        cropped = cropped._replace(pixels=_darkened(cropped, inner))
    return cropped._replace(padding=None, shutter=None)


def _shown(picture: Picture) -> Mask | None:
    """None where the file says nothing."""
    if picture.padding is None:
        return picture.shutter
    seen = ~picture.padding
    return seen if picture.shutter is None else seen & picture.shutter


def _ends(lines: Mask) -> tuple[int, int] | None:
    """The first, and the one after the last."""
    found = np.flatnonzero(lines)
    return (int(found[0]), int(found[-1]) + 1) if len(found) >= 1 else None


def _darkened(picture: Picture, shown: Mask) -> Pixels:
    grid = _grid(shown)
    values = picture.pixels[grid][shown[grid]]
    if not values.size:
        values = picture.pixels[shown]
    share = 100 - DARKEST_PERCENTILE if picture.inverted else DARKEST_PERCENTILE
    darkest = np.percentile(values, share, method="nearest")
    return np.where(shown, picture.pixels, darkest.astype(picture.pixels.dtype))


def without_outliers(picture: Picture) -> tuple[Picture, bool]:
    """Without values that are far from all others: a border, a box, markers.

    They become as dark or bright as the rest is; what surrounds the radiograph and is far off
    becomes dark, whatever it was.

    Returns:
        The picture, and whether they took half of its range or more.
    """
    pixels = picture.pixels
    grid = _grid(pixels)
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


def _grid(pixels: Pixels) -> tuple[slice, ...]:
    return tuple(slice(None, None, max(1, side // SAMPLES)) for side in pixels.shape)


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
        low, high, gap = _apart(values)
        if low is values:
            break
        if _content(low) > _content(high):
            values, above = low, gap
        else:
            values, below = high, gap
    if not below.width and not above.width:
        return None
    return _Rest(float(values.min()), float(values.max()), below, above)


def _apart(values: Values) -> tuple[Values, Values, _Gap]:
    """What lies below and above the widest gap; all and nothing if it is narrow."""
    smallest, largest = float(values.min()), float(values.max())
    none = values, values[:0], _Gap()
    if smallest == largest:
        return none
    levels = (values - smallest) * ((LEVELS - 1e-3) / (largest - smallest))
    counts = np.bincount(levels.astype(np.uint8), minlength=LEVELS)
    # Both ends are of the range, so no gap begins or ends outside of it
    around = np.convolve(counts, np.full(SMOOTHED, 1 / SMOOTHED), mode="same")
    spread = np.minimum(counts, PLATE * len(values)).sum()
    start, end = _widest(around < SPARSE * spread / LEVELS)
    # As in most pictures. Smoothing hides SMOOTHED levels of a gap
    if end - start + SMOOTHED < PLATEAU_GAP * min(start or LEVELS, LEVELS - end or LEVELS):
        return none
    beyond = len(values) - max(counts[:start].sum(), counts[end:].sum())
    if beyond < FEW * len(values):
        return none
    low, high = values[levels < start], values[levels >= end]
    kept, others = (low, high) if _content(low) > _content(high) else (high, low)
    if not len(kept):
        return none
    extent = float(kept.max() - kept.min())
    # Where all that is beyond the gap is as sparse, it reaches to the end of the range
    width = float(high.min(initial=largest) - low.max(initial=smallest))
    gap = _Gap(width, PLATEAU_GAP if _is_plateau(others, extent) else SPREAD_GAP)
    return none if width < gap.wide * extent else (low, high, gap)


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


def field_of(tensor: Tensor, *, sharp: bool = False) -> Field:
    """The part within a border of constant rows and columns, as fractions; WHOLE if none is there.

    Args:
        tensor: (1, S, S), of the picture.
        sharp: Whether a border counts only if an edge ends it, as rims do that a first cut left.
            Half-shadows fade: where they are cut once more would depend on compression.
    """
    grey = tensor[0]
    side = len(grey)
    top, bottom, left, right = 0, side, 0, side
    before = None
    while before != (top, bottom, left, right):
        before = top, bottom, left, right
        top += _border(grey[top:bottom, left:right], sharp=sharp)
        bottom -= _border(grey[top:bottom, left:right][::-1], sharp=sharp)
        left += _border(grey[top:bottom, left:right].T, sharp=sharp)
        right -= _border(grey[top:bottom, left:right].T[::-1], sharp=sharp)
        if bottom - top < 2 or right - left < 2:  # nothing else is there
            return WHOLE
    return Field(top / side, bottom / side, left / side, right / side)


def _border(lines: npt.NDArray[np.uint8], *, sharp: bool) -> int:
    """How many lines from the first on are as constant as it, and of its grey."""
    if lines.size < 2 * len(lines) or len(lines) < 2:
        return 0
    grey = int(np.bincount(lines[0]).argmax())
    if not _near(lines[0], grey, BORDER_LEVELS) >= BORDER_SHARE:  # as in most pictures
        return 0
    of_border = _near(lines, grey, BORDER_LEVELS) >= BORDER_SHARE
    if of_border.all():
        return len(lines)
    count = int(np.argmin(of_border))
    behind = _near(lines[count : count + EDGE_LINES], grey, EDGE_LEVELS)
    return 0 if sharp and behind.min() > EDGE_SHARE else count


def _near(lines: npt.NDArray[np.uint8], grey: int, levels: int) -> npt.NDArray[np.float64]:
    """The share of each line's pixels that differ from a grey by no more than so many levels."""
    inside = (lines >= max(0, grey - levels)) & (lines <= min(255, grey + levels))
    share: npt.NDArray[np.float64] = np.count_nonzero(inside, axis=-1) / lines.shape[-1]
    return share
