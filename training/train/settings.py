"""What defines a run, and the part of the data that it is about."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from model_store import PreprocessSpec
from training.data.manifest import ManifestError, Part, Row, read_manifest
from training.data.split import SHARES, split
from training.networks.heads import Head

SETTINGS, COMMAND = "settings.json", "command.txt"


@dataclass(frozen=True)
class FitSettings:
    """What defines a run. The same settings on the same data and machine give the same weights."""

    manifest: Path
    images: Path
    weights: Path | None  # None: from scratch, or from `start`
    sources: tuple[str, ...] = ()  # fit on these only; empty: all
    test_share: float = SHARES["test"]  # 0 where another source is the test
    steps: int = 1500
    batch: int = 24
    rate: float = 2e-3  # the peak of one cycle
    weight_decay: float = 5e-4
    label_smoothing: float = 0.02  # keeps easy images' PFIs off 0 and 1, where logits are noise
    seed: int = 1
    check_every: int = 150  # steps between looks at the validation set, each with a checkpoint
    children: int = 4  # augmented copies of a validation image, for choosing weights and cutoff
    size: int = 256
    window_percentiles: tuple[float, float] = (0.5, 99.5)
    network: Literal["googlenet", "swift"] = "googlenet"
    heads: tuple[Head, ...] = ()  # none: the view alone, as published; else `view` first
    left_out: tuple[str, ...] = ()  # sources that neither train nor validate; they are the test
    start: str | None = None  # a published version to begin with, as swift/1.1.0

    def __post_init__(self) -> None:
        """Refuse what no run can have.

        Raises:
            ValueError: With all such settings.
        """
        least = {"steps": 1, "batch": 1, "check_every": 1, "size": 32, "children": 0, "seed": 0}
        problems = [
            f"{name.replace('_', '-')} is {getattr(self, name)}, below {value}"
            for name, value in least.items()
            if getattr(self, name) < value
        ]
        if not 0 < self.rate < math.inf:
            problems.append(f"rate is {self.rate}, not a positive number")
        if not 0 <= self.test_share < 1:
            problems.append(f"test-share is {self.test_share}, not 0 or more and below 1")
        if len(set(self.heads)) < len(self.heads):
            problems.append(f"a head is asked twice: {' '.join(self.heads)}")
        if self.weights is not None and self.network == "swift":
            problems.append("swift has no pre-trained weights: begin with --start, or from scratch")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing of this run's model."""
        return PreprocessSpec(size=self.size, window_percentiles=self.window_percentiles)

    @property
    def double_spec(self) -> PreprocessSpec:
        """The same at twice the size, from which augmentation takes its crops."""
        return PreprocessSpec(size=2 * self.size, window_percentiles=self.window_percentiles)

    def save(self, run: Path) -> None:
        """Write settings.json; a run that has other settings there is another run.

        Raises:
            ValueError: The folder belongs to a run with other settings.
        """
        save_settings(self, run / SETTINGS)

    @classmethod
    def load(cls, run: Path) -> FitSettings:
        """Read settings.json."""
        raw: dict[str, Any] = json.loads((run / SETTINGS).read_text())
        raw |= {name: Path(raw[name]) for name in ("manifest", "images")}
        raw["weights"] = Path(raw["weights"]) if raw["weights"] else None
        raw |= {name: tuple(raw[name]) for name in ("sources", "window_percentiles")}
        raw |= {name: tuple(raw.get(name, ())) for name in ("heads", "left_out")}
        return cls(**raw)


def save_settings(settings: Any, file: Path) -> None:
    """Write what defines a run into its folder; what has other settings there is another run.

    Args:
        settings: A dataclass of what JSON and `str` can show.
        file: In the run's folder, which is made.

    Raises:
        ValueError: The folder belongs to a run with other settings.
    """
    run = file.parent
    run.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(settings), default=str, indent=2) + "\n"
    if file.exists() and file.read_text() != text:
        raise ValueError(f"{run} holds a run with other settings; choose another folder")
    file.write_text(text)


def rows_of(settings: FitSettings, part: Part) -> list[Row]:
    """The manifest's rows of one part of this run's split.

    With sources that are left out, these are the test, whole; the others train and validate.

    Raises:
        ManifestError: A source to leave out is not in the manifest, or nothing is left to train or
            to validate.
    """
    rows = read_manifest(settings.manifest, negatives=bool(settings.heads))
    if settings.sources:
        rows = [row for row in rows if row.source in settings.sources]
    if settings.left_out:
        if unknown := sorted({*settings.left_out} - {row.source for row in rows}):
            raise ManifestError(f"no image is of a source to leave out: {', '.join(unknown)}")
        out = [row for row in rows if row.source in settings.left_out]
        if part == "test":
            return out
        rows = [row for row in rows if row.source not in settings.left_out]
    parts = split(rows, settings.seed, test=0 if settings.left_out else settings.test_share)
    found = [row for row, own in zip(rows, parts, strict=True) if own == part]
    if not found and part != "test":
        to_do = {"train": "train", "validation": "validate"}[part]
        raise ManifestError(
            f"no image is left to {to_do}: patients are kept whole, and there are "
            f"{len({row.patient_id for row in rows})} of them"
        )
    return found
