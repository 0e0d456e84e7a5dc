"""The corruptions are what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from images import png, radiograph
from PIL import Image

from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from training.augmentation.corruptions import CORRUPTIONS
from training.augmentation.image_files import transform


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(radiograph(300, 240, bits=8).astype(np.uint8))


def test_there_are_as_many_as_the_cards_name() -> None:
    """Twenty-three."""
    assert len(CORRUPTIONS) == 23


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_changes_the_image_and_leaves_one_that_can_be_read(
    name: str, picture: Image.Image
) -> None:
    """The file's tensor is another; at no other grey depth than before."""
    data = png(np.asarray(picture))
    changed = CORRUPTIONS[name](picture)
    assert changed.mode == "L"
    assert changed.size != picture.size or changed.tobytes() != picture.tobytes()
    assert image_to_tensor(transform(data, CORRUPTIONS[name]), PreprocessSpec()).shape == (
        1,
        256,
        256,
    )


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("turned by 90 degrees", 300, 240),
        ("turned by 180 degrees", 240, 300),
        ("64-pixel original", 51, 64),
        ("white border of 15 %", 240 + 2 * 36, 300 + 2 * 45),
        ("black border of 30 %", 240 + 2 * 72, 300 + 2 * 90),
        ("letterbox 2:1", 600, 300),
        ("crop to 70 %", 168, 210),
        ("bottom half", 240, 150),
        ("left half", 120, 300),
    ],
)
def test_sizes_are_what_the_names_say(
    name: str, width: int, height: int, picture: Image.Image
) -> None:
    """Of a picture 240 wide and 300 high."""
    assert CORRUPTIONS[name](picture).size == (width, height)


def test_turned_by_90_degrees_is_clockwise(picture: Image.Image) -> None:
    """As rotation is told."""
    found = np.asarray(CORRUPTIONS["turned by 90 degrees"](picture)).astype(int)
    assert np.abs(found - np.rot90(np.asarray(picture), -1)).max() <= 1


def test_the_letterbox_holds_the_whole_picture(picture: Image.Image) -> None:
    """In its middle."""
    box = np.asarray(CORRUPTIONS["letterbox 2:1"](picture))
    np.testing.assert_array_equal(box[:, 180:420], np.asarray(picture))
    assert not box[:, :180].any()
    assert not box[:, 420:].any()
