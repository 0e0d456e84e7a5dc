"""`distil`: a small network that answers as its teacher does, at a hundredth of the work.

The student gets its teacher's patients: the split, the validation images and the tests are those of
the teacher's run, at the student's own size.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training.data.manifest import read_images
from training.evaluate.torch_predictors import predict
from training.networks.swift import SIDE, Swift
from training.train.distillation_data import (
    BATCH,
    Originals,
    TransferBatches,
    TransferSet,
    distillation_loss,
    make_transfer_set,
    photographs,
)
from training.train.evaluation_rows import CUTOFF_CHILDREN, fitted_plateau
from training.train.fit import (
    AVERAGE_DECAY,
    CUTOFF,
    Judge,
    load_best,
    load_weights,
    validation_images,
)
from training.train.loop import run_training
from training.train.processes import pick_device
from training.train.sampling import RandomBatches, sampling_weights
from training.train.settings import COMMAND, FitSettings, rows_of, save_settings
from training.train.trainer import Recipe, Trainer

SETTINGS, TRANSFER = "distil.json", "transfer.npz"


@dataclass(frozen=True)
class DistilSettings:
    """What defines a student. The same settings, teacher and machine give the same weights."""

    teacher: Path  # the run of `fit` to learn from
    photographs: Path  # zip or folder; without a label, for the teacher's answers alone
    images: int = 24_000  # transformed radiographs in the transfer set
    photograph_images: int = 6_000
    steps: int = 10_000
    batch: int = 64
    rate: float = 0.1  # the peak of one cycle
    weight_decay: float = 2e-4
    label_smoothing: float = 0.02  # as the teacher's
    check_every: int = 500  # steps
    seed: int = 1
    size: int = SIDE
    children: int = CUTOFF_CHILDREN  # for the cutoff alone; steps are judged on the teacher's

    @property
    def of_student(self) -> FitSettings:
        """The teacher's split and data, at the student's size."""
        return replace(FitSettings.load(self.teacher), size=self.size, children=self.children)

    def save(self, run: Path) -> None:
        """Write distil.json.

        Raises:
            ValueError: The folder belongs to a run with other settings, or the teacher has several
                heads.
        """
        if FitSettings.load(self.teacher).heads:
            raise ValueError(
                f"{self.teacher} has several heads, and a student learns the view alone: "
                "`fit --network swift --heads ...` trains a small network without a teacher"
            )
        save_settings(self, run / SETTINGS)

    @classmethod
    def load(cls, run: Path) -> DistilSettings:
        """Read distil.json."""
        raw: dict[str, Any] = json.loads((run / SETTINGS).read_text())
        return cls(**raw | {name: Path(raw[name]) for name in ("teacher", "photographs")})


def distil(settings: DistilSettings, run: Path) -> None:
    """Train a student, or go on where it stopped; leave best.pt and cutoff.json in `run`.

    Raises:
        FloatingPointError: The loss is no longer a number.
        ManifestError, ValueError: The data or the settings cannot be used.
    """
    settings.save(run)
    device = pick_device()
    trainer = make_student(settings, transfer_set(settings, run, device), device)
    checked = replace(FitSettings.load(settings.teacher), size=settings.size)
    judge = Judge(validation_images(checked), device)
    run_training(trainer, judge.loss, run, settings.check_every)
    student = load_weights(Swift(), run, device)
    plateau = fitted_plateau(lambda tensors: predict(student, tensors, device), settings.of_student)
    (run / CUTOFF).write_text(plateau.model_dump_json(indent=2) + "\n")


def transfer_set(settings: DistilSettings, run: Path, device: torch.device) -> TransferSet:
    """The run's transfer set, made by the teacher where it is not there yet."""
    file = run / TRANSFER
    if not file.exists():
        taught = FitSettings.load(settings.teacher)
        rows = rows_of(taught, "train")
        train = read_images(rows, taught.images, taught.double_spec)
        batches = RandomBatches(
            train, size=taught.size, batch=BATCH, seed=settings.seed, device=device
        )
        plain = read_images(rows, taught.images, settings.of_student.spec)
        whole = read_images(rows, taught.images, taught.spec)
        made = make_transfer_set(
            load_best(settings.teacher, device),
            Originals(plain.tensors, whole.tensors, plain.labels, sampling_weights(rows)),
            (batches.batch(step) for step in range(-(-settings.images // BATCH))),
            photographs(
                settings.photographs, settings.photograph_images, taught.size, settings.seed
            ),
            settings.size,
        )
        made.save(file)
    return TransferSet.load(file)


def make_student(
    settings: DistilSettings, data: TransferSet, device: torch.device
) -> Trainer[Swift]:
    """A trainer at step 0 of a run."""
    torch.manual_seed(settings.seed)
    recipe = Recipe(
        steps=settings.steps,
        rate=settings.rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        average_decay=AVERAGE_DECAY,
        seed=settings.seed,
    )
    batches = TransferBatches(data, batch=settings.batch, seed=settings.seed, device=device)
    return Trainer(Swift(), batches, recipe, device, distillation_loss)


def add_command(commands: Any) -> None:
    """`distil`, among the commands of `python -m training`."""
    default = {name: each.default for name, each in DistilSettings.__dataclass_fields__.items()}
    command = commands.add_parser(
        "distil", help="train the small network on a finished run's answers; run again to resume"
    )
    command.add_argument("run", type=Path, help="folder for checkpoints and results")
    command.add_argument("--teacher", type=Path, required=True, help="a finished run of `fit`")
    command.add_argument(
        "--photographs", type=Path, required=True, help="zip or folder of any photographs"
    )
    for name in (
        "images",
        "photograph_images",
        "steps",
        "batch",
        "seed",
        "check_every",
        "children",
    ):
        command.add_argument(f"--{name.replace('_', '-')}", type=int, default=default[name])
    command.add_argument("--rate", type=float, default=default["rate"], help="peak of one cycle")
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    fields = DistilSettings.__dataclass_fields__
    given = {name: value for name, value in vars(options).items() if name in fields}
    settings = DistilSettings(**given)
    settings.save(options.run)  # first, so that a run with other settings keeps its command
    (options.run / COMMAND).write_text(options.command_line + "\n")
    distil(settings, options.run)
