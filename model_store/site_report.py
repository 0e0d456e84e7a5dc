"""What a calibration on a site's own images changes: cutoffs, review bands and errors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from model_store.card import Frozen, Interval, Proportion


class Point(Frozen):
    """A cutoff of a probability, and the band about it that a person should look at, 0..1."""

    cutoff: float
    band: Interval


class Side(Frozen):
    """How a version answers the site's images."""

    model: str = Field(description="name/version")
    view: Point
    heads: dict[str, Point] = Field(description="by head: those beside the view with a cutoff")
    errors: Proportion = Field(description="in the view, of all images")
    frontal_errors: Proportion = Field(description="of the frontal images")
    lateral_errors: Proportion = Field(description="of the lateral images")
    review: Proportion = Field(description="images in the band of the view")


class SiteReport(Frozen):
    """What a calibration changes, before and after.

    Before, `errors` counts with the old cutoff, which these images did not choose. After, each
    image is answered with a cutoff fitted on the patients of the other folds. `review` counts the
    bands as they are in the cards.
    """

    images: int = Field(description="frontal or lateral ones")
    patients: int
    rule: Literal["middle", "high"] = Field(description="the point of the Youden plateau")
    error_bound: float = Field(description="of the answers outside the new band, 0 to 1")
    confidence: float = Field(description="that the bound holds, 0 to 1")
    attained: float = Field(
        description="upper limit of the errors outside the new band, at that confidence"
    )
    change_needed: bool = Field(
        description="false: the old cutoff lies on the Youden plateau of these images"
    )
    before: Side
    after: Side
