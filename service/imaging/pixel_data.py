"""The stored values of Pixel Data (7FE0,0010), from whichever transfer syntax, as grey integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import pixel_array

from service.imaging.codestream import decode_frame, decode_rle, read_frame_header
from service.imaging.errors import ColourImageError, CorruptImageError
from service.imaging.grey import grey_of_colour
from service.imaging.tensor import Pixels

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    }
)
ENCAPSULATED = frozenset(
    {
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
    }
)
INEXACT = ENCAPSULATED - {
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
}  # JPEG 2000 lossless belongs here, because its reduced resolutions may overshoot
SUPPORTED = NATIVE | ENCAPSULATED | {uid.RLELossless}

FULL_SIZE = 2**31  # as `min_side`: never decode at reduced resolution


def stored_values(
    dataset: Dataset, syntax: uid.UID, min_side: int
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode the one frame of a dataset whose pixel module has been checked.

    Args:
        dataset: With its Pixel Data.
        syntax: One of SUPPORTED.
        min_side: See `decode_frame`.

    Returns:
        (rows, columns) integers, and warnings.

    Raises:
        CorruptImageError, ColourImageError: See `read_dicom`. What pydicom raises on damaged
            attributes passes through.
    """
    if int(dataset.SamplesPerPixel) == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return grey_of_colour(_colour_samples(dataset, syntax))
    if syntax in NATIVE:
        values = _native(dataset, syntax)
    else:
        values = _encapsulated(dataset, syntax, min_side)
    return _significant_bits(dataset, values, syntax), ()


def _native(dataset: Dataset, syntax: uid.UID) -> Pixels:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    size = int(dataset.BitsAllocated) // 8
    expected, found = rows * columns * size, len(dataset.PixelData)
    if found < expected:
        raise CorruptImageError(f"Pixel Data holds {found} of {expected} bytes")
    big = syntax == uid.ExplicitVRBigEndian
    words = np.frombuffer(dataset.PixelData, f"{'>' if big else '<'}u{size}", rows * columns)
    if big and size == 1 and dataset["PixelData"].VR == "OW":
        # PS3.5 8.1.2: bytes travel in words, so each pair is swapped
        whole = np.frombuffer(dataset.PixelData, ">u2", found // 2)
        words = whole.astype("<u2").view(np.uint8)[: rows * columns]
    return words.reshape(rows, columns).astype(words.dtype.newbyteorder("="), copy=False)


def _encapsulated(dataset: Dataset, syntax: uid.UID, min_side: int) -> Pixels:
    if syntax == uid.RLELossless:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        size = int(dataset.BitsAllocated) // 8
        return decode_rle(stream, int(dataset.Rows), int(dataset.Columns), size)
    # Padding is recognised by equality, which a reduced wavelet would smear
    side = FULL_SIZE if "PixelPaddingValue" in dataset else min_side
    values = decode_frame(_codestream(dataset), side)
    if values.ndim == 3:
        raise ColourImageError("the object says one sample per pixel, but its frame has three")
    return values


def _codestream(dataset: Dataset) -> bytes:
    """The one frame, of the size that the header says."""
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    frame = read_frame_header(stream)
    if (frame.rows, frame.columns) != (int(dataset.Rows), int(dataset.Columns)):
        raise CorruptImageError(
            f"the header says {dataset.Rows} x {dataset.Columns} pixels, "
            "but the frame holds another size"
        )
    return stream


def _significant_bits(dataset: Dataset, values: Pixels, syntax: uid.UID) -> Pixels:
    """Keep Bits Stored up to High Bit (old overlays lie above) and restore the sign (PS3.5 8.1.1).

    A lossy or reduced frame of more precision than Bits Stored may overshoot: then the brightest
    pixels would wrap to black, so such frames are clipped and not masked.
    """
    if values.dtype.kind == "i":
        return values  # the codestream said itself that it is signed
    size = values.dtype.itemsize * 8
    stored = min(int(dataset.BitsStored), size)
    signed = int(dataset.PixelRepresentation) != 0
    if syntax in INEXACT and not signed:
        return np.minimum(values, (1 << stored) - 1) if stored < size else values
    high = stored - 1 if syntax in ENCAPSULATED else int(dataset.get("HighBit") or stored - 1)
    above = size - 1 - high if stored - 1 <= high < size else size - stored
    if above:
        values = values << above
    if signed:
        values = values.view(f"i{size // 8}")
    return values >> (size - stored) if stored < size else values


def _colour_samples(dataset: Dataset, syntax: uid.UID) -> npt.NDArray[Any]:
    photometric = str(dataset.PhotometricInterpretation)
    if syntax in ENCAPSULATED:
        samples = decode_frame(
            _codestream(dataset), FULL_SIZE
        )  # JPEG and JPEG 2000 come out as RGB
    else:
        samples = pixel_array(dataset, raw=True)
        if photometric.startswith("YBR"):
            samples = convert_color_space(samples, photometric, "RGB")
    if photometric == "PALETTE COLOR":
        samples = apply_color_lut(samples, dataset)
    if samples.ndim != 3 or samples.shape[2] != 3 or samples.dtype.kind != "u":
        raise CorruptImageError("the object says three samples per pixel, but its frame has not")
    return samples
