"""Make the row of an image from its answer or its error."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from model_store import AnsweredView, ModelCard, Prediction
from service.backfill.results.rows import ItemError, Names, Outcome, Row, SourceError
from service.imaging import ImageError, Origin, Radiograph, ViewHeader, tidy
from service.inference import UnavailableError
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
        locator: The image's locator in its source.
        radiograph: The image as it was read.
        pfi: The model's answer, 0..1.
        card: The card of the model.
        size: Bytes of the file.
        sha256: Hash of the file, in hexadecimal; needed only if `uid_of` returns None.
        seconds: From its bytes to its answer.
        attempts: How often it was tried, including this time.
        rendered: The instance, if the image is a picture that the archive rendered; None: the image
            is the file itself.

    Raises:
        ValueError: The PFI is not within 0..1.
    """
    if not 0 <= pfi <= 1:  # also true of NaN, which would be called lateral
        raise ValueError(f"a PFI of {pfi}")
    if rendered is not None:
        radiograph = _named(radiograph, rendered)
    decision = card.decide(Prediction(pfi), doubtful=radiograph.doubtful)
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
        **_claims(radiograph.header or ViewHeader(None), decision.view),
        warnings=" ".join(radiograph.warnings),
        bytes=size,
        seconds=seconds,
        attempts=attempts,
        model=f"{card.name}/{card.version}",
        model_sha256=card.model_sha256,
    )


def _claims(header: ViewHeader, view: AnsweredView) -> dict[str, Any]:
    """What the header claims, and whether it agrees with the answer."""
    return {
        "view_position": tidy(header.view_position),
        "view_position_agrees": header.agrees(view),
        "patient_orientation": header.patient_orientation,
        "patient_orientation_agrees": header.patient_orientation_agrees(view),
        "view_code": header.view_code,
        "view_code_agrees": header.view_code_agrees(view),
        "described_view": header.described_view,
        "claimed_by": header.claimed_by,
        "described_view_agrees": header.described_view_agrees(view),
    }


def _named(radiograph: Radiograph, rendered: Names) -> Radiograph:
    """A rendered picture with the UIDs of its instance."""
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
    """The row of an image that was not classified, with a code of docs/problems.md.

    Raises:
        Exception: `error` itself, if it is not about the image: the archive does not answer, or the
            service is stopping or full. The image then has no outcome yet.
    """
    if isinstance(error, (SourceError, UnavailableError)):
        raise error
    coded = (ImageError, ItemError, UploadError)
    code = error.code if isinstance(error, coded) else "internal_error"
    outcome: Outcome = "skipped" if code in SKIPPED else "failed"
    return Row(
        locator=locator, outcome=outcome, code=code, bytes=size, seconds=seconds, attempts=attempts
    )


def uid_of(radiograph: Radiograph) -> str | None:
    """The SOP Instance UID; None if it is missing or no valid UID, which images may share."""
    found = tidy(radiograph.sop_instance_uid)
    return found if found and UID.fullmatch(found) else None
