"""Images are changed as files, and cut up, as an archive would hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from images import png, radiograph

from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from training.augmentation.corruptions import CORRUPTIONS
from training.augmentation.figure6 import FIGURE_6
from training.augmentation.image_files import grey_of, png_of, transformed
from training.augmentation.pieces import PIECES
from training.data.manifest import Row

SPEC = PreprocessSpec(size=32)


def row_of(file: str) -> Row:
    return Row(file=file, view="frontal", patient_id=file, source="made")


def test_pieces_are_halves_and_quarters(tmp_path: Path) -> None:
    """Four halves, two of which make up the image; four quarters, which do so together."""
    picture = radiograph(301, 240, bits=8).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png(picture))
    grey = grey_of((tmp_path / "a.png").read_bytes())
    top, bottom, left, right, *quarters = (np.asarray(change(grey)) for change in PIECES)
    np.testing.assert_array_equal(np.vstack((top, bottom)), picture)
    np.testing.assert_array_equal(np.hstack((left, right)), picture)
    upper, lower = np.hstack(quarters[:2]), np.hstack(quarters[2:])
    np.testing.assert_array_equal(np.vstack((upper, lower)), picture)
    found = transformed([row_of("a.png")], tmp_path, SPEC, *PIECES)
    assert [row.file for row in found.rows] == ["a.png"] * 8
    for tensor, change in zip(found.tensors, PIECES, strict=True):
        np.testing.assert_array_equal(tensor, image_to_tensor(png_of(change(grey)), SPEC))


def test_an_image_left_blank_is_left_out(tmp_path: Path) -> None:
    """The service refuses a black corner; its radiograph still has all other rows."""
    picture = radiograph(300, 240, bits=8).astype(np.uint8)
    (tmp_path / "whole.png").write_bytes(png(picture))
    picture[:150, :120] = 0
    (tmp_path / "black corner.png").write_bytes(png(picture))
    rows = [row_of("black corner.png"), row_of("whole.png")]
    assert transformed(rows, tmp_path, SPEC, FIGURE_6["top left crop"]).rows == rows[1:]
    assert transformed(rows, tmp_path, SPEC, CORRUPTIONS["bottom half"]).rows == rows
    assert len(transformed(rows, tmp_path, SPEC, *PIECES).rows) == 15
    only = transformed(rows[:1], tmp_path, SPEC, FIGURE_6["top left crop"])
    assert (only.rows, only.tensors.shape) == ([], (0, 1, 32, 32))
