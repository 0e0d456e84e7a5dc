"""A radiograph as a person sees it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from images import dicom, png, radiograph
from pydicom import uid

from model_store import ModelVersion
from service.imaging import LONGEST_SIDE, read_radiograph
from service.imaging.picture import Field, Picture


def test_parts_of_parts_say_where_they_lie() -> None:
    """A picture that is cropped twice, at half its size."""
    whole = Picture(np.zeros((200, 100)), (400, 200))
    part = whole.cropped(Field(0.25, 0.75, 0, 0.5)).cropped(Field(0.5, 1, 0.5, 1))
    assert part.origin == (200, 50)
    assert whole.place_of(part) == Field(0.5, 0.75, 0.25, 0.5)


@pytest.mark.parametrize(
    "write",
    [png, dicom, partial(dicom, syntax=uid.JPEG2000Lossless)],
    ids=["png", "dicom", "jpeg-2000"],
)
def test_a_display_changes_nothing_else(write, version: ModelVersion) -> None:
    """The tensor is the same byte for byte, and there is no display unasked."""
    data, spec = write(radiograph(2100, 1700)), version.card.preprocess
    plain, displayed = read_radiograph(data, spec), read_radiograph(data, spec, displayed=True)
    np.testing.assert_array_equal(plain.tensor, displayed.tensor)
    assert plain.display is None
    assert displayed.display is not None
    assert max(displayed.display.pixels.shape) == LONGEST_SIDE
