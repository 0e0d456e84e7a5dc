"""Fine-tuning, start to end: data, steps, checkpoints, the best weights, the cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model_store import ModelVersion, Plateau, Store
from training.augmentation.augment import Augmentation
from training.data.manifest import LabelledImages, read_and_check, read_images, views_of
from training.data.split import SHARES
from training.evaluate.cutoff import HEADS_MARGIN, youden_plateau
from training.evaluate.heads import HeadImages, fit_heads
from training.evaluate.metrics import balanced_loss
from training.evaluate.torch_predictors import forward, predict, predict_heads
from training.networks import googlenet, swift
from training.networks.googlenet import GoogLeNet, load_pretrained
from training.networks.heads import NOT_ASKED, Head, HeadLayer, by_head, classes_of
from training.networks.published import start_from
from training.networks.swift import Swift
from training.train import processes
from training.train.chest_head import fit_chest
from training.train.heads import after_variation, answers_of, loss_of_heads, refuse_unanswerable
from training.train.loop import BEST, CHECKPOINT, run_training
from training.train.processes import pick_device
from training.train.sampling import RandomBatches, augmentation_for
from training.train.settings import FitSettings, rows_of
from training.train.trainer import Net, Recipe, Trainer, loss_of, save_whole

AVERAGE_DECAY = 0.995  # the published weights are a running mean over about 200 steps
CUTOFF, HEADS_CUTOFFS = "cutoff.json", "heads.json"
JUDGED_AT_ONCE = 48  # images
ARCHITECTURES = {"googlenet": googlenet.ARCHITECTURE, "swift": swift.ARCHITECTURE}  # for the card
# Of the heads' losses, beside that of the view: 1
HEAD_WEIGHTS: dict[Head, float] = {"chest": 0.5, "rotation": 0.5, "inverted": 0.25, "mirrored": 1.0}


def fit(settings: FitSettings, run: Path) -> None:
    """Train, or go on where the last checkpoint ended; leave best.pt and cutoff.json in `run`.

    A network of several heads leaves the cutoffs of the others in heads.json.

    Raises:
        FloatingPointError: The loss is no longer a number.
        ManifestError, ValueError: The data or the settings cannot be used.
    """
    settings.save(run)
    if not (run / CHECKPOINT).exists():  # a run that goes on has checked them
        read_and_check(
            settings.manifest,
            settings.images,
            settings.spec,
            negatives=bool(settings.heads),
            check=partial(_check, settings),
        )
    train = read_images(rows_of(settings, "train"), settings.images, settings.double_spec)
    trainer = make_trainer(settings, train, pick_device())
    if settings.heads:
        _fit_heads(settings, trainer, run)
        return
    judge = Judge(validation_images(settings), pick_device())
    run_training(trainer, judge.loss, run, settings.check_every)
    network = load_weights(network_of(settings), run, pick_device())
    plateau = judge.plateau(network, f"validation images and {settings.children} children of each")
    (run / CUTOFF).write_text(plateau.model_dump_json(indent=2) + "\n")


def _fit_heads(settings: FitSettings, trainer: Trainer[GoogLeNet | Swift], run: Path) -> None:
    device, heads = pick_device(), settings.heads
    judge = HeadsJudge.of(settings, device)
    run_training(trainer, judge.loss, run, settings.check_every)
    network = load_weights(network_of(settings), run, device)
    if "chest" in heads:
        fit_chest(network, settings, device)
        if processes.rank() == 0:
            save_whole(network.state_dict(), run / BEST)
    # not the judge's copies: they are meant to be hard, and some show too little for any answer
    images = validation_images(settings)
    pfi = predict_heads(network, heads, images.tensors, device)["pfi"]
    copies = f"validation images and {settings.children} children of each"
    plateau = youden_plateau(pfi, images.labels, copies)
    (run / CUTOFF).write_text(plateau.model_dump_json(indent=2) + "\n")
    rows = rows_of(settings, "validation")
    predict = partial(predict_heads, network, heads, device=device)
    shown = HeadImages.read(rows, settings.images, settings.spec)
    found = fit_heads(predict, shown, HEADS_MARGIN)
    (run / HEADS_CUTOFFS).write_text(found.model_dump_json(indent=2) + "\n")


def make_trainer(
    settings: FitSettings, train: LabelledImages, device: torch.device
) -> Trainer[GoogLeNet | Swift]:
    """A trainer at step 0 of a run; `train` holds tensors of twice the run's size."""
    torch.manual_seed(settings.seed)
    network = network_of(settings)
    if settings.weights is not None and isinstance(network, GoogLeNet):
        load_pretrained(network, settings.weights)
    recipe = Recipe(
        steps=settings.steps,
        rate=settings.rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        average_decay=AVERAGE_DECAY,
        seed=settings.seed,
        autocast=settings.network != "swift",  # convolutions by channel are slower in bfloat16
    )
    batches = RandomBatches(
        train,
        size=settings.size,
        batch=settings.batch,
        seed=settings.seed,
        device=device,
        heads=settings.heads,
    )
    if settings.start is not None:
        begin = Store().load(settings.start)
        sample, _ = batches.batch(0)
        start_from(network, begin, sample.cpu())
    loss = loss_of_heads(settings.heads, HEAD_WEIGHTS) if settings.heads else loss_of
    return Trainer(network, batches, recipe, device, loss)


def _check(settings: FitSettings) -> None:
    """Refuse heads that the images cannot teach, and a start that does not suit.

    Raises:
        ManifestError: A head has no images.
        ValueError: As `_check_start`.
    """
    for part in ("train", "validation"):
        refuse_unanswerable(rows_of(settings, part), settings.heads or ("view",), part)
    if settings.start is not None:
        _check_start(settings, Store().load(settings.start))


