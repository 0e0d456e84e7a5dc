"""What the benchmarks send: real radiographs at the size and depth of a detector, in each syntax.

The bundled radiographs are small; here they are enlarged to 2828 x 2320 pixels of 12 bits and get
grain, without which they would compress far better than what detectors deliver: losslessly stored
as JPEG 2000 one comes to about 6 MB. Beside them lie PNGs of 1024 x 1024 pixels of 8 bits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import uid

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import dicom, png  # lies beside the tests, as above

Array = npt.NDArray[Any]

ROOT = Path(__file__).parent.parent
SOURCES = ("frontal-0003.jpg", "lateral-0010.jpg", "frontal-0502.jpg", "lateral-0048.jpg")
ROWS, COLUMNS = 2828, 2320
SIDE = 1024
GRAIN = 35.0  # standard deviation, of 4096 grey levels
PNG_GRAIN = 1.0  # of 256
SYNTAXES: dict[str, str] = {
    "uncompressed": uid.ExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg2000": uid.JPEG2000Lossless,
    "htj2k": uid.HTJ2KLossless,
    "jpeg-lossless": uid.JPEGLosslessSV1,
    "jpeg-12bit": uid.JPEGExtended12Bit,
    "jpeg-baseline": uid.JPEGBaseline8Bit,
    "jpeg-ls": uid.JPEGLSLossless,
}
NAMES = (*SYNTAXES, "png")
# Change this name with any change to the content of a file, so that no old file is used
FOLDER = Path(tempfile.gettempdir()) / "cxrview-bench-inputs-1"

Bodies = dict[str, list[Path]]


def bodies(names: tuple[str, ...] = NAMES, folder: Path = FOLDER) -> Bodies:
    """By syntax, one file an image; made once and kept, as some encoders are slow."""
    folder.mkdir(exist_ok=True)
    found: Bodies = {name: [] for name in names}
    for number, source in enumerate(SOURCES):
        wanted = {name: folder / f"{name}-{number}" for name in names}
        missing = {name: path for name, path in wanted.items() if not path.exists()}
        if missing:
            _make(source, number, missing)
        for name, path in wanted.items():
            found[name].append(path)
    return found


def _make(source: str, seed: int, wanted: dict[str, Path]) -> None:
    large, small = _enlarged(source, seed)
    for name, path in wanted.items():
        if name == "png":
            data = png(small)
        elif name == "jpeg-baseline":
            data = dicom((large >> 4).astype(np.uint8), SYNTAXES[name])
        else:
            data = dicom(large, SYNTAXES[name])
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(data)
        unfinished.rename(path)


def _enlarged(source: str, seed: int) -> tuple[Array, Array]:
    """(ROWS, COLUMNS) uint16 of 12 bits, and (SIDE, SIDE) uint8."""
    random = np.random.default_rng(seed)
    with Image.open(ROOT / "tests" / "data" / source) as opened:
        grey = opened.convert("L").convert("F")
    large = np.asarray(grey.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)) * 16
    large = np.rint(large + random.normal(0, GRAIN, large.shape)).clip(0, 4095)
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    small = np.rint(small + random.normal(0, PNG_GRAIN, small.shape)).clip(0, 255)
    return large.astype(np.uint16), small.astype(np.uint8)
