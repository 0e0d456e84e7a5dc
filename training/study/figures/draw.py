"""The report's radiographs, and all figures drawn from a study's results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from service.imaging import image_to_tensor
from training.augmentation.figure6 import FIGURE_6
from training.augmentation.image_files import transform
from training.data.manifest import image_reader
from training.evaluate.cutoff import logit
from training.evaluate.metrics import Predict
from training.study.config import Study
from training.study.data import Radiographs
from training.study.figures import plots
from training.study.figures.flow import fig1_flow
from training.study.figures.occlusion import occlusion_map
from training.study.figures.radiographs import (
    Picture,
    fig4_examples,
    fig6_transformed,
    fig8_gallery,
)
from training.study.figures.style import save
from training.study.report.document import bounded
from training.study.results import Results, TestImage

EXAMPLES = 8  # radiographs of Figure 4
TRANSFORMED = 4  # radiographs of Figure 6


def draw(
    study: Study, radiographs: Radiographs, results: Results, predict: Predict, folder: Path
) -> None:
    """Write all figures as PNG and SVG; those of radiographs only if some may be shown.

    `predict` ranks images and finds what mattered in them; its PFIs are shown nowhere.
    """
    middle, high = (each.threshold for each in results.assessed)
    point = next(a for a in results.assessed if a.rule == study.assess.rule)
    calibration = results.calibration
    found: dict[str, Figure] = {
        "fig1-flow": fig1_flow(results.flow),
        "fig2-candidates": plots.fig2_candidates(results.candidates, results.chosen),
        "fig3-pfi": plots.fig3_pfi(results.test_images, point.threshold, results.review.band),
        "fig5-youden": plots.fig5_youden(results.curves, results.plateau, middle, high),
        "fig7-reliability": plots.fig7_reliability(
            calibration.reliability_before,
            calibration.reliability_after,
            calibration.ece_grid_before,
            calibration.ece_grid_after,
        ),
        "fig9-leakage": plots.fig9_leakage(results.leakage),
    }
    shown = [i for i in results.test_images if re.match(study.figures.licences, i.licence)]
    if shown:
        gallery = _gallery(study, radiographs, shown, predict, point.threshold)
        found |= {
            "fig4-examples": fig4_examples(_examples(radiographs, shown)),
            "fig6-transformed": fig6_transformed(_transformed(study, shown, point.threshold)),
            "fig8-gallery": fig8_gallery(gallery),
        }
    for name, figure in found.items():
        save(figure, folder, name)


def _examples(radiographs: Radiographs, shown: Sequence[TestImage]) -> list[Picture]:
    """As many of each view, evenly spread over its PFIs."""
    chosen = [*_spread(shown, "frontal", EXAMPLES // 2), *_spread(shown, "lateral", EXAMPLES // 2)]
    tensors = _tensors(radiographs, chosen)
    return [_picture(image, pixels) for image, pixels in zip(chosen, tensors, strict=True)]


def _spread(shown: Sequence[TestImage], view: str, count: int) -> list[TestImage]:
    own = sorted((image for image in shown if image.view == view), key=lambda image: image.pfi)
    places = np.unique(np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int))
    return [own[place] for place in places]


def _tensors(radiographs: Radiographs, images: Iterable[TestImage]) -> list[npt.NDArray[np.uint8]]:
    place = {row.file: i for i, row in enumerate(radiographs.rows)}
    return [radiographs.images.tensors[place[image.file], 0] for image in images]


def _picture(
    image: TestImage,
    pixels: npt.NDArray[np.uint8],
    parts: npt.NDArray[np.float64] | None = None,
    *,
    wrong: bool = False,
) -> Picture:
    licence = image.licence.split("(")[0].strip()
    file = image.file.replace("/", "/ ")  # so that the line may break there
    caption = f"PFI {bounded(image.pfi, 4)}; {file}, {licence}"
    return Picture(image.view, pixels, caption, parts, wrong)


def _transformed(study: Study, shown: Sequence[TestImage], threshold: float) -> list[list[Picture]]:
    """Half of each view: the images whose worst transformation is worst, by logit."""

    def margin(image: TestImage) -> float:
        sign = 1 if image.view == "frontal" else -1
        return min(sign * (logit(pfi) - logit(threshold)) for pfi in image.transformed.values())

    chosen: list[TestImage] = []
    for view in ("frontal", "lateral"):
        own = sorted((image for image in shown if image.view == view), key=margin)
        chosen += own[: TRANSFORMED // 2]
    read = image_reader(study.data.images)
    rows = []
    for image in chosen:
        data = read(image.file)
        row = [_picture(image, image_to_tensor(data, study.preprocess)[0])]
        for name, change in FIGURE_6.items():
            pfi = image.transformed[name]
            wrong = (pfi >= threshold) != (image.view == "frontal")
            pixels = image_to_tensor(transform(data, change), study.preprocess)[0]
            row.append(Picture(name, pixels, f"PFI {bounded(pfi, 4)}", None, wrong))
        rows.append(row)
    return rows


def _gallery(
    study: Study,
    radiographs: Radiographs,
    shown: Sequence[TestImage],
    predict: Predict,
    threshold: float,
) -> list[Picture]:
    """Wrong images first, then the least certain: those nearest the middle in logits."""
    files = [image.file for image in shown]
    tensors = dict(zip(files, _tensors(radiographs, shown), strict=True))
    pfi = predict(np.stack(list(tensors.values()))[:, np.newaxis])
    soft = dict(zip(files, pfi.tolist(), strict=True))

    def wrong(image: TestImage) -> bool:
        return (image.pfi >= threshold) != (image.view == "frontal")

    def rank(image: TestImage) -> tuple[bool, float]:
        return not wrong(image), abs(logit(soft[image.file]))

    chosen = sorted(shown, key=rank)[: study.assess.gallery]
    return [
        _picture(
            image,
            tensors[image.file],
            _mattered(occlusion_map(predict, tensors[image.file][np.newaxis])),
            wrong=wrong(image),
        )
        for image in chosen
    ]


def _mattered(parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much each part mattered, for either view, as a share of the part that mattered most."""
    size: npt.NDArray[np.float64] = np.abs(parts)
    return size / max(float(size.max()), 1e-9)
