from __future__ import annotations

import numpy as np
import pytest
from images import radiograph

from service.imaging.errors import ColourImageError
from service.imaging.grey import MAX_COLOURED_SHARE, grey_of_colour

GREY = radiograph(100, 100, bits=8).astype(np.uint8)
SAMPLES = {"uint8": np.stack([GREY] * 3, axis=2)}
SAMPLES["uint16"] = SAMPLES["uint8"].astype(np.uint16) * 257


@pytest.mark.parametrize("depth", SAMPLES)
def test_equal_channels_are_grey(depth):
    """A grey image stored in colour loses nothing and needs no warning."""
    pixels, warnings = grey_of_colour(SAMPLES[depth])
    np.testing.assert_array_equal(pixels, SAMPLES[depth][..., 0])
    assert warnings == ()


@pytest.mark.parametrize("depth", SAMPLES)
def test_a_coloured_mark_is_a_warning_and_more_is_a_refusal(depth):
    """Up to MAX_COLOURED_SHARE of the pixels may be coloured."""
    samples = SAMPLES[depth].copy()
    marked = int(samples.shape[0] * MAX_COLOURED_SHARE)
    samples[:marked] = (0, 0, np.iinfo(samples.dtype).max)
    assert grey_of_colour(samples)[1] == ("coloured_marks_ignored",)
    samples[marked] = (0, 0, np.iinfo(samples.dtype).max)
    with pytest.raises(ColourImageError, match="grey"):
        grey_of_colour(samples)
