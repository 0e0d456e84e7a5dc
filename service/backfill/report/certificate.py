"""The certificate of a backfill: whether every image has exactly one outcome."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store import AnsweredView
from service.backfill.results.rows import Input, Outcome

Count = Annotated[int, Field(ge=0)]


class Frozen(BaseModel):
    """Immutable data without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Frozen):
    """The number of images with one value."""

    value: str | None = Field(description="null where the file does not say")
    images: Count


class Shares(Frozen):
    """The most frequent values, and the number of all other images."""

    largest: tuple[Share, ...] = Field(description="at most 20, the largest first")
    others: Count = Field(description="images with any other value")


class Agreement(Frozen):
    """One header attribute compared with the answer from the pixels, in images."""

    agrees: Count
    disagrees: Count
    silent: Count = Field(
        description="no header, no such attribute, or it claims nothing that can be compared; of "
        "the view, also images that are no chest radiographs; of the body part, only images whose "
        "model says whether they show a chest"
    )


class Orientations(Frozen):
    """How the images lie. Only images of which the model says so are counted."""

    rotation: dict[Literal["0", "90", "180", "270"], Count] = Field(
        description="by the degrees clockwise by which an image must be turned to stand upright"
    )
    inverted: dict[Literal["yes", "no"], Count] = Field(description="bone is dark")
    mirrored: dict[Literal["yes", "no"], Count] = Field(
        description="left is on the right; of frontal images"
    )


class Model(Frozen):
    """The weights that answered."""

    name: str = Field(description="name/version")
    sha256: str
    images: Count


class CertifiedPart(Frozen):
    """A file of results."""

    name: str = Field(description="from the folder of results on")
    rows: Count
    bytes: Count
    sha256: str


class Certificate(Frozen):
    """The outcome of an archive. Counts by a property are of images that are done."""

    # Changes when a key is removed or changes its meaning, not when a key or a view is added
    certificate_version: Literal[1] = 1
    cxrview: str = Field(description="the version that wrote this")
    created: datetime
    valid: bool = Field(description="true when `errors` is empty")
    empty: bool = Field(default=False, description="no image was found")
    errors: tuple[str, ...] = Field(description="why not every image has exactly one outcome")
    found: Count = Field(description="images in the archive")
    found_by: Literal["source", "rows"] = Field(
        description="source: the number of images that were listed; rows: no job says how many "
        "images there are, so the rows were counted"
    )
    left_out: dict[str, Count] | None = Field(
        default=None,
        description="what else the archive held, by reason; null if the source did not count it",
    )
    outcomes: dict[Outcome, Count]
    codes: dict[str, Count] = Field(description="of what was skipped or failed")
    views: dict[AnsweredView, Count] = Field(
        description="`not_chest` only where the model can say so"
    )
    orientation: Orientations | None = Field(
        default=None, description="null where no model says how an image lies"
    )
    inputs: dict[Input, Count] = Field(
        description="what the model saw: files as they are stored, or as the archive renders them"
    )
    review: Count = Field(description="images within the uncertain band, or doubtful by a warning")
    header: dict[str, Agreement] = Field(
        description="by claim: view_position, patient_orientation, view_code, described_view; "
        "body_part_examined only where the model can say whether an image shows a chest"
    )
    modalities: Shares
    stations: Shares
    months: dict[str, Count] = Field(description="of the acquisition, in their order; `` unknown")
    models: tuple[Model, ...] = Field(description="one, unless jobs were mixed")
    started: datetime | None = Field(description="null where neither job nor rows say it")
    ended: datetime | None
    images_per_second: float | None = Field(
        description="all outcomes, from the start to the end, pauses included"
    )
    parts: tuple[CertifiedPart, ...]
    parts_sha256: str = Field(
        description="of results.sha256, which `sha256sum --check` reads: one hash for all parts"
    )
