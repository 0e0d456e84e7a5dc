"""One picture, one PFI: how far it moves with the file format and the transfer syntax.

    python benchmarks/forms.py RADIOGRAPHS [--images 200] [--model NAME/VERSION]

RADIOGRAPHS is a zip with manifest.csv beside it, or a folder of JPEGs whose names begin with their
view. Each picture is written in 8 bits and in 12, in every form that can hold it, and compared with
its PNG of 8 bits.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from kinds import radiographs

from model_store import DEFAULT_MODEL, Prediction, Store
from service.imaging import image_to_tensor
from service.inference import Network, open_network

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import CODECS, NATIVE, Array, dicom, jpeg, png, tiff
from pydicom import uid

NEAR = 0.01  # of a PFI
ONLY_8, ONLY_12 = {uid.JPEGBaseline8Bit}, {uid.JPEGExtended12Bit}


def forms(grey: Array) -> Iterator[tuple[str, bytes]]:
    """A picture of 8 bits, (rows, columns) uint8, as its name and its file in every form."""
    fine = grey.astype(np.uint16) << 4
    yield "PNG, 16 bits", png(grey.astype(np.uint16) * 257)
    yield "TIFF, 8 bits", tiff(grey)
    for quality in (95, 75):
        yield f"JPEG, quality {quality}", jpeg(grey, quality)
    yield "DICOM, MONOCHROME1, 12 bits", dicom(4095 - fine, PhotometricInterpretation="MONOCHROME1")
    for syntax in (*NATIVE, uid.RLELossless, *CODECS):
        name = f"DICOM, {uid.UID(syntax).keyword}"
        if syntax not in ONLY_12:
            yield f"{name}, 8 bits", dicom(grey, syntax)
        if syntax not in ONLY_8:
            yield f"{name}, 12 bits", dicom(fine, syntax)


def main() -> None:
    """Print the largest difference of each form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("radiographs", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    version = Store().load(options.model)
    network, decide = open_network(version), version.card.decide
    moved = defaultdict[str, list[float]](list)
    for one in radiographs(options.radiographs, options.images):
        grey = np.asarray(one.grey)
        plain = predict(network, png(grey))
        for name, data in forms(grey):
            other = predict(network, data)
            moved[name].append(abs(other.pfi - plain.pfi))
            if decide(other).view != decide(plain).view:
                print(f"{one.name}: another view as {name}, {plain.pfi:.3f} and {other.pfi:.3f}")
    for name, values in moved.items():
        far = sum(value > NEAR for value in values)
        print(f"{name:50} n {len(values)}, at most {max(values):.4f}, over {NEAR}: {far}")


def predict(network: Network, data: bytes) -> Prediction:
    """What a model says of a file."""
    (found,) = network.run(image_to_tensor(data, network.version.card.preprocess)[np.newaxis])
    return found


if __name__ == "__main__":
    main()
