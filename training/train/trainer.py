"""One network in training: what a step does, and all that a checkpoint holds.

Everything random in a step depends on the seed, the step and the process alone, never on what came
before: a resumed run therefore goes on as the unbroken one would have, without saved random state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.networks.googlenet import Logits
from training.train import processes

NUMBERS = ("step", "best", "seconds", "loading_seconds")  # of a trainer, kept in checkpoints
Net = TypeVar("Net", bound=nn.Module)  # (B, 1, S, S) of 0..255 -> Logits
Loss = Callable[[Logits, Tensor, float], Tensor]  # of labels, or whatever the batches hold instead
AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss, as in Szegedy et al.


class Batches(Protocol):
    """Where a trainer's batches come from."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of one step: (B, 1, S, S) float32 of 0..255, (B,) int64 labels.

        In place of labels, what the trainer's loss asks for.
        """


@dataclass(frozen=True)
class Recipe:
    """How weights are changed: SGD with Nesterov momentum 0.9, and its schedule."""

    steps: int
    rate: float  # the peak of one cycle; or, with `decay_steps`, the rate to begin with
    decay_steps: int | None = None  # divide the rate by 10 after as many steps, again and again
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    average_decay: float | None = None  # judge and publish a running mean of the weights
    seed: int = 1
    autocast: bool = True  # matrix products in bfloat16, twice as fast on CPUs that know it

    def schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """The learning rate of every step."""
        if self.decay_steps is None:
            return OneCycleLR(optimizer, self.rate, total_steps=self.steps + 1)
        return StepLR(optimizer, self.decay_steps, gamma=0.1)


def loss_of(logits: Logits, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of the main head and, while training, a share of the auxiliary heads'."""
    loss = cross_entropy(logits.main.float(), labels, label_smoothing=smoothing)
    for head in logits.auxiliary:
        loss = loss + AUXILIARY_WEIGHT * cross_entropy(head.float(), labels)
    return loss


class Trainer(Generic[Net]):
    """One network in training: its weights, their running mean, optimiser, schedule and counters.

    Args:
        network: Trained in all layers. With several processes, each holds an equal copy.
        batches: What to train on.
        recipe: How.
        device: Where.
        loss: Of the network's output, the batch's labels and the recipe's label smoothing.
    """

    def __init__(
        self,
        network: Net,
        batches: Batches,
        recipe: Recipe,
        device: torch.device,
        loss: Loss = loss_of,
    ) -> None:
        self.recipe, self.batches, self.device, self.loss = recipe, batches, device, loss
        self.step, self.best = 0, float("inf")
        self.seconds = self.loading_seconds = 0.0
        self.durations: list[float] = []  # seconds of each step of this process
        self.network: Net = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self.parallel: nn.Module = self.network
        if processes.count() > 1:
            self.parallel = DistributedDataParallel(self.network)
        self.averaged: AveragedModel | None = None
        if recipe.average_decay is not None:
            self.averaged = AveragedModel(
                self.network,
                multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay),  # type: ignore[no-untyped-call]  # torch's own
                use_buffers=True,  # the means that a batch normalisation keeps
            )
        self.optimizer = torch.optim.SGD(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=recipe.rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
        self.schedule = recipe.schedule(self.optimizer)

    @property
    def result(self) -> Net:
        """What is judged and published: the running mean of the weights where there is one."""
        return cast("Net", self.averaged.module) if self.averaged else self.network

    @property
    def step_seconds(self) -> float:
        """The median of this process's steps: what else ran on the machine hardly moves it."""
        return median(self.durations) if self.durations else self.seconds / max(self.step, 1)

    @property
    def loading_share(self) -> float:
        """Of the time of this process's steps, the part spent on making batches."""
        return self.loading_seconds / self.seconds if self.seconds else 0.0

    def train_step(self) -> float:
        """One batch, forward and backward; returns its loss.

        Raises:
            FloatingPointError: The loss is no longer a number.
        """
        began = time.perf_counter()
        self.network.train()
        torch.manual_seed(step_seed(self.recipe.seed, self.step))  # for dropout
        tensors, labels = self.batches.batch(self.step)
        inputs = tensors.contiguous(memory_format=torch.channels_last)
        self.loading_seconds += time.perf_counter() - began
        with torch.autocast(self.device.type, torch.bfloat16, self.recipe.autocast):
            logits = self.parallel(inputs)
        loss = self.loss(logits, labels, self.recipe.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss became {loss.item()} at step {self.step}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimizer.step()
        self.schedule.step()
        if self.averaged:
            self.averaged.update_parameters(self.network)
        self.step += 1
        value = loss.item()
        self.durations.append(time.perf_counter() - began)
        self.seconds += self.durations[-1]
        return value

    def save(self, file: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state: dict[str, object] = {name: getattr(self, name) for name in NUMBERS}
        state |= {name: part.state_dict() for name, part in self._parts().items()}
        save_whole(state, file)

    def resume(self, file: Path) -> None:
        """Take up a checkpoint if there is one."""
        if not file.exists():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        for name in NUMBERS:
            setattr(self, name, state[name])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer | LRScheduler]:
        parts: dict[str, nn.Module | torch.optim.Optimizer | LRScheduler] = {
            "network": self.network,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        return parts | ({"averaged": self.averaged} if self.averaged else {})


def save_whole(state: dict[str, object], file: Path) -> None:
    """Write weights or a checkpoint, whole or not at all."""
    draft = file.with_suffix(".part")
    torch.save(state, draft)
    draft.replace(file)


def step_seed(seed: int, step: int) -> int:
    """A seed of its own for each step and process."""
    return (seed * 1_000_003 + step) * 4096 + processes.rank()
