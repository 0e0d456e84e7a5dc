"""The transformations of the paper's Figure 6, made on the image itself, before preprocessing."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from service.imaging.tensor import MIN_SIDE
from training.data.manifest import Row, image_reader

Grey = Image.Image  # mode L
Tensors = npt.NDArray[np.uint8]
SIDE = 1024  # pixels of a DICOM image's square rendering


def text_label(image: Grey) -> Grey:
    """White words on the image, an eighth of its height."""
    labelled = image.copy()
    font = ImageFont.load_default(size=max(10, image.height // 8))
    ImageDraw.Draw(labelled).text((image.width // 20, image.height // 20), "PORTABLE", 255, font)
    return labelled


def rotated(image: Grey) -> Grey:
    """Rotated by 45 degrees and zoomed 1.5 times about its centre, in the same frame."""
    width, height = image.size
    zoomed = image.resize((round(width * 1.5), round(height * 1.5)), Image.Resampling.BILINEAR)
    turned = zoomed.rotate(45, Image.Resampling.BILINEAR)
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return turned.crop((left, top, left + width, top + height))


def top_half_hidden(image: Grey) -> Grey:
    """The upper half black."""
    hidden = image.copy()
    hidden.paste(0, (0, 0, image.width, image.height // 2))
    return hidden


def top_left_crop(image: Grey) -> Grey:
    """The top left quarter: half the width, half the height."""
    return image.crop((0, 0, image.width // 2, image.height // 2))


FIGURE_6: dict[str, Callable[[Grey], Grey]] = {
    "text label": text_label,
    "rotated 45 degrees, zoom 1.5": rotated,
    "top half hidden": top_half_hidden,
    "top left crop": top_left_crop,
}


def transform(data: bytes, name: str) -> bytes:
    """Apply one of FIGURE_6 to an image file; returns a PNG file.

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
    FIGURE_6[name](grey).save(output, "PNG")
    return output.getvalue()


def transformed(rows: Sequence[Row], images: Path, spec: PreprocessSpec, name: str) -> Tensors:
    """(N, 1, S, S) uint8: each row's image after one of FIGURE_6."""
    read = image_reader(images)
    return np.stack([image_to_tensor(transform(read(row.file), name), spec) for row in rows])


def _to_grey(image: Image.Image) -> Grey:
    if not image.mode.startswith("I"):
        return image.convert("L")
    deep = np.asarray(image).astype(np.float32)  # 16 bits, which convert("L") would saturate
    deep = (deep - deep.min()) * (255 / max(1.0, float(np.ptp(deep))))
    return Image.fromarray(deep.astype(np.uint8))
