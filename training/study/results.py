"""results.json: everything a study found, and all that its report and figures are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from model_store import Evaluation, Plateau, Proportion, View
from training.evaluate.records import Found, ReliabilityBin, ReviewBand

Pretraining = Literal["colour", "full-greyscale", "subset-greyscale"]
Method = Literal["fc-originals", "fc-augmented", "all-augmented"]

RESULTS = "results.json"


class FlowStep(Found):
    """One box of the flow of images (the paper's Figure 1)."""

    name: str  # as "read", "train", "train with children"
    images: int
    patients: int | None = None  # None where a box counts children
    frontal: int | None = None
    lateral: int | None = None
    excluded: dict[str, int] = Field(default={})  # reason -> images left out here


class Candidate(Found):
    """One of the nine: how it was trained, and what it is worth on validation images."""

    name: str  # "full-greyscale, all-augmented"
    pretraining: Pretraining
    method: Method
    pretraining_images: int
    accuracy: Proportion  # PFI >= 0.5, of validation images and their children
    accuracy_originals: Proportion  # of the validation images alone
    loss: float  # cross-entropy in which both views weigh the same, of images and children
    training_images: int  # seen in all epochs together, children counted
    seconds: float
    images_per_second: float  # forward and backward; of frozen layers, the cached features' pass


class Group(Found):
    """Candidates pooled for a comparison: right answers of n."""

    name: str
    right: int
    n: int


class Comparison(Found):
    """A pooled comparison of candidates by chi-squared."""

    question: str  # "augmented or not"
    groups: tuple[Group, ...]
    chi_squared: float | None  # None where every answer was right, or every one wrong
    degrees_of_freedom: int
    p: float | None


class Curve(Found):
    """Youden's J by cutoff; `cutoffs` from 0 to 1 by 0.001."""

    measured_on: str
    cutoffs: tuple[float, ...]
    youden_j: tuple[float, ...]


class Calibration(Found):
    """How well PFI is a probability, before and after temperature scaling."""

    temperature: float  # logits are divided by it; fitted on validation images and children
    ece_before: float  # expected calibration error on test images
    ece_after: float
    ece_grid_before: float  # the same on the Figure 6 grid of all test images
    ece_grid_after: float
    reliability_before: tuple[ReliabilityBin, ...]  # of the Figure 6 grid, where errors are
    reliability_after: tuple[ReliabilityBin, ...]


class TestImage(Found):
    """One test image and its PFI."""

    __test__ = False  # a name that pytest would collect

    file: str
    source: str
    patient_id: str
    licence: str
    origin: str
    view: View
    pfi: float
    transformed: dict[str, float] = Field(default={})  # Figure 6 transformation -> PFI


class Assessed(Found):
    """All test rows at one cutoff."""

    rule: Literal["middle", "high"]
    threshold: float
    evaluations: tuple[Evaluation, ...]


class LeakageRow(Found):
    """One way of measuring against another: how far a figure depends on the method."""

    question: str  # "split", "cutoff", "interval", "source"
    setting: str  # "by image", "by patient", ...
    model: str  # what was trained: "chosen candidate", "frozen features, 20 splits"
    n: int  # test images, over all repeats
    accuracy: float
    ci95: tuple[float, float]
    ci_method: str
    auroc: float | None
    note: str = ""


class Verdict(Found):
    """One row of the chosen model against the published version's."""

    row: str
    ours: float
    published: float
    images: int
    measure: Literal["accuracy", "AUROC"]
    as_good: bool


class Speed(Found):
    """What training and testing cost on this machine."""

    training_images_per_second: float  # all layers, forward and backward, the slowest candidate
    loading_share: float  # of a training step's time, spent on making its batch; the worst
    test_images_per_second: float  # ONNX Runtime, tensors in memory, batches of 8
    device: str
    world_size: int


class Results(Found):
    """One study."""

    title: str
    created: str
    command: str
    config: dict[str, object]
    environment: dict[str, str]
    data: dict[str, str]  # file -> SHA-256
    kappa: str | None  # agreement of two readers where there were two
    flow: tuple[FlowStep, ...]
    children: int  # an image, in `accuracy` and in frozen-layer training
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    chosen: str
    plateau: Plateau
    curves: tuple[Curve, ...]  # validation; test, for comparison only
    calibration: Calibration
    review: ReviewBand
    assessed: tuple[Assessed, ...]
    baselines: tuple[Evaluation, ...]
    window: tuple[Evaluation, ...]  # min-max against percentiles, frozen features, validation
    leakage: tuple[LeakageRow, ...]
    leakage_text: str
    incumbent: str | None
    verdicts: tuple[Verdict, ...]
    published: str | None  # the version that came of it
    test_images: tuple[TestImage, ...]
    speed: Speed

    def save(self, run: Path) -> None:
        """Write results.json."""
        (run / RESULTS).write_text(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, run: Path) -> Results:
        """Read results.json."""
        return cls.model_validate_json((run / RESULTS).read_bytes())
