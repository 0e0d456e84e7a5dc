"""Changes of an image file, made before it is preprocessed as the service does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from service.imaging.tensor import MIN_SIDE
from training.data.manifest import Row, image_reader

Grey = Image.Image  # mode L
Change = Callable[[Grey], Grey]
Tensors = npt.NDArray[np.uint8]
SIDE = 1024  # pixels of a DICOM image's square rendering


def transform(data: bytes, change: Change) -> bytes:
    """Change an image file; returns a PNG file.

    PNG and JPEG are transformed as they are; of DICOM, the service's own rendering at SIDE.

    Raises:
        ImageError: Neither a PNG, a JPEG nor a DICOM file that the service can read.
    """
    try:
        grey = _to_grey(Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]))
    except OSError:
        grey = Image.fromarray(image_to_tensor(data, PreprocessSpec(version=1, size=SIDE))[0])
    if min(grey.size) < 2 * MIN_SIDE:  # the service would refuse a quarter of it
        grey = grey.resize((2 * grey.width, 2 * grey.height))
    output = io.BytesIO()
    change(grey).save(output, "PNG")
    return output.getvalue()


def transformed(rows: Sequence[Row], images: Path, spec: PreprocessSpec, change: Change) -> Tensors:
    """(N, 1, S, S) uint8: each row's image after the change."""
    read = image_reader(images)
    return np.stack([image_to_tensor(transform(read(row.file), change), spec) for row in rows])


def _to_grey(image: Image.Image) -> Grey:
    if not image.mode.startswith("I"):
        return image.convert("L")
    deep = np.asarray(image).astype(np.float32)  # 16 bits, which convert("L") would saturate
    deep = (deep - deep.min()) * (255 / max(1.0, float(np.ptp(deep))))
    return Image.fromarray(deep.astype(np.uint8))
