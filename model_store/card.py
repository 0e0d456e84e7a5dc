"""The model card: the facts about a model version, and its decision threshold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

View = Literal["frontal", "lateral"]

Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """Immutable data without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessSpec(Frozen):
    """How a radiograph becomes the network's input; the same in training and in serving.

    `size` is S of the (1, S, S) uint8 tensor, in pixels. `window_percentiles` are the percentiles
    of the S x S thumbnail that become 0 and 255: (0, 100) is the min-max window of the paper.

    `version` 1 uses the whole picture. Version 2 first ignores pixels that show no patient:
    declared padding, pixels outside a shutter, wide constant borders, and outlying values
    (`service.imaging.exposed` and `outliers`).
    """

    version: Literal[1, 2] = 2
    size: Annotated[int, Field(ge=32, le=1024)] = 256
    window_percentiles: tuple[float, float] = (0.0, 100.0)

    @model_validator(mode="after")
    def _percentiles_ascend(self) -> Self:
        low, high = self.window_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"window_percentiles must ascend within 0..100, not {low}, {high}")
        return self


class Interval(Frozen):
    """A closed interval of PFIs."""

    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _ends_ascend(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} exceeds high {self.high}")
        return self


class Plateau(Interval):
    """The cutoffs at which Youden's J is maximal on the images named by `measured_on`.

    Every cutoff t with low < t <= high gives the same J there, because `low` is the PFI of one
    image and `high` that of the next.
    """

    youden_j: Annotated[float, Field(ge=-1, le=1)]
    measured_on: str
    images: Count


class Proportion(Frozen):
    """`count` of `n`, with the exact (Clopper-Pearson) 95 % confidence interval."""

    count: Count
    n: Count
    value: Probability
    ci95: tuple[Probability, Probability]


class Evaluation(Frozen):
    """One row of the results. Frontal is the positive class: sensitivity is of frontal images."""

    name: str
    images: Count
    patients: Count
    accuracy: Proportion
    sensitivity: Proportion | None = Field(description="null where the set holds no frontal image")
    specificity: Proportion | None = Field(description="null where the set holds no lateral image")
    auroc: Probability | None = Field(description="null where the set holds one view only")
    review: Proportion = Field(description="images marked for review")
    note: str = ""


class ReviewBound(Frozen):
    """The bound of the error rate outside the review band, by which the band was chosen."""

    error_bound: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="of the one-sided Clopper-Pearson limit"
    )
    attained: Probability = Field(description="the upper limit of the error rate that was reached")
    coverage: Proportion = Field(description="images of `measured_on` outside the band")
    measured_on: str

    @model_validator(mode="after")
    def _the_bound_is_kept(self) -> Self:
        if self.attained > self.error_bound:
            raise ValueError(f"attained {self.attained} exceeds error_bound {self.error_bound}")
        return self


class DataSource(Frozen):
    """A source of images or weights, with its licence."""

    name: str
    use: Literal["pre-training", "fine-tuning"]
    licence: str
    origin: str
    frontal: Count = 0
    lateral: Count = 0
    note: str = ""


class Decision(NamedTuple):
    """The decision for one PFI."""

    view: View
    review: bool


class ModelCard(Frozen):
    """A model version's card; `ModelCard.model_json_schema()` documents every key."""

    card_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    created: datetime
    architecture: str
    intended_use: str
    limitations: tuple[str, ...]
    licence: str
    preprocess: PreprocessSpec
    threshold: Probability = Field(description="frontal when PFI >= threshold")
    threshold_rule: Literal["middle", "high"] = Field(
        description="the point of the plateau: its middle in logits, or its upper end (the paper)"
    )
    plateau: Plateau
    review_margin_logits: Annotated[float, Field(ge=0)] = Field(
        description="the review band reaches at least this far to both sides of the threshold; "
        "0 where `review_error_bound` chose it"
    )
    review_band: Interval = Field(description="a PFI in here is answered, and marked for review")
    review_error_bound: ReviewBound | None = Field(
        default=None, description="null where the band follows from the plateau and the margin"
    )
    temperature: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="logits are divided by it within the graph; null: they are not"
    )
    calibrated_from: str | None = Field(
        default=None,
        description="name/version with the same weights, whose cutoff and band were fitted anew",
    )
    derived_from: str | None = Field(
        default=None,
        description="name/version that taught it, or whose weights it holds, in other numbers or "
        "behind another preprocessing",
    )
    evaluations: tuple[Evaluation, ...]
    data: tuple[DataSource, ...]
    training_command: str
    publish_command: str
    software: dict[str, str]
    model_sha256: Sha256
    probe_sha256: Sha256
    probe_pfi: Probability
    probe_tolerance: Annotated[float, Field(gt=0, le=0.01)] = 1e-3
    parity_max_abs_difference: Annotated[float, Field(ge=0)] = Field(
        description="largest |PFI(torch) - PFI(ONNX Runtime)| seen when it was published; "
        "of a form in other numbers, largest |PFI(parent) - PFI(form)| on validation images"
    )

    @model_validator(mode="after")
    def _threshold_lies_in_its_plateau_and_band(self) -> Self:
        for name, interval in (("plateau", self.plateau), ("review_band", self.review_band)):
            if not interval.low <= self.threshold <= interval.high:
                raise ValueError(f"threshold {self.threshold} lies outside its {name}")
        return self

    def decide(self, pfi: float, *, doubtful: bool = False) -> Decision:
        """Apply the stored cutoff to one PFI (0..1); `doubtful` images are reviewed in any case."""
        return Decision(
            view="frontal" if pfi >= self.threshold else "lateral",
            review=doubtful or self.review_band.low <= pfi <= self.review_band.high,
        )
