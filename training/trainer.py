"""One network in training: what a step does, and all that a checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.augment import Augmentation
from training.googlenet import GoogLeNet, Logits, load_pretrained
from training.manifest import LabelledImages, Row
from training.settings import FitSettings

ONE_VIEW_SHARE = 0.2  # of a batch, from sources that hold one view and so teach nothing about it
AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as in Szegedy et al.
AVERAGE_DECAY = 0.995  # the published weights are a running mean over about 200 steps


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
