"""`derive`: a published model in other numbers, tested at its parent's cutoff."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from model_store import (
    Evaluation,
    ModelCard,
    ModelVersion,
    Store,
    load_published,
)
from model_store.store import sha256
from service.imaging import image_to_tensor
from training.evaluate.metrics import Pfi, as_table
from training.evaluate.onnx_predictors import heads_predictor, predictor
from training.export.publication import (
    STORE,
    PublishError,
    model_name,
    refuse_existing,
    version_number,
)
from training.export.publish import export
from training.export.quantize.convert import (
    Form,
    convert,
    differences,
)
from training.export.test_report import TEST, TestReport, heads_report
from training.networks.googlenet import PfiNetwork
from training.networks.heads import PredictionNetwork
from training.train.evaluation_rows import crossing_rows, test_rows
from training.train.finished import open_run
from training.train.settings import FitSettings

IN_WORDS: dict[Form, str] = {
    "int8": "8-bit integers (weights 7) but for first convolution and normalisations",
    "fp16": "half precision but for the classifier",
}
# Roundings fall otherwise on another processor, and on a GPU at each layer of half precision
PROBE_TOLERANCE = 5e-3


def derive(
    parent: ModelVersion,
    form: Form,
    run: Path,
    crossing: Path | None,
    *,
    name: str,
    version: str,
    limitations: tuple[str, ...],
    command: str,
) -> ModelVersion:
    """Convert a published version, and test it as `test` did.

    It is the same network, whose answers are to be the same: so it keeps its parent's cutoff and
    review band, and is tested at them. The rows of other sources are of the crossing runs'
    networks, each converted in the same way, calibrated on its own training images, and tested at
    the cutoff it had.

    Args:
        parent: As `Store.load` returned it.
        form: Which numbers.
        run: The tested run that the parent was published from.
        crossing: The folder of tested runs of `cross-source`; None: no such rows.
        name: Of the new version.
        version: As 1.0.0.
        limitations: Sentences for the card, after the parent's.
        command: The command line, for the card.

    Raises:
        PublishError: The run is not the parent's, or `crossing` holds no runs that were tested.
        ManifestError: The run's data cannot be used.
    """
    tested = _tested_report(parent, run)
    finished = open_run(run, torch.device("cpu"))
    converted = convert(parent.model, form, finished.settings)
    report = _retested(converted, form, finished.settings, tested, crossing)
    difference = differences(parent.model, converted, finished.settings)
    card = _card(
        parent,
        report,
        converted,
        (*limitations, _difference_in_words(parent, difference)),
        float(difference.max()),
        architecture=f"{parent.card.architecture}; {IN_WORDS[form]}",
        name=name,
        version=version,
        publish_command=command,
    )
    return ModelVersion(card, converted, parent.probe)


def add_command(commands: Any) -> None:
    """`derive`, among the commands of `python -m training`."""
    command = commands.add_parser(
        "derive", help="publish a model's 8-bit or half-precision form, with a card of its own"
    )
    command.add_argument("model", metavar="NAME/VERSION", help="the published version")
    command.add_argument("--form", choices=get_args(Form), required=True)
    command.add_argument("--run", type=Path, required=True, help="what it was published from")
    command.add_argument("--cross-source", type=Path, help="the run folder of `cross-source`")
    command.add_argument("--name", type=model_name, required=True)
    command.add_argument(
        "--version", type=version_number, required=True, help="as 1.0.0; immutable once published"
    )
    command.add_argument(
        "--limitation",
        action="append",
        default=[],
        metavar="SENTENCE",
        help="what the card must say besides; may be repeated",
    )
    command.add_argument("--store", type=Path, default=STORE)
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    store = Store(options.store)
    refuse_existing(f"{options.name}/{options.version}", store)
    parent = load_published(options.model, store)
    version = derive(
        parent,
        options.form,
        options.run,
        options.cross_source,
        name=options.name,
        version=options.version,
        limitations=tuple(options.limitation),
        command=options.command_line,
    )
    print(as_table(version.card.evaluations))  # noqa: T201  # a command
    print(f"published {version.reference} in {store.add(version)}")  # noqa: T201


def _retested(
    model: bytes, form: Form, settings: FitSettings, tested: TestReport, crossing: Path | None
) -> TestReport:
    """The converted network tested as its parent was, and the crossing runs' in the same form."""
    if settings.heads:
        report = heads_report(heads_predictor(model), settings, tested)
        folds = [report, *(_crossed_heads(form, each) for each in _crossings(crossing))]
        rows = [row for each in folds for row in each.evaluations]
        of_heads = [row for each in folds for row in each.head_evaluations]
        return report.with_rows(rows, of_heads)
    rows = test_rows(predictor(model), settings, tested.point)
    for each in _crossings(crossing):
        rows += _crossed(form, each)
    return tested.with_rows(rows)


def _tested_report(parent: ModelVersion, run: Path) -> TestReport:
    report = TestReport.load(run)
    if report.plateau != parent.card.plateau:
        raise PublishError(f"{parent.reference} was not published from {run}: cutoffs differ")
    return report


def _crossings(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        return
    runs = sorted(folder.glob(f"*/{TEST}"))
    if not runs:
        raise PublishError(f"{folder} holds no tested run of `cross-source`")
    for test in runs:
        yield test.parent


def _crossed(form: Form, run: Path) -> list[Evaluation]:
    finished = open_run(run, torch.device("cpu"))
    settings = finished.settings
    model = export(PfiNetwork(finished.network).eval(), settings.size)
    predict = predictor(convert(model, form, settings))
    return crossing_rows(predict, settings, TestReport.load(run).point)


def _crossed_heads(form: Form, run: Path) -> TestReport:
    finished = open_run(run, torch.device("cpu"))
    settings = finished.settings
    model = export(PredictionNetwork(finished.network, settings.heads).eval(), settings.size)
    predict = heads_predictor(convert(model, form, settings))
    return heads_report(predict, settings, TestReport.load(run))


def _difference_in_words(parent: ModelVersion, difference: Pfi) -> str:
    median, most, highest = np.quantile(difference, (0.5, 0.99, 1))
    return (
        f"Cutoff, plateau and review band are those of {parent.reference}. On "
        f"{parent.card.plateau.measured_on} (n = {len(difference)}), PFIs differ from its own by "
        f"{median:.5f} in the median, {most:.4f} at the 99th percentile, {highest:.4f} at most."
    )


def _card(
    parent: ModelVersion,
    report: TestReport,
    model: bytes,
    limitations: tuple[str, ...],
    difference: float,
    **given: str,
) -> ModelCard:
    old = parent.card
    tensor = image_to_tensor(parent.probe, old.preprocess)
    answers = heads_predictor(model)(tensor[np.newaxis])
    software = ("torch", "onnx", "onnxruntime", "numpy")
    changes = {
        "created": datetime.now(UTC).replace(microsecond=0),
        "limitations": (*old.limitations, *limitations),
        "derived_from": parent.reference,
        "evaluations": tuple(row.model_dump() for row in report.evaluations),
        "head_evaluations": tuple(row.model_dump() for row in report.head_evaluations),
        "software": {"python": platform.python_version()} | {p: version_of(p) for p in software},
        "model_sha256": sha256(model),
        "probe_pfi": float(answers.pop("pfi")[0]),
        "probe_outputs": {name: np.ravel(own).tolist() for name, own in answers.items()},
        "probe_tolerance": PROBE_TOLERANCE,
        "parity_max_abs_difference": difference,
    }
    return ModelCard.model_validate(old.model_dump() | changes | given)
