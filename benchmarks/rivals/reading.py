"""How a competent user reads a radiograph: pydicom's default decoding and Pillow's resize."""

import io

import numpy as np
import pydicom
from PIL import Image


def read(data: bytes, size: int, plugin: str = "") -> np.ndarray:
    """(1, size, size) uint8, bone bright.

    Args:
        data: A DICOM or PNG file.
        size: The side of the network's input.
        plugin: pydicom's decoder; by default the first of those installed.
    """
    if data[128:132] == b"DICM":
        pixels = _dicom(data, plugin)
    else:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float32)
    low, high = pixels.min(), pixels.max()
    grey = ((pixels - low) / max(high - low, 1) * 255).astype(np.uint8)
    resized = Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)[np.newaxis]


def _dicom(data: bytes, plugin: str) -> np.ndarray:
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.pixel_array_options(decoding_plugin=plugin)
    pixels = dataset.pixel_array.astype(np.float32)
    return -pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels
