"""Fine-tuning, start to end: data, sampling, steps, checkpoints, the best weights, the cutoff."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from model_store import Plateau, PreprocessSpec
from training.augment import Augmentation
from training.cutoff import youden_plateau
from training.evaluate import predict
from training.googlenet import GoogLeNet, Logits, load_pretrained
from training.manifest import (
    SHARES,
    LabelledImages,
    Part,
    Row,
    read_images,
    read_manifest,
    split_by_patient,
)

SETTINGS, CHECKPOINT, BEST, LOG, CUTOFF = (
    "settings.json",
    "checkpoint.pt",
    "best.pt",
    "log.csv",
    "cutoff.json",
)

ONE_VIEW_SHARE = 0.2  # of a batch, from sources that hold one view and so teach nothing about it
AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as in Szegedy et al.
AVERAGE_DECAY = 0.995  # the published weights are a running mean over about 200 steps


@dataclass(frozen=True)
class FitSettings:
    """What defines a run. The same settings on the same data and machine give the same weights."""

    manifest: Path
    images: Path
    weights: Path | None  # None: from scratch
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
        run.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), default=str, indent=2) + "\n"
        file = run / SETTINGS
        if file.exists() and file.read_text() != text:
            raise ValueError(f"{run} holds a run with other settings; choose another folder")
        file.write_text(text)

    @classmethod
    def load(cls, run: Path) -> FitSettings:
        """Read settings.json."""
        raw: dict[str, Any] = json.loads((run / SETTINGS).read_text())
        raw |= {name: Path(raw[name]) for name in ("manifest", "images")}
        raw["weights"] = Path(raw["weights"]) if raw["weights"] else None
        raw |= {name: tuple(raw[name]) for name in ("sources", "window_percentiles")}
        return cls(**raw)


def pick_device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rows_of(settings: FitSettings, part: Part) -> list[Row]:
    """The manifest's rows of one part of this run's split."""
    rows = read_manifest(settings.manifest)
    if settings.sources:
        rows = [row for row in rows if row.source in settings.sources]
    parts = split_by_patient(rows, settings.seed, settings.test_share)
    return [row for row in rows if parts[row.patient_id] == part]


def sampling_weights(rows: tuple[Row, ...]) -> npt.NDArray[np.float64]:
    """(N,) probabilities that balance the views within each source that holds both.

    Without this a network can score by recognising the source. Sources of one view share
    ONE_VIEW_SHARE by the root of their size; the others share the rest equally.
    """
    sources = np.array([row.source for row in rows])
    frontal = np.array([row.view == "frontal" for row in rows])
    weights = np.zeros(len(rows))
    mixed: list[npt.NDArray[np.bool_]] = []
    single: list[npt.NDArray[np.bool_]] = []
    for source in np.unique(sources):
        own = sources == source
        (mixed if 0 < frontal[own].sum() < own.sum() else single).append(own)
    for own in mixed:
        for group in (own & frontal, own & ~frontal):
            weights[group] = 0.5 / group.sum()
    if mixed:
        weights *= (1 - ONE_VIEW_SHARE if single else 1) / len(mixed)
    roots = sum(np.sqrt(own.sum()) for own in single)
    for own in single:
        weights[own] = (ONE_VIEW_SHARE if mixed else 1) * np.sqrt(own.sum()) / roots / own.sum()
    return weights


def loss_of(logits: Logits, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of the main head and, while training, a share of the auxiliary heads'."""
    loss = cross_entropy(logits.main.float(), labels, label_smoothing=smoothing)
    for head in logits.auxiliary:
        loss = loss + AUXILIARY_WEIGHT * cross_entropy(head.float(), labels)
    return loss


def fit(settings: FitSettings, run: Path) -> None:
    """Train, or go on where the last checkpoint ended; leave best.pt and cutoff.json in `run`.

    Raises:
        FloatingPointError: The loss is no longer a number.
        ManifestError, ValueError: The data or the settings cannot be used.
    """
    settings.save(run)
    train = read_images(rows_of(settings, "train"), settings.images, settings.double_spec)
    judge = Judge(validation_images(settings), pick_device())
    trainer = Trainer(settings, train, pick_device())
    trainer.resume(run / CHECKPOINT)
    with tqdm(total=settings.steps, initial=trainer.step, desc="fit", unit="step") as progress:
        while trainer.step < settings.steps:
            loss = trainer.train_step()
            progress.update()
            progress.set_postfix(loss=f"{loss:.3f}", best=f"{trainer.best:.4f}")
            if trainer.step % settings.check_every == 0 or trainer.step == settings.steps:
                _check(trainer, judge, run, loss)
    network = load_best(run, pick_device())
    plateau = judge.plateau(network, f"validation images and {settings.children} children of each")
    (run / CUTOFF).write_text(plateau.model_dump_json(indent=2) + "\n")


