"""From what became of one image to its row."""

from __future__ import annotations

import re
from dataclasses import replace

from model_store import ModelCard
from service.backfill.results.rows import ItemError, Names, Outcome, Row, SourceError
from service.imaging import ImageError, Origin, Radiograph, ViewHeader, tidy
from service.inference import BatcherClosedError
from service.uploads.budget import ServiceFullError
from service.uploads.upload import UploadError

# Codes of files that no decoder and no second try could turn into a radiograph: other file types,
# CT and reports, cine runs and stacks (a CR or DX object has one frame by definition), photographs
# and screenshots, icons, and blank images. All other codes are `failed`, so that an operator looks:
# an object without pixels, an empty file or a declared size beyond all limits may be a damaged
# radiograph, and a later version may have a decoder for it.
SKIPPED = frozenset(
    {
        "blank_image",
        "colour_image",
        "image_too_small",
        "multi_frame_image",
        "unrecognised_format",
        "unsupported_sop_class",
    }
)
UID = re.compile(r"\d+(\.\d+)+", re.ASCII)


def row_of(
    locator: str,
    radiograph: Radiograph,
    pfi: float,
    card: ModelCard,
    *,
    size: int,
    sha256: str | None = None,
    seconds: float | None = None,
    attempts: int = 1,
    rendered: Names | None = None,
) -> Row:
    """The row of an image that was classified.

    Args:
        locator: Where it is, as its source names it.
        radiograph: As it was read.
        pfi: What the model of `card` answered, 0..1.
        card: Of the model.
        size: Bytes of the file.
        sha256: Of the file, in hexadecimal; only needed where `uid_of` knows none.
        seconds: From its bytes to its answer.
        attempts: How often it was tried, this time included.
        rendered: Whose picture the image was; None: it was the file itself.

    Raises:
        ValueError: The PFI is no probability: whatever answered, this is no outcome.
    """
    if not 0 <= pfi <= 1:  # a NaN, too, would be called lateral
        raise ValueError(f"a PFI of {pfi}")
    if rendered is not None:
        radiograph = _named(radiograph, rendered)
    decision = card.decide(pfi, doubtful=radiograph.doubtful)
    header = radiograph.header or ViewHeader(None)
    origin = radiograph.origin or Origin()
    return Row(
        locator=locator,
        outcome="done",
        key=uid_of(radiograph) or (f"sha256:{sha256}" if sha256 else None),
        sop_instance_uid=tidy(radiograph.sop_instance_uid),
        study_instance_uid=origin.study_instance_uid,
        series_instance_uid=origin.series_instance_uid,
        modality=origin.modality,
        station=origin.station,
        month=origin.month,
        format=radiograph.format,
        transfer_syntax=radiograph.transfer_syntax,
        input="stored" if rendered is None else "rendered",
        view=decision.view,
        pfi=pfi,
        threshold=card.threshold,
        review=decision.review,
        view_position=tidy(header.view_position),
        view_position_agrees=header.agrees(decision.view),
        patient_orientation=header.patient_orientation,
        patient_orientation_agrees=header.patient_orientation_agrees(decision.view),
        view_code=header.view_code,
        view_code_agrees=header.view_code_agrees(decision.view),
        described_view=header.described_view,
        claimed_by=header.claimed_by,
        described_view_agrees=header.described_view_agrees(decision.view),
        warnings=" ".join(radiograph.warnings),
        bytes=size,
        seconds=seconds,
        attempts=attempts,
        model=f"{card.name}/{card.version}",
        model_sha256=card.model_sha256,
    )


def _named(radiograph: Radiograph, rendered: Names) -> Radiograph:
    """The picture of an instance, with the instance's names."""
    origin = Origin(rendered.study_instance_uid, rendered.series_instance_uid)
    return replace(radiograph, sop_instance_uid=rendered.sop_instance_uid, origin=origin)


def row_of_error(
    locator: str,
    error: Exception,
    *,
    size: int | None = None,
    seconds: float | None = None,
    attempts: int = 1,
) -> Row:
    """The row of an image that was not classified; its code is that of docs/problems.md.

    Raises:
        Exception: `error` itself, where it says nothing of the image: the archive does not answer,
            the service is stopping or full. Then it has no outcome yet.
    """
    if isinstance(error, (SourceError, BatcherClosedError, ServiceFullError)):
        raise error
    coded = (ImageError, ItemError, UploadError)
    code = error.code if isinstance(error, coded) else "internal_error"
    outcome: Outcome = "skipped" if code in SKIPPED else "failed"
    return Row(
        locator=locator, outcome=outcome, code=code, bytes=size, seconds=seconds, attempts=attempts
    )


def uid_of(radiograph: Radiograph) -> str | None:
    """SOP Instance UID; None where there is none, or other text, which many images may share."""
    found = tidy(radiograph.sop_instance_uid)
    return found if found and UID.fullmatch(found) else None
