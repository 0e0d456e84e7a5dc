"""A folder of labelled images, as training takes it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from images import Array, png


def write_labelled(folder: Path, images: Iterable[tuple[str, str, str, Array]]) -> None:
    """Write manifest.csv and a PNG file of each image, all of different patients.

    Args:
        folder: Where.
        images: Name without suffix, view, source and (rows, columns) pixels of each.
    """
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "view", "patient_id", "source"))
        for name, view, source, pixels in images:
            (folder / f"{name}.png").write_bytes(png(np.ascontiguousarray(pixels)))
            writer.writerow((f"{name}.png", view, name, source))
