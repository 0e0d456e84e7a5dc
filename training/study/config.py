"""What defines a study: one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from model_store import PreprocessSpec
from training.study.results import Method, Pretraining

SHIPPED = Path(__file__).parent / "configs"
CONFIG = "config.toml"  # in a run's folder: the study's, with every default written out

Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Read once; a key that this code does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """Where everything lies: paths from the current folder."""

    manifest: Path
    exclusions: Path | None = None  # CSV with a column `reason`: what the manifest left out
    agreement: Path | None = None  # JSON: what two readers of the views agreed on
    images: Path  # zip or folder
    weights: Path  # GoogLeNet of colour ImageNet, npz
    photographs: Path | None = None  # zip or folder of a folder per class; for the greyscale steps
    photographs_manifest: Path | None = None  # CSV: file, label, split (train|val), subset (0|1)
    subset_classes: Path | None = None  # else: a text file, a class a line


class Split(Section):
    """Which images train, choose and test; a `split` column in the manifest wins."""

    by: Literal["patient", "image"] = "patient"
    validation: Share = 0.2
    test: Share = 0.2


class Pretrain(Section):
    """From colour to grey photographs: all layers, the rate divided by 10 every `decay_epochs`."""

    kinds: tuple[Pretraining, ...] = ("colour", "full-greyscale", "subset-greyscale")
    size: PositiveInt = 224  # of the random crops, in pixels, from photographs of 8/7 of it
    epochs: PositiveInt = 30
    decay_epochs: PositiveInt = 10
    epoch_images: PositiveInt | None = None  # at most as many an epoch; None: all
    batch: PositiveInt = 24
    rate: PositiveFloat = 0.0005
    weight_decay: float = 5e-4


class Finetune(Section):
    """From photographs to radiographs."""

    methods: tuple[Method, ...] = ("fc-originals", "fc-augmented", "all-augmented")
    epochs: PositiveInt = 30
    decay_epochs: PositiveInt = 10
    epoch_images: PositiveInt | None = None  # at most as many an epoch; None: all
    frozen_epochs: PositiveInt = 30  # of fully connected layers on cached features
    frozen_decay_epochs: PositiveInt = 10
    batch: PositiveInt = 24
    rate_fc: PositiveFloat = 0.005
    rate_all: PositiveFloat = 0.0005
    weight_decay: float = 5e-4
    # Children an image for validation and for cached features; the first is the image itself. All
    # layers always draw from all 106, made on the fly. Features take 4 KiB of memory a child.
    children: Annotated[int, Field(ge=2, le=106)] = 106
    # False: every image and child once an epoch, as in the paper. True: drawn so that the views
    # weigh the same within every source, where views or sources are unequal in number.
    balance: bool = False
    drop: bool = True  # dropout


class Assess(Section):
    """How the chosen candidate is read and tested."""

    rule: Literal["middle", "high"] = "middle"  # which point of the plateau a publication has
    error_bound: Share = 0.02  # of answers outside the review band
    confidence: Share = 0.95
    leakage_repeats: PositiveInt = 20  # random splits, on frozen features
    retrain_by_image: bool = True  # the chosen candidate once more, split by image
    bootstrap_repeats: PositiveInt = 2000
    gallery: PositiveInt = 8  # images of the error gallery


class Publish(Section):
    """What may become of the chosen candidate."""

    when: Literal["as good", "always", "never"] = "never"  # as the incumbent, on every row
    incumbent: str | None = None  # "name/version" in the store
    name: str = "googlenet"
    version: str = "0.0.1"
    store: Path | None = None  # None: the package's own
    probe: Path | None = None  # PNG or JPEG that may be shared; needed to publish
    limitations: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _what_is_needed_is_given(self) -> Self:
        if self.when != "never" and self.probe is None:
            raise ValueError("a version cannot be published without a probe")
        if self.when == "as good" and self.incumbent is None:
            raise ValueError('"as good" needs an incumbent to be as good as')
        return self


class Figures(Section):
    """What the report may show."""

    # Radiographs are drawn only where the manifest's licence matches: a report is a publication
    licences: str = r"^CC ?(BY|0)(?!.*ND)"


class Study(Section):
    """One study."""

    title: str
    seed: int = 1
    data: Data
    preprocess: PreprocessSpec = PreprocessSpec(version=1)  # as the paper: the whole picture
    split: Split = Split()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    assess: Assess = Assess()
    publish: Publish = Publish()
    figures: Figures = Figures()

    def save(self, run: Path) -> None:
        """Write config.toml, every default written out (TOML has no null: those stay out)."""
        values = self.model_dump(mode="json", exclude_none=True)
        (run / CONFIG).write_text(tomli_w.dumps(values))


def read_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """Read a TOML file and apply changes as "data.manifest=/data/manifest.csv".

    Args:
        path: A file, or the name of one that comes with the package: paper.toml, here.toml or
            smoke.toml.
        changes: Later ones win.

    Raises:
        ValueError: Not TOML, or values that a study cannot have; all are listed.
        FileNotFoundError: There is no such file.
    """
    if not path.exists() and (SHIPPED / path).exists():
        path = SHIPPED / path
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    for change in changes:
        _apply(values, change)
    return _validated(path, values)


def _apply(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"{change!r} is not KEY=VALUE")
    *sections, key = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    try:
        values[key] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[key] = text  # a path needs no quotes


def _validated(path: Path, values: Mapping[str, Any]) -> Study:
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError("\n".join([f"{path} is no study:", *lines])) from error
