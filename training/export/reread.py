"""`reread`: a published model behind another preprocessing, if that changes no answer."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model_store import ModelCard, ModelVersion, PreprocessSpec, Store, load_published
from service.imaging import image_to_tensor
from training.data.manifest import Row, read_images, read_manifest
from training.evaluate.calibration import Doubles
from training.evaluate.metrics import sources_of
from training.evaluate.onnx_predictors import heads_predictor
from training.export.publication import STORE, refuse_existing, version_number
from training.export.recalibrate import pfi_of

# Of a PFI. More, and the parent's figures are not those of the new version
MAX_DIFFERENCE = 0.02
SHOWN = 20  # images that moved most


class Reread(NamedTuple):
    """The new version, not yet in a store, and what to tell of it."""

    version: ModelVersion
    text: str


def reread(
    parent: ModelVersion,
    preprocess_version: int,
    manifest: Path,
    images: Path,
    *,
    version: str,
    command: str,
    max_difference: float = MAX_DIFFERENCE,
) -> Reread:
    """Give a published model another version of the preprocessing; its weights and cutoffs stay.

    Args:
        parent: As `Store.load` returned it.
        preprocess_version: See `PreprocessSpec`.
        manifest: CSV of ordinary radiographs, as `read_manifest` takes it.
        images: Zip or folder that its files lie in.
        version: Of the new version, as 1.1.0.
        command: The command line, for the card.
        max_difference: Of any PFI, 0..1.

    Raises:
        ValueError: An answer changes, or a PFI by more than `max_difference`.
        ManifestError: The manifest or its images cannot be used.
        NetworkError: The parent does not answer its probe.
    """
    rows = read_manifest(manifest)
    old = parent.card.preprocess
    spec = PreprocessSpec.model_validate(old.model_dump() | {"version": preprocess_version})
    tensors, others = (read_images(rows, images, each).tensors for each in (old, spec))
    before = pfi_of(parent, tensors)
    after, changed = before.copy(), (tensors != others).any(axis=(1, 2, 3))
    if changed.any():
        after[changed] = pfi_of(parent, others[changed])
    text = "\n".join(describe(parent, rows, before, after))
    threshold, difference = parent.card.threshold, float(np.abs(after - before).max())
    if ((before >= threshold) != (after >= threshold)).any() or difference > max_difference:
        raise ValueError(f"the answers are not the same\n{text}")
    sources = ", ".join(sources_of(rows))
    limitation = (
        f"The figures were measured with preprocessing {old.version}. With {spec.version}, no "
        f"answer to {len(rows)} ordinary radiographs of {sources} changed, and no PFI by "
        f"more than {difference:.4f}; images that trained the network are among them."
    )
    card = _card(parent, spec, limitation, version=version, command=command)
    return Reread(ModelVersion(card, parent.model, parent.probe), text)


def _card(
    parent: ModelVersion, spec: PreprocessSpec, limitation: str, *, version: str, command: str
) -> ModelCard:
    answers = heads_predictor(parent.model)(image_to_tensor(parent.probe, spec)[np.newaxis])
    card = parent.card.model_copy(
        update={
            "version": version,
            "created": datetime.now(UTC).replace(microsecond=0),
            "preprocess": spec,
            "limitations": (*parent.card.limitations, limitation),
            "derived_from": parent.reference,
            "probe_pfi": float(answers.pop("pfi")[0]),
            "probe_outputs": {name: np.ravel(own).tolist() for name, own in answers.items()},
            "publish_command": command,
        }
    )
    return ModelCard.model_validate(card.model_dump())


def describe(
    parent: ModelVersion, rows: Sequence[Row], before: Doubles, after: Doubles
) -> Iterator[str]:
    """What changes, a line each: the images that move most last."""
    threshold, moved = parent.card.threshold, np.abs(after - before)
    changed = int(((before >= threshold) != (after >= threshold)).sum())
    yield f"{len(rows)} images of {', '.join(sources_of(rows))}, answered by {parent.reference}"
    yield f"answers that change: {changed}"
    yield f"largest difference of a PFI: {moved.max():.4f}; over 0.01: {int((moved > 0.01).sum())}"
    for at in np.argsort(moved)[-SHOWN:]:
        yield f"  {rows[at].file} ({rows[at].view}): {before[at]:.4f} -> {after[at]:.4f}"


def add_command(commands: Any) -> None:
    """`reread`, among the commands of `python -m training`."""
    command = commands.add_parser(
        "reread", help="publish the same weights behind another preprocessing, if no answer changes"
    )
    command.add_argument("model", metavar="NAME/VERSION", help="the published version")
    command.add_argument("--preprocess", type=int, choices=(1, 2), required=True)
    command.add_argument("--manifest", type=Path, required=True, help="CSV of ordinary radiographs")
    command.add_argument("--images", type=Path, required=True, help="zip or folder they lie in")
    command.add_argument(
        "--version", type=version_number, required=True, help="as 1.1.0; immutable once published"
    )
    command.add_argument(
        "--max-difference", type=float, default=MAX_DIFFERENCE, help="of any PFI, 0..1"
    )
    command.add_argument("--store", type=Path, default=STORE, help="where it goes")
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    store = Store(options.store)
    refuse_existing(f"{options.model.split('/')[0]}/{options.version}", store)
    found = reread(
        load_published(options.model, store),
        options.preprocess,
        options.manifest,
        options.images,
        version=options.version,
        command=options.command_line,
        max_difference=options.max_difference,
    )
    folder = store.add(found.version)
    print(f"{found.text}\npublished {found.version.reference} in {folder}")  # noqa: T201  # a command
