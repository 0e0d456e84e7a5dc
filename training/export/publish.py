"""From a tested run to an immutable model version: export, parity, probe, card."""

from __future__ import annotations

import logging
import platform
import warnings
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from model_store import DataSource, Evaluation, ModelCard, ModelVersion, PreprocessSpec
from model_store.store import sha256
from service.imaging import image_to_tensor
from training.data.manifest import Row, read_images
from training.export.test_report import TestReport
from training.networks.googlenet import PfiNetwork
from training.train.finished import open_run
from training.train.settings import rows_of

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
LIMITATIONS = (  # of every model of this kind; those of its data are given when it is published
    "Answers frontal or lateral for any image it can read; others are not recognised as such.",
    "Obliques are answered as one of the two views.",
    "Tells neither PA from AP nor left from right lateral, nor whether an image is rotated.",
)


# What the held-out images must show, or it is published only by force
LEAST_ACCURACY, LEAST_OF_A_VIEW = 0.98, 0.95
# Beside the checkout's own, which the package ships
STORE = Path("models")


class PublishError(Exception):
    """The run must not become a model version."""


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
        _check_floors(report.evaluations)
    finished = open_run(run, torch.device("cpu"))
    settings = finished.settings
    crossed = _crossings(crossing)
    rows = rows_of(settings, "train") + rows_of(settings, "validation")
    return build_version(
        network=PfiNetwork(finished.network),
        images=read_images(rows_of(settings, "test"), settings.images, settings.spec).tensors,
        probe=probe,
        name=name,
        version=version,
        architecture=finished.architecture,
        derived_from=derived_from,
        limitations=LIMITATIONS + limitations,
        preprocess=settings.spec,
        threshold=report.point.threshold,
        threshold_rule=report.rule,
        plateau=report.plateau,
        review_margin_logits=report.margin_logits,
        review_band=report.point.band,
        evaluations=report.evaluations + crossed,
        data=data_sources(rows, pretrained_source(settings.weights)),
        training_command=training_command,
        publish_command=publish_command,
    )


def build_version(
    *, network: PfiNetwork, images: npt.NDArray[np.uint8], probe: bytes, **card: Any
) -> ModelVersion:
    """Export a network and write its card: `card` holds what cannot be found out here.

    Args:
        network: On the CPU.
        images: (N, 1, S, S) to compare torch with ONNX Runtime on.
        probe: An image file that may be shared; its PFI is replayed before the service is ready.
        card: Keys of ModelCard.

    Raises:
        PublishError: ONNX Runtime disagrees with torch.
        ImageError: The probe cannot be read.
    """
    spec: PreprocessSpec = card["preprocess"]
    onnx = export(network.eval(), spec.size)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    difference = parity(network, session, images)
    if difference > PARITY_LIMIT:
        raise PublishError(f"ONNX Runtime differs from torch by {difference:.1e} in PFI")
    tensor = image_to_tensor(probe, spec)
    software = ("torch", "onnx", "onnxruntime", "numpy")
    whole = ModelCard(
        created=datetime.now(UTC).replace(microsecond=0),
        intended_use=INTENDED_USE,
        licence="Apache-2.0 for the weights as far as we hold rights; see `data` for the sources'",
        software={"python": platform.python_version()} | {p: version_of(p) for p in software},
        model_sha256=sha256(onnx),
        probe_sha256=sha256(probe),
        probe_pfi=float(session.run(None, {"tensors": tensor[np.newaxis]})[0][0]),
        parity_max_abs_difference=difference,
        **card,
    )
    return ModelVersion(whole, onnx, probe)


def export(network: PfiNetwork, size: int) -> bytes:
    """The ONNX model: input `tensors` (B, 1, S, S) uint8, output `pfi` (B,) float32, any B."""
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
            output_names=["pfi"],
            dynamic_shapes={"tensors": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    onnx: bytes = program.model_proto.SerializeToString()
    return onnx


def parity(
    network: PfiNetwork, session: onnxruntime.InferenceSession, tensors: npt.NDArray[np.uint8]
) -> float:
    """The largest |PFI| difference between torch and ONNX Runtime, at several batch sizes."""
    worst = 0.0
    for batch in PARITY_BATCHES:
        chunk = np.resize(tensors, (batch, *tensors.shape[1:]))
        with torch.inference_mode():
            expected = network(torch.from_numpy(chunk)).numpy()
        found = session.run(None, {"tensors": chunk})[0]
        worst = max(worst, float(np.abs(expected - found).max()))
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
            note="images of train and validation",
        )
        for source, own in sorted(grouped.items())
    )


def _crossings(run: Path | None) -> tuple[Evaluation, ...]:
    if run is None:
        return ()
    folders = sorted(run.glob("fit-on-*"))
    if not folders:
        raise PublishError(f"{run} holds no finished cross-source test")
    return tuple(row for folder in folders for row in TestReport.load(folder).evaluations)


def _check_floors(evaluations: Sequence[Evaluation]) -> None:
    """Refuse a model that is not good enough to be used by mistake."""
    for row in (each for each in evaluations if each.name == "test"):
        figures = {"accuracy": (row.accuracy, LEAST_ACCURACY)} | {
            name: (share, LEAST_OF_A_VIEW)
            for name, share in (("sensitivity", row.sensitivity), ("specificity", row.specificity))
            if share is not None
        }
        for name, (share, least) in figures.items():
            if share.value < least:
                raise PublishError(
                    f"{name} on the held-out images is {share.value:.2%}, below {least:.0%}; "
                    "--force publishes it all the same"
                )


def how_to_serve(reference: str, store: Path) -> str:
    """The command for a version that was just published."""
    return f"CXRVIEW_MODEL_STORE={store} CXRVIEW_MODEL={reference} cxrview serve"
