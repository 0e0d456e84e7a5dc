"""The model card: the facts about a model version, and its decision threshold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_store.prediction import Prediction

View = Literal["frontal", "lateral"]
AnsweredView = Literal["frontal", "lateral", "not_chest"]  # what an answer says of an image
Rotation = Literal[0, 90, 180, 270]  # degrees clockwise by which an image must be turned to stand
ROTATIONS: tuple[Rotation, ...] = get_args(Rotation)
Task = Literal["chest", "rotation", "inverted", "mirrored"]  # of a head beside that of the view

Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
VersionNumber = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}$")]


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
    calibration_error: Probability | None = Field(
        default=None, description="expected, over 15 bins of the PFI; since card version 2"
    )
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
    not_chest: Count = Field(default=0, description="since card version 2")
    note: str = ""


class HeadCutoff(Frozen):
    """Where a head with two classes says yes, and where it is uncertain."""

    threshold: Probability = Field(description="yes when the probability >= threshold")
    threshold_rule: str = Field(description="how the threshold was chosen, in words")
    plateau: Plateau = Field(description="Youden's, whether or not the threshold lies on it")
    review_band: Interval = Field(
        description="a probability in here is uncertain; only that of `chest` marks for review"
    )

    @model_validator(mode="after")
    def _threshold_lies_in_its_band(self) -> Self:
        if not self.review_band.low <= self.threshold <= self.review_band.high:
            raise ValueError(f"threshold {self.threshold} lies outside its review_band")
        return self


class Heads(Frozen):
    """The heads of a network beside that of the view; null: the network has no such head."""

    chest: HeadCutoff | None = Field(default=None, description="is it a chest radiograph")
    rotation: bool = Field(default=False, description="needs no cutoff: the most probable of four")
    inverted: HeadCutoff | None = Field(default=None, description="is bone dark")
    mirrored: HeadCutoff | None = Field(
        default=None, description="of frontal images: is left on the right"
    )
    evidence: bool = Field(default=False, description="the graph gives a map of what it saw")


class HeadEvaluation(Frozen):
    """One row of the results of a head other than that of the view."""

    name: str
    task: Task
    images: Count
    patients: Count
    accuracy: Proportion
    by_class: dict[str, Proportion] = Field(description="share answered rightly, by true class")
    auroc: Probability | None = Field(default=None, description="null where it has four classes")
    review: Proportion | None = Field(default=None, description="in the head's review band")
    calibration_error: Probability | None = Field(
        default=None, description="expected, over 15 bins of the probability; null for four classes"
    )
    note: str = ""


class Orientation(Frozen):
    """How an image lies. null: the model has no such head, or the question does not apply."""

    model_config = ConfigDict(extra="ignore")  # a client reads answers of newer services too

    rotation_degrees: Rotation | None = Field(
        description="degrees clockwise by which the image must be turned to stand upright"
    )
    rotation_probability: Probability | None = Field(description="of this rotation")
    inverted: bool | None = Field(description="bone is dark, as in a negative")
    inverted_probability: Probability | None = Field(description="that it is inverted")
    mirrored: bool | None = Field(
        description="left is on the right, once it stands upright; frontal images only"
    )
    mirrored_probability: Probability | None = Field(description="that it is mirrored")


class Decision(NamedTuple):
    """The decision for one image."""

    view: AnsweredView
    review: bool
    orientation: Orientation | None = None  # None: no such head, or no chest radiograph


class ModelCard(Frozen):
    """A model version's card; `ModelCard.model_json_schema()` documents every key."""

    card_version: Literal[1, 2] = Field(
        default=1, description="2 where the network has heads beside that of the view"
    )
    name: ModelName
    version: VersionNumber
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
    heads: Heads = Field(default=Heads(), description="since card version 2")
    head_evaluations: tuple[HeadEvaluation, ...] = Field(
        default=(), description="since card version 2"
    )
    evaluations: tuple[Evaluation, ...]
    data: tuple[DataSource, ...]
    training_command: str
    split_seed: int | None = Field(
        default=None,
        description="of the split into train, validation and test by patient; null: the manifest "
        "named the parts, or the card does not tell",
    )
    publish_command: str
    software: dict[str, str]
    model_sha256: Sha256
    probe_sha256: Sha256
    probe_pfi: Probability
    probe_outputs: dict[str, tuple[Probability, ...]] = Field(
        default={}, description="what the heads beside that of the view answer to the probe"
    )
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

    @model_validator(mode="after")
    def _heads_need_card_version_2(self) -> Self:
        if self.card_version == 1 and (
            self.heads != Heads() or self.head_evaluations or self.probe_outputs
        ):
            raise ValueError("heads, head_evaluations and probe_outputs need card_version 2")
        return self

    def decide(self, prediction: Prediction, *, doubtful: bool = False) -> Decision:
        """Apply the stored cutoffs; `doubtful` images are reviewed in any case."""
        band, chest, heads = self.review_band, prediction.chest, self.heads
        review = doubtful or band.low <= prediction.pfi <= band.high
        if heads.chest is not None and chest is not None:
            uncertain = heads.chest.review_band.low <= chest <= heads.chest.review_band.high
            if chest < heads.chest.threshold:
                return Decision("not_chest", doubtful or uncertain)
            review = review or uncertain
        view: View = "frontal" if prediction.pfi >= self.threshold else "lateral"
        return Decision(view, review, self._orientation(prediction, view))

    def _orientation(self, prediction: Prediction, view: View) -> Orientation | None:
        heads, rotation = self.heads, prediction.rotation
        mirrored = prediction.mirrored if view == "frontal" else None
        if rotation is None and prediction.inverted is None and mirrored is None:
            return None
        return Orientation(
            rotation_degrees=ROTATIONS[rotation.index(max(rotation))] if rotation else None,
            rotation_probability=max(rotation) if rotation else None,
            inverted=_exceeds(prediction.inverted, heads.inverted),
            inverted_probability=prediction.inverted,
            mirrored=_exceeds(mirrored, heads.mirrored),
            mirrored_probability=mirrored,
        )


def _exceeds(probability: float | None, cutoff: HeadCutoff | None) -> bool | None:
    return None if probability is None or cutoff is None else probability >= cutoff.threshold
