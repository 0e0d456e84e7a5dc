"""`gallery`: a page of the images that a model answers wrongly, with what it saw in them."""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from model_store import Decision, ModelVersion, Prediction, Store, load_published
from service.imaging import Tensor
from service.inference import Network, open_network
from training.data.manifest import Row, read_images, read_manifest
from training.evaluate.metrics import SERVING_BATCH
from training.export.publication import STORE

MOST = 60  # images of a section, the most certain errors first
SHOWN = 192  # pixels of a picture's side
STRONG = 8.0  # logits of evidence that are shown in full colour
FRONTAL, LATERAL = (230, 90, 30), (40, 120, 230)  # red, green, blue of the evidence


class Wrong(NamedTuple):
    """One wrong answer."""

    kind: str  # the section
    certainty: float  # probability that the model gave to its wrong answer, 0..1
    row: Row
    at: int  # of the image in the set


class Entry(NamedTuple):
    """A picture of the page."""

    picture: str  # data URI
    evidence: str | None  # data URI of the same with the map of evidence; None: the model has none
    caption: str


def errors_of(row: Row, at: int, prediction: Prediction, decision: Decision) -> Iterator[Wrong]:
    """What is wrong in the answer to one image.

    Args:
        row: What is right. Orientation is judged of upright radiographs only.
        at: The image's place in the set.
        prediction: Of the model.
        decision: Of its card.
    """
    is_chest = row.view != "not_chest"
    if prediction.chest is not None and (decision.view != "not_chest") != is_chest:
        kind = "called no chest radiograph" if is_chest else "called a chest radiograph"
        yield Wrong(kind, prediction.chest if not is_chest else 1 - prediction.chest, row, at)
    elif is_chest and decision.view != row.view:
        pfi = prediction.pfi
        yield Wrong(f"called {decision.view}", max(pfi, 1 - pfi), row, at)
    lies = decision.orientation
    if lies is None or not is_chest or not row.is_upright:
        return
    if lies.rotation_degrees:
        yield Wrong("called turned", lies.rotation_probability or 0, row, at)
    if lies.inverted:
        yield Wrong("called inverted", lies.inverted_probability or 0, row, at)
    if lies.mirrored:
        yield Wrong("called mirrored", lies.mirrored_probability or 0, row, at)


def write_gallery(version: ModelVersion, manifest: Path, images: Path, out: Path) -> dict[str, int]:
    """Classify all images of a manifest, and write a page of the wrong answers.

    Args:
        version: As `Store.load` returned it.
        manifest: CSV, as `read_manifest` takes it; with not_chest if the model has that head.
        images: Zip or folder that its files lie in.
        out: The HTML file. It holds the pictures: share it only as their licences allow.

    Returns:
        The number of wrong answers by section.

    Raises:
        ManifestError: The manifest or its images cannot be used.
        NetworkError: The model does not answer its probe.
    """
    card = version.card
    rows = read_manifest(manifest, negatives=card.heads.chest is not None)
    tensors = read_images(rows, images, card.preprocess).tensors
    network = open_network(version)
    wrong: dict[str, list[Wrong]] = {}
    for start in range(0, len(rows), SERVING_BATCH):
        predictions = network.run(tensors[start : start + SERVING_BATCH])
        for at, prediction in enumerate(predictions, start):
            decision = card.decide(prediction)
            for error in errors_of(rows[at], at, prediction, decision):
                wrong.setdefault(error.kind, []).append(error)
    sections = {
        kind: [_entry(error, tensors[error.at], network) for error in _worst(own)]
        for kind, own in sorted(wrong.items())
    }
    counts = {kind: len(own) for kind, own in sorted(wrong.items())}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    template = environment.get_template("gallery.html.jinja")
    text = template.render(
        model=version.reference, images=len(rows), sections=sections, counts=counts, most=MOST
    )
    out.write_text(text + "\n", encoding="utf-8")
    return counts


def overlaid(
    picture: npt.NDArray[np.uint8], evidence: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """The picture, coloured where the model saw evidence.

    Args:
        picture: (S, S) grey.
        evidence: (h, w), in logits: positive speaks for frontal.

    Returns:
        (S, S, 3) red, green, blue.
    """
    size = (picture.shape[1], picture.shape[0])
    smooth = np.asarray(Image.fromarray(evidence).resize(size, Image.Resampling.BILINEAR))
    colour = np.where(smooth[..., None] > 0, FRONTAL, LATERAL)
    strength = 0.6 * np.minimum(np.abs(smooth) / STRONG, 1)[..., None]
    blended = picture[..., None] * (1 - strength) + colour * strength
    return np.asarray(blended.round(), dtype=np.uint8)


def _worst(wrong: Sequence[Wrong]) -> list[Wrong]:
    return sorted(wrong, key=lambda error: error.certainty, reverse=True)[:MOST]


def _entry(error: Wrong, tensor: Tensor, network: Network) -> Entry:
    picture = np.asarray(Image.fromarray(tensor[0]).resize((SHOWN, SHOWN)))
    evidence = None
    if network.version.card.heads.evidence:
        evidence = _uri(overlaid(picture, network.evidence(tensor)))
    row = error.row
    caption = f"{error.certainty:.4f}; is {row.view}; {row.source}; {row.file}"
    return Entry(_uri(picture), evidence, caption)


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def add_command(commands: Any) -> None:
    """`gallery`, among the commands of `python -m training`."""
    command = commands.add_parser(
        "gallery", help="a page of the images that a published model answers wrongly"
    )
    command.add_argument("model", metavar="NAME/VERSION", help="the published version")
    command.add_argument("--manifest", type=Path, required=True, help="CSV of labelled images")
    command.add_argument("--images", type=Path, required=True, help="zip or folder they lie in")
    command.add_argument("--out", type=Path, default=Path("gallery.html"))
    command.add_argument("--store", type=Path, default=STORE, help="where the version is")
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    version = load_published(options.model, Store(options.store))
    counts = write_gallery(version, options.manifest, options.images, options.out)
    for kind, count in counts.items():
        print(f"{count} {kind}")  # noqa: T201  # a command
    print(f"{sum(counts.values())} wrong answers in {options.out}")  # noqa: T201
