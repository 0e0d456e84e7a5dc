"""Changes of an image file, made before it is preprocessed as the service does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store import PreprocessSpec
from service.imaging import BlankImageError, image_to_tensor
from service.imaging.tensor import MIN_SIDE
from training.data.manifest import Row, image_reader

Grey = Image.Image  # mode L
Change = Callable[[Grey], Grey]
Tensors = npt.NDArray[np.uint8]
SIDE = 1024  # pixels of a DICOM image's square rendering


def transform(data: bytes, change: Change) -> bytes:
    """Change an image file; returns a PNG file.

    Raises:
        ImageError: Neither a PNG, a JPEG nor a DICOM file that the service can read.
    """
    return png_of(change(grey_of(data)))


def grey_of(data: bytes) -> Grey:
    """The picture of a PNG or a JPEG file; of DICOM, the service's own rendering at SIDE.

    It is large enough that the service takes a quarter of it.

    Raises:
        ImageError: Neither a PNG, a JPEG nor a DICOM file that the service can read.
    """
    try:
        grey = _to_grey(Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]))
    except OSError:
        grey = Image.fromarray(image_to_tensor(data, PreprocessSpec(version=1, size=SIDE))[0])
    if min(grey.size) < 2 * MIN_SIDE:
        grey = grey.resize((2 * grey.width, 2 * grey.height))
    return grey


def png_of(grey: Grey) -> bytes:
    """A PNG file of the picture."""
    output = io.BytesIO()
    grey.save(output, "PNG")
    return output.getvalue()


class Transformed(NamedTuple):
    """Images after a change, those that it left blank apart."""

    tensors: Tensors  # (N, 1, S, S)
    rows: list[Row]  # (N,), of the images that they were made from


def transformed(
    rows: Sequence[Row], images: Path, spec: PreprocessSpec, *changes: Change
) -> Transformed:
    """Each row's image after each of the changes, as the service would see it.

    An image that a change leaves blank, as the black corner of a collimated radiograph, is left
    out: the service refuses to answer it.

    Args:
        rows: Of a manifest.
        images: Zip or folder that their files lie in.
        spec: Preprocessing of the model; its size is S.
        changes: One after the other for each image, each made on the image as it is.

    Raises:
        ImageError: A file is no image that the service can read.
    """
    read, tensors, kept = image_reader(images), list[Tensors](), list[Row]()
    for row in rows:
        grey = grey_of(read(row.file))
        for change in changes:
            try:
                tensors.append(image_to_tensor(png_of(change(grey)), spec))
            except BlankImageError:
                continue
            kept.append(row)
    shape = (0, 1, spec.size, spec.size)
    return Transformed(np.stack(tensors) if tensors else np.empty(shape, np.uint8), kept)


def _to_grey(image: Image.Image) -> Grey:
    if not image.mode.startswith("I"):
        return image.convert("L")
    deep = np.asarray(image).astype(np.float32)  # 16 bits, which convert("L") would saturate
    deep = (deep - deep.min()) * (255 / max(1.0, float(np.ptp(deep))))
    return Image.fromarray(deep.astype(np.uint8))