def _check_start(settings: FitSettings, version: ModelVersion) -> None:
    """Refuse to begin with a version.

    Raises:
        ValueError: It is of another network, or was trained on images that are to test this run or
            to choose its cutoffs.
    """
    begin = version.reference
    of = [own for own, text in ARCHITECTURES.items() if version.card.architecture.startswith(text)]
    if settings.network not in of:
        other = f"; add --network {of[0]}" if of else ""
        raise ValueError(f"{begin} is no {settings.network}{other}")
    size = version.card.preprocess.size
    if settings.size != size:
        raise ValueError(f"{begin} takes images of {size} pixels: add --size {size}")
    known = {each.name for each in version.card.data if each.use == "fine-tuning"}
    tested = set(settings.left_out) or (
        known - set(settings.sources) if settings.sources else set()
    )
    if seen := sorted(known & tested):
        raise ValueError(
            f"{begin} was trained on {', '.join(seen)}, which therefore cannot test what "
            "begins with it: use --weights, or train from scratch"
        )
    kept = rows_of(settings, "validation") + rows_of(settings, "test")
    mixed = sorted(known & {row.source for row in kept if row.part is None})
    seed = version.card.split_seed
    if mixed and seed is not None and settings.test_share > SHARES["test"]:
        raise ValueError(
            f"--test-share {settings.test_share} would test this run on images of "
            f"{', '.join(mixed)} that trained {begin}: {SHARES['test']} at most"
        )
    if mixed and seed not in (None, settings.seed):
        raise ValueError(
            f"{begin} was trained on images of {', '.join(mixed)} that would validate or "
            f"test this run: use --seed {seed}, or name each image's part in the column `split`"
        )


def network_of(settings: FitSettings) -> GoogLeNet | Swift:
    """A fresh network with the heads of a run."""
    classes = classes_of(settings.heads) if settings.heads else 2
    network = Swift(classes, hint=False) if settings.network == "swift" else GoogLeNet(classes)
    if settings.heads:
        network.fc = HeadLayer(network.fc, settings.heads)
    return network


def load_best(run: Path, device: torch.device) -> GoogLeNet:
    """The best weights of a run of the published protocol, in evaluation mode."""
    return load_weights(GoogLeNet(), run, device)


def load_weights(network: Net, run: Path, device: torch.device) -> Net:
    """Fill a network with the best weights of a run, for evaluation."""
    network.load_state_dict(torch.load(run / BEST, map_location=device, weights_only=True))
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]  # torch's stub lacks this form


def validation_images(settings: FitSettings) -> LabelledImages:
    """The validation images and `settings.children` augmented copies of each, always the same.

    Radiographs only, which have a view.
    """
    rows = views_of(rows_of(settings, "validation"))
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

    def loss(self, network: nn.Module) -> float:
        """Cross-entropy in which both views weigh the same, whatever their numbers."""
        pfi = predict(network, self.images.tensors, self.device)
        return balanced_loss(pfi, self.images.labels)

    def plateau(self, network: nn.Module, measured_on: str) -> Plateau:
        """Youden's plateau on these images."""
        pfi = predict(network, self.images.tensors, self.device)
        return youden_plateau(pfi, self.images.labels, measured_on)


@dataclass(frozen=True)
class HeadsJudge:
    """Validation images as they are and transformed, and what all heads are worth on them."""

    tensors: npt.NDArray[np.uint8]  # (N, 1, S, S)
    answers: Tensor  # (N, heads) int64, or NOT_ASKED
    heads: tuple[Head, ...]
    device: torch.device

    @classmethod
    def of(cls, settings: FitSettings, device: torch.device) -> Self:
        """The validation images of a run and `settings.children` augmented copies of each."""
        rows = rows_of(settings, "validation")
        tensors = [read_images(rows, settings.images, settings.spec).tensors]
        upright = answers_of(rows, settings.heads)
        answers = [upright]
        parents = torch.from_numpy(read_images(rows, settings.images, settings.double_spec).tensors)
        augmentation = augmentation_for(settings.heads, settings.seed + 1, settings.size)
        for _ in range(settings.children):
            parts = zip(torch.split(parents, 64), torch.split(upright, 64), strict=True)
            for batch, asked in parts:
                varied = augmentation.vary(batch)
                tensors.append(varied.tensors.round().to(torch.uint8).numpy())
                answers.append(after_variation(asked, varied, settings.heads))
        return cls(np.concatenate(tensors), torch.cat(answers), settings.heads, device)

    def loss(self, network: nn.Module) -> float:
        """The sum of all heads' cross-entropies; within a head, its classes weigh the same."""
        chunks = torch.split(torch.from_numpy(self.tensors), JUDGED_AT_ONCE)
        batches = (chunk.to(self.device).float() for chunk in chunks)
        network.eval()
        logits = torch.from_numpy(forward(lambda x: network(x).main, batches, len(chunks)))
        total = 0.0
        for column, (head, own) in enumerate(by_head(logits, self.heads).items()):
            truth = self.answers[:, column]
            losses = cross_entropy(own, truth, ignore_index=NOT_ASKED, reduction="none")
            classes = [each for each in range(own.shape[1]) if bool((truth == each).any())]
            of_classes = [losses[truth == each].mean() for each in classes]
            total += HEAD_WEIGHTS.get(head, 1.0) * float(torch.stack(of_classes).mean())
        return total
