"""From a tested run to an immutable model version: export, parity, probe, card."""

from __future__ import annotations

import logging
import platform
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from model_store import DataSource, ModelCard, ModelVersion, PreprocessSpec, Proportion, Store
from model_store.store import sha256
from service.imaging import image_to_tensor
from training.data.manifest import Row, read_images
from training.export.publication import PublishError
from training.export.test_report import TEST, TestReport
from training.networks.googlenet import PfiNetwork
from training.networks.heads import PredictionNetwork
from training.train.finished import open_run
from training.train.settings import FitSettings, rows_of

PARITY_BATCHES = (1, 3, 8)
PARITY_LIMIT = 1e-4  # |PFI(torch) - PFI(ONNX Runtime)|

# Known pre-trained weights, by SHA-256
PRETRAINED = {
    "9fcc27d3a67b93e4498e33a0e089a787c1865169cb4090c0695845fd7739528a": DataSource(
        name="BVLC GoogLeNet, trained on ILSVRC-2012 (colour)",
        use="pre-training",
        licence="weights: unrestricted use; ImageNet photographs: non-commercial research",
        origin="Berkeley Vision and Learning Center, Caffe model zoo: bvlc_googlenet",
        note="colour filters folded to grey; 1000-class layer dropped, auxiliary heads fresh",
    )
}

INTENDED_USE = (
    "Sorting chest radiographs into frontal and lateral views for archives, routing and research, "
    "and finding view labels in headers that disagree with the pixels. Not a medical device: not "
    "for diagnosis, and no clinical decision may rest on it alone."
)
# Of every model of a kind; those of its data are given when it is published
OBLIQUES = "Obliques are answered as one of the two views."
LIMITATIONS = (
    "Answers frontal or lateral for any image it can read; others are not recognised as such.",
    OBLIQUES,
    "Tells neither PA from AP nor left from right lateral, nor whether an image is rotated.",
)
LIMITATIONS_OF_HEADS = (
    OBLIQUES,
    "Tells neither PA from AP nor left from right lateral.",
    "Orientation is told of the image as it is stored: a display may turn, mirror or invert it.",
    "Mirrored: told by the heart and the great vessels, so wrong in dextrocardia.",
)


# What the held-out images must show, or it is published only by force
LEAST_ACCURACY, LEAST_OF_A_CLASS = 0.98, 0.95


def publish(
    *,
    run: Path,
    name: str,
    version: str,
    probe: bytes,
    crossing: Path | None,
    limitations: tuple[str, ...],
    derived_from: str | None,
    training_command: str,
    publish_command: str,
    force: bool = False,
) -> ModelVersion:
    """Export a tested run and write its card; adding it to a store is the caller's.

    Raises:
        PublishError: The run was not tested, it is below the floors and `force` is not set, or ONNX
            Runtime disagrees with torch.
        ImageError: The probe cannot be read.
    """
    try:
        report = TestReport.load(run)
    except FileNotFoundError:
        raise PublishError(f"{run} was not tested; run `python -m training test` first") from None
    if not force:
        _check_floors(report)
    finished = open_run(run, torch.device("cpu"))
    settings = finished.settings
    crossed = _crossings(crossing)
    heads: dict[str, Any] = {}
    network: nn.Module = PfiNetwork(finished.network)
    if settings.heads:
        network = PredictionNetwork(finished.network, settings.heads)
        rows_of_heads = (row for each in crossed for row in each.head_evaluations)
        heads = {
            "card_version": 2,
            "heads": report.heads,
            "head_evaluations": (*report.head_evaluations, *rows_of_heads),
        }
    general = LIMITATIONS_OF_HEADS if settings.heads else LIMITATIONS
    rows = rows_of(settings, "train") + rows_of(settings, "validation")
    return build_version(
        network=network,
        images=read_images(rows_of(settings, "test"), settings.images, settings.spec).tensors,
        probe=probe,
        name=name,
        version=version,
        architecture=finished.architecture,
        derived_from=derived_from or settings.start,
        limitations=general + limitations,
        preprocess=settings.spec,
        threshold=report.point.threshold,
        threshold_rule=report.rule,
        plateau=report.plateau,
        review_margin_logits=report.margin_logits,
        review_band=report.point.band,
        evaluations=(*report.evaluations, *(row for each in crossed for row in each.evaluations)),
        data=data_sources(rows, _earlier_data(settings, {row.source for row in rows})),
        training_command=training_command,
        split_seed=None if rows[0].part else settings.seed,
        publish_command=publish_command,
        **heads,
    )


