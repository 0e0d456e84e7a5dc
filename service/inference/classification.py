"""The answer for one radiograph, for the API, the command and Python."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from model_store import AnsweredView, ModelCard, Orientation, Prediction
from service.imaging import Radiograph, ViewHeader
from service.inference.explanation import Explanation

# Of a model with all heads. An example with nulls would lose them: FastAPI leaves them out
EXAMPLE: JsonValue = {
    "view": "frontal",
    "pfi": 0.9971,
    "threshold": 0.5,
    "chest": 0.9994,
    "chest_threshold": 0.4,
    "orientation": {
        "rotation_degrees": 90,
        "rotation_probability": 0.9987,
        "inverted": False,
        "inverted_probability": 0.0021,
        "mirrored": False,
        "mirrored_probability": 0.0413,
    },
    "review": False,
    "header": {
        "view_position": "LL",
        "agrees": False,
        "body_part_examined": "CHEST",
        "body_part_agrees": True,
    },
    "sop_instance_uid": "1.2.826.0.1.3680043.8.498.1",
    "model": {"name": "swift", "version": "2.0.0", "sha256": "5f3c..."},
    "warnings": [],
}


class Header(BaseModel):
    """What the DICOM header claims; compared with the answer, never used for it."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    view_position: str | None = Field(description="View Position (0018,5101), or null")
    agrees: bool | None = Field(
        description="null where View Position claims neither view, and for not_chest"
    )
    body_part_examined: str | None = Field(
        default=None, description="Body Part Examined (0018,0015), or null"
    )
    body_part_agrees: bool | None = Field(
        default=None,
        description="whether it claims a chest exactly if the answer does; null where it names no "
        "known part, or the model has no chest head",
    )

    @classmethod
    def of(cls, claimed: ViewHeader, view: AnsweredView, is_chest: bool | None) -> Self:
        """Compare the claims with the answer; `is_chest` is None if the model does not say."""
        return cls(
            view_position=claimed.view_position,
            agrees=claimed.agrees(view),
            body_part_examined=claimed.body_part_examined,
            body_part_agrees=claimed.body_part_agrees(is_chest),
        )


class ModelReference(BaseModel):
    """The model version that answered."""

    name: str
    version: str
    sha256: str

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """From the model's card."""
        return cls(name=card.name, version=card.version, sha256=card.model_sha256)


class Classification(BaseModel):
    """The answer for one radiograph."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [EXAMPLE]}, json_schema_serialization_defaults_required=True
    )

    view: AnsweredView
    pfi: float = Field(ge=0, le=1, description="probability of a frontal image")
    threshold: float = Field(description="frontal when pfi >= threshold")
    chest: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="probability of a chest radiograph; null: the model has no such head",
    )
    chest_threshold: float | None = Field(
        default=None, description="not_chest when chest < chest_threshold, whatever the pfi"
    )
    orientation: Orientation | None = Field(
        default=None,
        description="how the image lies; null: not_chest, or the model has no such heads",
    )
    review: bool = Field(
        description="the PFI or the chest probability lies in the card's uncertain band, or a "
        "warning makes the picture doubtful"
    )
    header: Header | None = Field(description="null for all but DICOM")
    sop_instance_uid: str | None
    model: ModelReference
    warnings: list[str] = Field(description="what was odd, but did not prevent an answer")
    explanation: Explanation | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="only if the request asks for it",
    )

    @classmethod
    def of(cls, radiograph: Radiograph, prediction: Prediction, card: ModelCard) -> Self:
        """Apply the card's cutoffs to a prediction."""
        decision = card.decide(prediction, doubtful=radiograph.doubtful)
        chest, claimed = card.heads.chest, radiograph.header
        header = None
        if claimed is not None:
            is_chest = None if chest is None else decision.view != "not_chest"
            header = Header.of(claimed, decision.view, is_chest)
        return cls(
            view=decision.view,
            pfi=prediction.pfi,
            threshold=card.threshold,
            chest=prediction.chest,
            chest_threshold=None if chest is None else chest.threshold,
            orientation=decision.orientation,
            review=decision.review,
            header=header,
            sop_instance_uid=radiograph.sop_instance_uid,
            model=ModelReference.of(card),
            warnings=list(radiograph.warnings),
        )