def _check(trainer: Trainer, judge: Judge, run: Path, loss: float) -> None:
    score = judge.loss(trainer.average)
    if score < trainer.best:  # strictly: of equals the earlier one stays
        trainer.best = score
        torch.save(trainer.average.state_dict(), run / BEST)
    trainer.save(run / CHECKPOINT)
    with (run / LOG).open("a", newline="") as file:
        csv.writer(file).writerow((trainer.step, f"{loss:.5f}", f"{score:.5f}"))


def load_best(run: Path, device: torch.device) -> GoogLeNet:
    """The best weights of a run, in evaluation mode."""
    network = GoogLeNet()
    network.load_state_dict(torch.load(run / BEST, map_location=device, weights_only=True))
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]  # torch's stub lacks this form


def validation_images(settings: FitSettings) -> LabelledImages:
    """The validation images and `settings.children` augmented copies of each, always the same."""
    rows = rows_of(settings, "validation")
    copies = [read_images(rows, settings.images, settings.spec).tensors]
    parents = torch.from_numpy(read_images(rows, settings.images, settings.double_spec).tensors)
    augmentation = Augmentation(settings.seed + 1, settings.size)
    for _ in range(settings.children):
        batches = [augmentation(batch) for batch in torch.split(parents, 64)]
        copies.append(torch.cat(batches).round().to(torch.uint8).numpy())
    return LabelledImages(tuple(rows) * len(copies), np.concatenate(copies))


@dataclass(frozen=True)
class Judge:
    """The validation images, and what weights are worth on them."""

    images: LabelledImages
    device: torch.device

    def loss(self, network: GoogLeNet) -> float:
        """Cross-entropy in which both views weigh the same, whatever their numbers."""
        pfi = predict(network, self.images.tensors, self.device).astype(np.float64).clip(1e-7, 1)
        labels = self.images.labels
        surprise = -np.log(np.where(labels == 1, pfi, (1 - pfi).clip(1e-7, 1)))
        return float((surprise[labels == 1].mean() + surprise[labels == 0].mean()) / 2)

    def plateau(self, network: GoogLeNet, measured_on: str) -> Plateau:
        """Youden's plateau on these images."""
        pfi = predict(network, self.images.tensors, self.device)
        return youden_plateau(pfi, self.images.labels, measured_on)


class Trainer:
    """The network, its running mean, optimiser and random state: all that a checkpoint holds."""

    def __init__(self, settings: FitSettings, train: LabelledImages, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, device
        self.step, self.best = 0, float("inf")
        self.tensors, self.labels = torch.from_numpy(train.tensors), torch.from_numpy(train.labels)
        self.weights = torch.from_numpy(sampling_weights(train.rows))
        network = GoogLeNet()
        if settings.weights is not None:
            load_pretrained(network, settings.weights)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self.averaged = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY),  # type: ignore[no-untyped-call]  # torch's own
        )
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=settings.rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=settings.weight_decay,
        )
        self.schedule = OneCycleLR(self.optimizer, settings.rate, total_steps=settings.steps + 1)
        self.augment = Augmentation(settings.seed, settings.size, device)
        self.picker = torch.Generator().manual_seed(settings.seed)

    @property
    def average(self) -> GoogLeNet:
        """The running mean of the weights: what is judged and published."""
        network = self.averaged.module
        assert isinstance(network, GoogLeNet)
        return network

    def train_step(self) -> float:
        """One batch, forward and backward; returns its loss."""
        self.network.train()
        picked = torch.multinomial(
            self.weights, self.settings.batch, replacement=True, generator=self.picker
        )
        tensors = self.augment(self.tensors[picked])  # (B, 1, S, S) float32 of 0..255
        labels = self.labels[picked].to(self.device)  # (B,) in {0: lateral, 1: frontal}
        inputs = tensors.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(inputs)
        loss = loss_of(logits, labels, self.settings.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss became {loss.item()} at step {self.step}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimizer.step()
        self.schedule.step()
        self.averaged.update_parameters(self.network)
        self.step += 1
        return loss.item()

    def save(self, file: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        draft = file.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "best": self.best,
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "augment": self.augment.random.get_state(),
                "picker": self.picker.get_state(),
                "torch": torch.get_rng_state(),
            },
            draft,
        )
        draft.replace(file)

    def resume(self, file: Path) -> None:
        """Take up a checkpoint if there is one."""
        if not file.exists():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.step, self.best = state["step"], state["best"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.augment.random.set_state(state["augment"].cpu())
        self.picker.set_state(state["picker"].cpu())
        torch.set_rng_state(state["torch"].cpu())
