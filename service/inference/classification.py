"""The answer for one radiograph, for the API, the command and Python."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from model_store import AnsweredView, ModelCard, Prediction
from service.imaging import Radiograph


class Header(BaseModel):
    """The view that the DICOM header claims; compared with the answer, never used for it."""

    view_position: str | None = Field(description="View Position (0018,5101), or null")
    agrees: bool | None = Field(description="null where View Position claims neither view")


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
        json_schema_extra={
            "examples": [
                {
                    "view": "lateral",
                    "pfi": 0.0123,
                    "threshold": 0.5,
                    "review": False,
                    "header": {"view_position": "PA", "agrees": False},
                    "sop_instance_uid": "1.2.826.0.1.3680043.8.498.1",
                    "model": {"name": "googlenet", "version": "1.1.0", "sha256": "5f3c..."},
                    "warnings": [],
                }
            ]
        }
    )

    view: AnsweredView
    pfi: float = Field(ge=0, le=1, description="probability of a frontal image")
    threshold: float = Field(description="frontal when pfi >= threshold")
    review: bool = Field(
        description="the PFI lies in the card's uncertain band, or a warning makes it doubtful"
    )
    header: Header | None = Field(description="null for all but DICOM")
    sop_instance_uid: str | None
    model: ModelReference
    warnings: list[str] = Field(description="what was odd, but did not prevent an answer")

    @classmethod
    def of(cls, radiograph: Radiograph, pfi: float, card: ModelCard) -> Self:
        """Apply the card's cutoff to a PFI."""
        decision, claimed = (
            card.decide(Prediction(pfi), doubtful=radiograph.doubtful),
            radiograph.header,
        )
        header = None
        if claimed is not None:
            agrees = claimed.agrees(decision.view)
            header = Header(view_position=claimed.view_position, agrees=agrees)
        return cls(
            view=decision.view,
            pfi=pfi,
            threshold=card.threshold,
            review=decision.review,
            header=header,
            sop_instance_uid=radiograph.sop_instance_uid,
            model=ModelReference.of(card),
            warnings=list(radiograph.warnings),
        )
