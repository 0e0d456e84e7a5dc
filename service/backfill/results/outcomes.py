"""Make the row of an image from its answer or its error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model_store import AnsweredView, Decision, ModelCard, Orientation, Prediction
from service.backfill.results.rows import ItemError, Names, Outcome, Row, SourceError
from service.imaging import ImageError, Origin, Radiograph, ViewHeader, tidy, valid_uid
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
# All codes of a row. Others come from a later version
ROW_CODES = SKIPPED | {
    "archive_too_large", "corrupt_archive", "corrupt_image", "crashed", "decoder_failed",
    "duplicate", "empty_image", "entry_kind", "entry_name", "entry_ratio", "entry_too_large",
    "image_too_large", "internal_error", "malformed_multipart", "nested_archive", "no_pixel_data",
    "not_found", "too_many_files", "unknown_archive", "unreadable_file",
    "unsupported_pixel_format", "unsupported_transfer_syntax",
}  # fmt: skip


def row_of(
    locator: str,
    radiograph: Radiograph,
    prediction: Prediction,
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
        prediction: The model's answer; each probability is 0..1.
        card: The card of the model.
        size: Bytes of the file.
        sha256: Hash of the file, in hexadecimal; needed only without a valid SOP Instance
            UID.
        seconds: From its bytes to its answer.
        attempts: How often it was tried, including this time.
        rendered: The instance, if the image is a picture that the archive rendered; None: the image
            is the file itself.

    Raises:
        ValueError: A probability is not within 0..1.
    """
    _check(prediction)
    if rendered is not None:
        radiograph = _named(radiograph, rendered)
    decision = card.decide(prediction, doubtful=radiograph.doubtful)
    origin = radiograph.origin or Origin()
    uid = valid_uid(radiograph.sop_instance_uid)  # a rendered picture has what its archive says
    return Row(
        locator=locator,
        outcome="done",
        key=uid or (f"sha256:{sha256}" if sha256 else None),
        sop_instance_uid=uid,
        study_instance_uid=origin.study_instance_uid,
        series_instance_uid=origin.series_instance_uid,
        modality=origin.modality,
        station=origin.station,
        month=origin.month,
        format=radiograph.format,
        transfer_syntax=radiograph.transfer_syntax,
        input="stored" if rendered is None else "rendered",
        **_answer(prediction, decision, card),
        **_claims(radiograph.header or ViewHeader(None), decision.view, asked=prediction.chest),
        warnings=" ".join(radiograph.warnings),
        bytes=size,
        seconds=seconds,
        attempts=attempts,
        model=f"{card.name}/{card.version}",
        model_sha256=card.model_sha256,
    )


def _check(prediction: Prediction) -> None:
    """Refuse what is no probability: NaN is below every threshold, and would be called lateral."""
    if not prediction.valid:
        raise ValueError(f"a PFI, or another head's probability, is none: {prediction}")


def _answer(prediction: Prediction, decision: Decision, card: ModelCard) -> dict[str, Any]:
    """The answers of all heads, with the cutoffs by which a reader can check the view."""
    unknown = dict.fromkeys(Orientation.model_fields)
    return {
        "view": decision.view,
        "pfi": prediction.pfi,
        "threshold": card.threshold,
        "chest": prediction.chest,
        "chest_threshold": card.heads.chest.threshold if card.heads.chest else None,
        "review": decision.review,
        **(decision.orientation.model_dump() if decision.orientation else unknown),
    }


def _claims(header: ViewHeader, view: AnsweredView, asked: float | None) -> dict[str, Any]:
    """What the header claims, and whether it agrees with the answer.

    Args:
        header: The header; without values, if there is none.
        view: The answer.
        asked: The probability of a chest radiograph; None: the model does not say.
    """
    is_chest = None if asked is None else view != "not_chest"
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
        "body_part_examined": header.body_part_examined,
        "body_part_agrees": header.body_part_agrees(is_chest),
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
