"""All metrics. Labels have closed sets of values, and never hold data of a patient."""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

from model_store import AnsweredView, Orientation, Rotation
from service.imaging import Decoder
from service.inference import LANES, BatchReport, Classification, Lane, Reason

Source = Literal["classify", "batch", "backfills", "dicom"]
SOURCES: tuple[Source, ...] = get_args(Source)
Agreement = Literal["agrees", "disagrees", "silent"]
AGREEMENTS: tuple[Agreement, ...] = get_args(Agreement)
Finding = Literal["turn_90", "turn_180", "turn_270", "inverted", "mirrored"]
TURNS: dict[Rotation, Finding] = {90: "turn_90", 180: "turn_180", 270: "turn_270"}

IMAGES = Counter(
    "cxrview_images_total",
    "Images classified, by view, lane and source.",
    ["view", "lane", "source"],
)
REVIEW = Counter(
    "cxrview_images_review_total",
    "Images classified and marked for review, because the PFI, the chest probability or the picture"
    " is uncertain.",
    ["view"],
)
HEADERS = Counter(
    "cxrview_headers_total",
    "DICOM images classified, by whether the view in their header agrees; silent: the header names"
    " no view, or the image is not_chest.",
    ["agreement"],
)
BODY_PARTS = Counter(
    "cxrview_body_parts_total",
    "DICOM images classified by a model with a chest head, by whether Body Part Examined in their"
    " header agrees; silent: it names no known part.",
    ["agreement"],
)
ORIENTATION = Counter(
    "cxrview_orientation_total",
    "Images classified that do not lie as usual, by finding: turn_90, say, must be turned clockwise"
    " by 90 degrees; inverted: bone is dark. An image may have several.",
    ["finding"],
)
RECEIVED_BYTES = Counter(
    "cxrview_received_bytes_total", "Bytes of request bodies received.", ["lane"]
)
REFUSED = Counter("cxrview_images_refused_total", "Images refused, by problem code.", ["reason"])
FALLBACKS = Counter(
    "cxrview_decoder_fallbacks_total",
    "Images that this decoder could not read, so that the next one was tried.",
    ["decoder"],
)
RESTARTS = Counter(
    "cxrview_decoder_restarts_total",
    "Decode workers replaced, by cause: the file crashed them, exceeded their deadline or their"
    " memory limit.",
    ["cause"],
)
STAGES = ("receive", "wait_decode", "decode", "queue", "inference", "respond")
STAGE_SECONDS = Histogram(
    "cxrview_stage_seconds",
    "Time of an image in each stage: receive (its body), wait_decode (for a decode worker), decode,"
    " queue (for its batch), inference (of its batch), respond. The stage with the longest wait"
    " before it is the bottleneck.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ANSWER_SECONDS = Histogram(
    "cxrview_answer_seconds",
    "Time of an image of POST /v1/classify, from the head of its request to its response.",
    ["lane"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
BUDGET_SECONDS = Gauge(
    "cxrview_latency_budget_seconds",
    "Latency budget; interactive images that would take longer are refused.",
)
BATCH_IMAGES = Histogram(
    "cxrview_batch_images", "Images per ONNX Runtime call.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
QUEUE_IMAGES = Gauge("cxrview_queue_images", "Images waiting for inference.", ["lane"])
INSIDE_IMAGES = Gauge(
    "cxrview_inside_images", "Images in flight: arriving, waiting or being processed.", ["lane"]
)
READY = Gauge("cxrview_ready", "1 while images are accepted, as /readyz reports; else 0.")
DECODING = Gauge("cxrview_decode_workers_busy", "Decode workers that are busy.")
DECODE_WORKERS = Gauge("cxrview_decode_workers", "Decode workers of both lanes.")
CAPACITY = Gauge(
    "cxrview_capacity_images_per_second",
    "Capacity of a lane, measured over about its last hundred images while busy.",
    ["lane"],
)
HELD_BYTES = Gauge("cxrview_held_bytes", "Bytes of request bodies in memory.")
HELD_LIMIT_BYTES = Gauge(
    "cxrview_held_limit_bytes", "Byte budget; request bodies that would exceed it are refused."
)
BACKFILL_IMAGES = Gauge(
    "cxrview_backfill_images",
    "Images of the running archive job, by state; found: listed so far.",
    ["state"],
)
BACKFILL_JOBS = Gauge("cxrview_backfill_jobs", "Archive jobs, by state.", ["state"])
BACKFILL_REFUSED = Gauge(
    "cxrview_backfill_refused_images",
    "Images of the running archive job skipped or failed since its start or resume, by problem"
    " code, `duplicate` or `crashed`.",
    ["reason"],
)
BACKFILL_BYTES = Counter("cxrview_backfill_bytes_total", "Bytes of files read by archive jobs.")
ASSOCIATIONS = Gauge("cxrview_dicom_associations", "Associations of the DICOM receiver, open now.")
ASSOCIATIONS_REJECTED = Counter(
    "cxrview_dicom_associations_rejected_total",
    "Associations rejected, by reason: the called AE title is not ours, the calling AE or its"
    " network is not allowed, too many are open, the process stops, the application context or"
    " the protocol version is another; malformed: aborted; tls: the handshake failed.",
    ["reason"],
)
CERTIFICATE_EXPIRES = Gauge(
    "cxrview_dicom_certificate_expiry_timestamp_seconds",
    "When the certificate that the DICOM receiver uses expires, in seconds since 1970; 0 without"
    " TLS.",
)
DICOM_STORED = Counter(
    "cxrview_dicom_objects_total",
    "Objects received by C-STORE, by the status of the answer in hexadecimal; 0000 is success.",
    ["status"],
)
DELIVERIES = Gauge(
    "cxrview_deliveries",
    "Results in the outbox, by destination and state; delivered, dead and dropped ones are kept for"
    " `keep_days`.",
    ["destination", "state"],
)
DELIVERY_ATTEMPTS = Counter(
    "cxrview_delivery_attempts_total",
    "Attempts to deliver a result, by destination and outcome; warning: delivered, with a remark of"
    " the destination; retry: failed, and tried again; dead: failed for good.",
    ["destination", "outcome"],
)
DELIVERY_AGE = Gauge(
    "cxrview_delivery_oldest_seconds",
    "Age of the oldest result that is not delivered yet and still tried, by destination; else 0.",
    ["destination"],
)
PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1)
PFI = Histogram(
    "cxrview_pfi_ratio",
    "PFI, the probability of a frontal image; without images that are not_chest.",
    buckets=PROBABILITIES,
)
CHEST = Histogram(
    "cxrview_chest_ratio",
    "Probability of a chest radiograph, of models with a chest head.",
    buckets=PROBABILITIES,
)
MODEL_INFO = Gauge(
    "cxrview_model_info",
    "Always 1; the labels are the model and its execution provider.",
    ["name", "version", "sha256", "provider"],
)
CPU_FALLBACK = Gauge(
    "cxrview_cpu_fallback", "1 if a GPU is configured but the CPU is used; else 0."
)
BUILD_INFO = Gauge(
    "cxrview_build_info",
    "Always 1; the labels are the versions of the service and of ONNX Runtime.",
    ["version", "onnxruntime"],
)

# Looked up once: finding a labelled child costs more than incrementing it
_STAGES = {stage: STAGE_SECONDS.labels(stage) for stage in STAGES}
_IMAGES = {
    labels: IMAGES.labels(*labels) for labels in product(get_args(AnsweredView), LANES, SOURCES)
}
_ANSWER_SECONDS = {lane: ANSWER_SECONDS.labels(lane) for lane in LANES}
_REVIEW = {view: REVIEW.labels(view) for view in get_args(AnsweredView)}
_HEADERS = {agreement: HEADERS.labels(agreement) for agreement in AGREEMENTS}
_BODY_PARTS = {agreement: BODY_PARTS.labels(agreement) for agreement in AGREEMENTS}
_ORIENTATION = {finding: ORIENTATION.labels(finding) for finding in get_args(Finding)}
_AGREEMENT_OF: dict[bool | None, Agreement] = {True: "agrees", False: "disagrees", None: "silent"}
_RECEIVED_BYTES = {lane: RECEIVED_BYTES.labels(lane) for lane in LANES}
# Created at the start with 0: `rate` does not see an increase of a series that begins with 1
_FALLBACKS = {decoder: FALLBACKS.labels(decoder) for decoder in get_args(Decoder)}

_RESTARTS = {cause: RESTARTS.labels(cause) for cause in get_args(Reason)}


def observe_stage(stage: str, seconds: float) -> None:
    """Count one image's time in one of `STAGES`."""
    _STAGES[stage].observe(seconds)


def observe_batch(report: BatchReport) -> None:
    """Count one ONNX call."""
    BATCH_IMAGES.observe(len(report.waited_seconds))
    _STAGES["inference"].observe(report.run_seconds)
    for waited in report.waited_seconds:
        _STAGES["queue"].observe(waited)


def observe_answer(lane: Lane, seconds: float) -> None:
    """Observe the total time of one answered image."""
    _ANSWER_SECONDS[lane].observe(seconds)


def count_bytes(lane: Lane, received: int) -> None:
    """Count the received bytes of one body."""
    _RECEIVED_BYTES[lane].inc(received)


def count_answer(
    answer: Classification, lane: Lane, source: Source, fallbacks: tuple[Decoder, ...]
) -> None:
    """Count one answered image, its header, and the decoders that could not read it."""
    _IMAGES[answer.view, lane, source].inc()
    if answer.view != "not_chest":
        PFI.observe(answer.pfi)
    if answer.chest is not None:
        CHEST.observe(answer.chest)
    if answer.review:
        _REVIEW[answer.view].inc()
    if answer.orientation is not None:
        _count_orientation(answer.orientation)
    if answer.header is not None:
        _HEADERS[_AGREEMENT_OF[answer.header.agrees]].inc()
        if answer.chest is not None:  # without that head, no body part can agree
            _BODY_PARTS[_AGREEMENT_OF[answer.header.body_part_agrees]].inc()
    for decoder in fallbacks:
        _FALLBACKS[decoder].inc()


def _count_orientation(orientation: Orientation) -> None:
    if orientation.rotation_degrees:
        _ORIENTATION[TURNS[orientation.rotation_degrees]].inc()
    if orientation.inverted:
        _ORIENTATION["inverted"].inc()
    if orientation.mirrored:
        _ORIENTATION["mirrored"].inc()


def count_decoder_restart(cause: Reason) -> None:
    """Count one decode worker that a file has ended."""
    _RESTARTS[cause].inc()
