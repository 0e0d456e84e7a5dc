"""`calibrate`: a published model's cutoff and review band, fitted anew on a site's own images."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from model_store import (
    Evaluation,
    HeadCutoff,
    HeadEvaluation,
    Heads,
    ModelCard,
    ModelVersion,
    ReviewBound,
    SiteReport,
    Store,
    View,
    load_published,
)
from service.inference import open_network
from training.data.manifest import Row, labels_of, read_images, read_manifest, views_of
from training.evaluate.calibration import (
    Doubles,
    refuse_unattainable,
    review_band_for,
    with_plateau,
)
from training.evaluate.cutoff import (
    HEADS_MARGIN,
    Rule,
    choose_threshold,
    does_as_well,
    youden_plateau,
)
from training.evaluate.heads import HeadImages, as_heads_table, fit_heads, head_rows
from training.evaluate.metrics import (
    OperatingPoint,
    evaluate,
    in_batches,
    proportion,
)
from training.evaluate.onnx_predictors import heads_predictor
from training.export.publication import STORE, model_name, refuse_existing, version_number
from training.export.site_report import Reading, Site, describe, report_of

FEWEST_IMAGES = 50  # below it, the cutoff is one patient's more or less
FEWEST_OF_A_VIEW = 10  # images and patients: one for each fold
FOLDS = 10

FITTED_ON = "Cutoff and review band were fitted on"  # how the card's sentence on it begins
NOTE = (
    "these images chose the cutoff: each is answered with a cutoff fitted on the patients of the "
    "other folds; `review` is of the published band. No test of an independent set"
)
FEWEST_OTHERS = 10  # patients whose images are not_chest; with fewer, the cutoff of `chest` stays
CHOSEN_HERE = "these images chose the cutoff: no test"


class Recalibrated(NamedTuple):
    """The new version, not yet in a store, and what to tell of it."""

    version: ModelVersion
    text: str
    report: SiteReport


def calibrate(
    parent: ModelVersion,
    manifest: Path,
    images: Path,
    *,
    name: str,
    version: str,
    rule: Rule,
    error_bound: float,
    confidence: float,
    command: str,
) -> Recalibrated:
    """Fit cutoff and review band of a published model on some 50 to 200 labelled images.

    Weights, probe and temperature stay; nothing is trained. Of a model with several heads, all
    cutoffs are fitted; that of `chest` stays unless enough images speak against it.

    Args:
        parent: As `Store.load` returned it.
        manifest: CSV, as `read_manifest` takes it.
        images: Zip or folder that its files lie in.
        name: Of the new version.
        version: As 1.0.1.
        rule: Which point of the Youden plateau is the cutoff.
        error_bound: Of the answers outside the review band, 0..1.
        confidence: That the bound holds, 0..1.
        command: The command line, for the card.

    Raises:
        ValueError: Too few images, of all, of a view or for the bound; or a name that is none.
        ManifestError: The manifest or its images cannot be used.
        NetworkError: The parent does not answer its probe.
    """
    given = read_manifest(manifest, negatives=parent.card.heads.chest is not None)
    rows = views_of(given)
    _refuse_too_few(rows)
    refuse_unattainable(len(rows), error_bound, confidence)  # before all images are read
    tensors = read_images(given, images, parent.card.preprocess).tensors
    has_view = [row.view != "not_chest" for row in given]
    site = Site(rows, labels_of(rows), pfi_of(parent, tensors[has_view]))
    reading = _read(site, rule, error_bound, confidence)
    row = crossfitted_row(site, reading)
    heads, of_heads = _read_heads(parent, given, images)
    card = _card(parent, site, reading, row, name=name, version=version, publish_command=command)
    card = card.model_copy(update={"heads": heads, "head_evaluations": tuple(of_heads)})
    text = describe(parent, site, reading, row)
    report = report_of(parent.card, card, site, reading, row)
    if of_heads:
        text += f"\n{_cutoffs_of_heads(report)}\n{as_heads_table(of_heads)}"
    return Recalibrated(ModelVersion(card, parent.model, parent.probe), text, report)


def pfi_of(version: ModelVersion, tensors: npt.NDArray[np.uint8]) -> Doubles:
    """(N, 1, S, S) uint8 -> (N,) PFI, as the service would answer."""
    network = open_network(version)
    return in_batches(network.pfi, tensors).astype(np.float64)


def crossfitted_row(site: Site, reading: Reading) -> Evaluation:
    """What a cutoff fitted so is worth on images that did not fit it; patients are kept whole."""
    called = np.zeros(len(site.rows), dtype=bool)
    patients = [row.patient_id for row in site.rows]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for rest, part in folds.split(site.pfi, site.labels, patients):
        plateau = youden_plateau(site.pfi[rest], site.labels[rest], "all folds but one")
        called[part] = site.pfi[part] >= choose_threshold(plateau, reading.rule)
    name = f"calibration images ({site.name}), cutoff cross-fitted {FOLDS}-fold"
    point = OperatingPoint(reading.threshold, reading.review.band)
    truth = site.labels == 1
    correct = called == truth
    right = {"accuracy": correct, "sensitivity": correct[truth], "specificity": correct[~truth]}
    return evaluate(name, site.pfi.astype(np.float32), site.rows, point, NOTE).model_copy(
        update={key: proportion(int(of.sum()), len(of)) for key, of in right.items()}
    )


def old_chest_stays(old: HeadCutoff | None, found: HeadCutoff | None, rows: Sequence[Row]) -> bool:
    """Whether a site's images give no reason for another cutoff of `chest`.

    Few other images, or easy ones, would move it far.

    Args:
        old: Of the published version.
        found: On the site's images; None without any that is not_chest.
        rows: Of these images.
    """
    if old is None or found is None:
        return True
    others = {row.patient_id for row in rows if row.view == "not_chest"}
    return len(others) < FEWEST_OTHERS or does_as_well(found.plateau, old.threshold)


def add_command(commands: Any) -> None:
    """`calibrate`, among the commands of `python -m training`."""
    command = commands.add_parser(
        "calibrate", help="fit cutoff and review band of a published model on a site's images"
    )
    command.add_argument("model", metavar="NAME/VERSION", help="the published version")
    command.add_argument("--manifest", type=Path, required=True, help="CSV of labelled images")
    command.add_argument("--images", type=Path, required=True, help="zip or folder they lie in")
    command.add_argument(
        "--version", type=version_number, required=True, help="as 1.0.1; immutable once published"
    )
    command.add_argument(
        "--name", type=model_name, help="of the new version; else that of the published one"
    )
    command.add_argument("--rule", choices=get_args(Rule), default="middle")
    command.add_argument(
        "--error-bound",
        type=float,
        default=0.05,
        help="of answers outside the review band; the default needs 59 images, 0.06 needs 49",
    )
    command.add_argument("--confidence", type=float, default=0.95, help="that the bound holds")
    command.add_argument(
        "--store",
        type=Path,
        default=STORE,
        help="where the new version goes, and the published one is, if not in the package",
    )
    command.add_argument(
        "--report", type=Path, metavar="FILE", help="JSON: cutoffs, bands and errors, old and new"
    )
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    if options.report is not None:
        if not options.report.parent.is_dir():
            raise ValueError(f"--report: {options.report.parent} is no folder")
        if options.report.is_dir():
            raise ValueError(f"--report: {options.report} is a folder, not a file")
    store = Store(options.store)
    refuse_existing(f"{options.name or options.model.split('/')[0]}/{options.version}", store)
    parent = load_published(options.model, store)
    found = calibrate(
        parent,
        options.manifest,
        options.images,
        name=options.name or parent.card.name,
        version=options.version,
        rule=options.rule,
        error_bound=options.error_bound,
        confidence=options.confidence,
        command=options.command_line,
    )
    folder = store.add(found.version)
    if options.report is not None:
        options.report.write_text(found.report.model_dump_json(indent=2) + "\n")
    print(f"{found.text}\npublished {found.version.reference} in {folder}")  # noqa: T201  # a command


def _refuse_too_few(rows: Sequence[Row]) -> None:
    views = Counter(row.view for row in rows)
    patients = Counter(view for view, _ in {(row.view, row.patient_id) for row in rows})
    short = [view for view in get_args(View) if patients[view] < FEWEST_OF_A_VIEW]
    if len(rows) < FEWEST_IMAGES or short:
        given = " and ".join(
            f"{views[view]} {view} images of {patients[view]} patients" for view in get_args(View)
        )
        raise ValueError(
            f"a cutoff needs {FEWEST_IMAGES} labelled images, and of either view images of "
            f"{FEWEST_OF_A_VIEW} patients; there are {len(rows)}: {given}"
        )


def _read(site: Site, rule: Rule, error_bound: float, confidence: float) -> Reading:
    plateau = youden_plateau(site.pfi, site.labels, site.name)
    threshold = choose_threshold(plateau, rule)
    review = review_band_for(
        site.pfi, site.labels, threshold, error_bound, confidence, measured_on=site.name
    )
    return Reading(rule, plateau, threshold, with_plateau(review, plateau))


def _read_heads(
    parent: ModelVersion, rows: Sequence[Row], images: Path
) -> tuple[Heads, list[HeadEvaluation]]:
    """The cutoffs of all heads beside that of the view, and what they are worth on these images."""
    old = parent.card.heads
    if old == Heads():
        return old, []
    shown = HeadImages.read(rows, images, parent.card.preprocess)
    predict = heads_predictor(parent.model)
    found = fit_heads(predict, shown, HEADS_MARGIN, "images of the site")
    stays = old_chest_stays(old.chest, found.chest, rows)
    if stays:
        found = found.model_copy(update={"chest": old.chest})
    report = head_rows("calibration images", predict, shown, found)
    not_chosen = "chest" if stays else None
    return found, [
        row if row.task == not_chosen else row.model_copy(update={"note": CHOSEN_HERE})
        for row in report
    ]


def _cutoffs_of_heads(report: SiteReport) -> str:
    old, new = report.before.heads, report.after.heads
    return "\n".join(
        f"{name}: cutoff {old[name].cutoff:.4f} -> {after.cutoff:.4f}"
        + (", which stays" if old[name] == after else "")
        for name, after in new.items()
        if name in old
    )


def _card(
    parent: ModelVersion, site: Site, reading: Reading, row: Evaluation, **given: str
) -> ModelCard:
    old, review = parent.card, reading.review
    kept = [sentence for sentence in old.limitations if not sentence.startswith(FITTED_ON)]
    limitation = (
        f"{FITTED_ON} {site.name}; the test results of {parent.reference} hold for its cutoff, "
        f"{old.threshold:.4f}, only."
    )
    changes = {
        "created": datetime.now(UTC).replace(microsecond=0),
        "limitations": (*kept, limitation),
        "threshold": reading.threshold,
        "threshold_rule": reading.rule,
        "plateau": reading.plateau.model_dump(),
        "review_margin_logits": 0.0,
        "review_band": review.band.model_dump(),
        "review_error_bound": ReviewBound(
            **review.model_dump(include=set(ReviewBound.model_fields))
        ),
        "evaluations": (row,),
        "calibrated_from": parent.reference,
    }
    return ModelCard.model_validate(old.model_dump() | changes | given)