def build_version(
    *, network: nn.Module, images: npt.NDArray[np.uint8], probe: bytes, **card: Any
) -> ModelVersion:
    """Export a network and write its card: `card` holds what cannot be found out here.

    Args:
        network: On the CPU; a PfiNetwork or a PredictionNetwork.
        images: (N, 1, S, S) to compare torch with ONNX Runtime on.
        probe: An image file that may be shared; its PFI is replayed before the service is ready.
        card: Keys of ModelCard.

    Raises:
        PublishError: ONNX Runtime disagrees with torch.
        ImageError: The probe cannot be read.
    """
    spec: PreprocessSpec = card["preprocess"]
    outputs = outputs_of(network)
    onnx = export(network.eval(), spec.size)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    difference = parity(network, session, images)
    if difference > PARITY_LIMIT:
        raise PublishError(f"ONNX Runtime differs from torch by {difference:.1e} in a probability")
    found = session.run(outputs, {"tensors": image_to_tensor(probe, spec)[np.newaxis]})
    answers = {name: np.ravel(own).tolist() for name, own in zip(outputs, found, strict=True)}
    software = ("torch", "onnx", "onnxruntime", "numpy")
    whole = ModelCard(
        created=datetime.now(UTC).replace(microsecond=0),
        intended_use=INTENDED_USE,
        licence="Apache-2.0 for the weights as far as we hold rights; see `data` for the sources'",
        software={"python": platform.python_version()} | {p: version_of(p) for p in software},
        model_sha256=sha256(onnx),
        probe_sha256=sha256(probe),
        probe_pfi=answers.pop("pfi")[0],
        probe_outputs=answers,
        parity_max_abs_difference=difference,
        **card,
    )
    return ModelVersion(whole, onnx, probe)


def outputs_of(network: nn.Module) -> list[str]:
    """The probabilities that a network to be exported gives, in their order; no evidence."""
    if isinstance(network, PredictionNetwork):
        return [name for name in network.outputs if name != "evidence"]
    return ["pfi"]


def export(network: nn.Module, size: int) -> bytes:
    """The ONNX model: input `tensors` (B, 1, S, S) uint8, any B.

    The output is `pfi` (B,) float32; of a PredictionNetwork, its `outputs`.
    """
    names = network.outputs if isinstance(network, PredictionNetwork) else ["pfi"]
    example = torch.zeros(2, 1, size, size, dtype=torch.uint8)
    # The exporter warns of its own deprecated calls into torch and of packages that nothing here
    # needs; none of it is ours
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["tensors"],
            output_names=names,
            dynamic_shapes={"tensors": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    onnx: bytes = program.model_proto.SerializeToString()
    return onnx


def parity(
    network: nn.Module, session: onnxruntime.InferenceSession, tensors: npt.NDArray[np.uint8]
) -> float:
    """The largest difference of any probability between torch and ONNX Runtime.

    It is the largest of several batch sizes.
    """
    worst, names = 0.0, outputs_of(network)
    for batch in PARITY_BATCHES:
        chunk = np.resize(tensors, (batch, *tensors.shape[1:]))
        with torch.inference_mode():
            expected = network(torch.from_numpy(chunk))
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(names, {"tensors": chunk})
        pairs = zip(expected, found, strict=False)  # the map of evidence comes last
        worst = max(worst, *(float(np.abs(a.numpy() - b).max()) for a, b in pairs))
    return worst


def pretrained_source(weights: Path | None) -> tuple[DataSource, ...]:
    """Where pre-trained weights came from, if they are known."""
    known = weights and PRETRAINED.get(sha256(weights.read_bytes()))
    return (known,) if known else ()


def data_sources(
    rows: Sequence[Row], weights: tuple[DataSource, ...] = ()
) -> tuple[DataSource, ...]:
    """Where the pre-trained weights and each source's training and validation images came from."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.source].append(row)
    return weights + tuple(
        DataSource(
            name=source,
            use="fine-tuning",
            licence="; ".join(sorted({row.licence for row in own})),
            origin="; ".join(sorted({row.origin for row in own})),
            frontal=sum(row.view == "frontal" for row in own),
            lateral=sum(row.view == "lateral" for row in own),
            not_chest=sum(row.view == "not_chest" for row in own),
            note="images of train and validation",
        )
        for source, own in sorted(grouped.items())
    )


def _earlier_data(settings: FitSettings, sources: Collection[str]) -> tuple[DataSource, ...]:
    """What trained the weights that a run began with, beside the sources of its own."""
    if settings.start is None:
        return pretrained_source(settings.weights)
    card = Store().load(settings.start).card
    return tuple(
        each
        if each.use == "pre-training"
        else each.model_copy(update={"note": f"{each.note}, of {settings.start}"})
        for each in card.data
        if each.name not in sources
    )


def _crossings(run: Path | None) -> tuple[TestReport, ...]:
    if run is None:
        return ()
    folders = sorted(test.parent for test in run.glob(f"*/{TEST}"))
    if not folders:
        raise PublishError(f"{run} holds no finished cross-source test")
    return tuple(TestReport.load(folder) for folder in folders)


def _check_floors(report: TestReport) -> None:
    """Refuse a model that is not good enough to be used by mistake."""
    for name, share, least in _floors(report):
        if share.value < least:
            raise PublishError(
                f"{name} on the held-out images is {share.value:.2%}, below {least:.0%}; "
                "--force publishes it all the same"
            )


def _floors(report: TestReport) -> Iterator[tuple[str, Proportion, float]]:
    """What is measured, its value, and the least that it may be."""
    for row in (each for each in report.evaluations if each.name == "test"):
        yield "accuracy", row.accuracy, LEAST_ACCURACY
        for name, share in (("sensitivity", row.sensitivity), ("specificity", row.specificity)):
            if share is not None:
                yield name, share, LEAST_OF_A_CLASS
    for of_head in (each for each in report.head_evaluations if each.name == "test"):
        for answer, share in of_head.by_class.items():
            yield f"{of_head.task}, answer {answer},", share, LEAST_OF_A_CLASS
