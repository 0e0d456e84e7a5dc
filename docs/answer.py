"""Draw answer.png, the picture in the README: a radiograph, its header, and the answer.

python docs/answer.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from model_store import DEFAULT_MODEL, Store
from service.imaging import read_radiograph
from service.imaging.dicom import read_dicom
from service.inference import Classification, open_network

HERE = Path(__file__).parent
IMAGE = HERE.parent / "tests" / "data" / "lateral-0013-header-says-pa.dcm"
INK, MUTED, ACCENT = "#1b1f24", "#57606a", "#b35900"


def main() -> None:
    """Classify and draw."""
    data = IMAGE.read_bytes()
    network = open_network(Store().load(DEFAULT_MODEL))
    card = network.version.card
    radiograph = read_radiograph(data, card.preprocess)
    (prediction,) = network.run(radiograph.tensor[np.newaxis])
    answer = Classification.of(radiograph, prediction, card).model_dump()
    answer["pfi"] = round(prediction.pfi, 6)
    answer["threshold"] = round(card.threshold, 6)
    answer["sop_instance_uid"] = answer["sop_instance_uid"][:14] + "..."
    answer["model"]["sha256"] = answer["model"]["sha256"][:12] + "..."

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.4, 4.4), dpi=150, width_ratios=(0.49, 0.51), facecolor="white"
    )
    left.imshow(read_dicom(data, 2**31).picture.pixels, cmap="gray")
    left.set_title("what the header says:  View Position = PA", fontsize=9.5, color=MUTED)
    left.axis("off")
    right.axis("off")
    right.set_title("what cxrview answers", fontsize=9.5, color=MUTED)
    lines = json.dumps(answer, indent=2).splitlines()
    for number, line in enumerate(lines):
        telling = any(key in line for key in ('"view":', '"pfi"', '"agrees"'))
        right.text(
            0.02,
            0.98 - number / (len(lines) + 1),
            line,
            family="monospace",
            fontsize=8,
            va="top",
            color=ACCENT if telling else INK,
            weight="bold" if telling else "normal",
        )
    figure.tight_layout()
    figure.savefig(HERE / "answer.png")


if __name__ == "__main__":
    main()
