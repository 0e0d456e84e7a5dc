"""Epochs: train, judge, keep the strictly best, write a checkpoint; again after a stop."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

import torch
from tensorboardX import SummaryWriter
from tqdm import tqdm

from training.networks.googlenet import GoogLeNet
from training.train import processes
from training.train.fit import BEST, CHECKPOINT, LOG
from training.train.trainer import Trainer


def run_epochs(
    trainer: Trainer[GoogLeNet],
    epoch_steps: int,
    epochs: int,
    judge: Callable[[GoogLeNet], float],
    folder: Path,
) -> None:
    """Train up to `epochs`, going on from the last checkpoint; leave best.pt in `folder`.

    After each epoch process 0 asks `judge` for a loss, keeps the weights if it is strictly the
    best, and writes a checkpoint. Ctrl-C writes one as well, of the step where it came.

    Raises:
        FloatingPointError: The loss is no longer a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer.resume(folder / CHECKPOINT)
    first = processes.rank() == 0
    total = epochs * epoch_steps
    with (
        _Stop() as stop,
        SummaryWriter(str(folder), write_to_disk=first) as scalars,
        tqdm(
            total=total, initial=trainer.step, desc=folder.name, unit="step", disable=not first
        ) as bar,
    ):
        while trainer.step < total:
            loss = trainer.train_step()
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", best=f"{trainer.best:.4f}")
            scalars.add_scalar("loss/train", loss, trainer.step)
            scalars.add_scalar("rate", trainer.optimizer.param_groups[0]["lr"], trainer.step)
            if trainer.step % epoch_steps == 0:
                if first:
                    score = _end_epoch(trainer, judge, folder, loss)
                    scalars.add_scalar("loss/validation", score, trainer.step)
                processes.wait()
            if stop.asked:
                if first:
                    trainer.save(folder / CHECKPOINT)
                raise KeyboardInterrupt


class _Stop:
    """Between its start and end, Ctrl-C asks for a stop after the step instead of breaking it.

    A second Ctrl-C breaks.
    """

    asked = False

    def __enter__(self) -> Self:
        self.before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True


def _end_epoch(
    trainer: Trainer[GoogLeNet], judge: Callable[[GoogLeNet], float], folder: Path, loss: float
) -> float:
    score = judge(trainer.result)
    if score < trainer.best:  # strictly: of equals the earlier one stays
        trainer.best = score
        torch.save(trainer.result.state_dict(), folder / BEST)
    trainer.save(folder / CHECKPOINT)
    with (folder / LOG).open("a", newline="") as file:
        columns = (trainer.step, f"{loss:.5f}", f"{score:.5f}", f"{trainer.loading_share:.4f}")
        csv.writer(file).writerow(columns)
    return score
