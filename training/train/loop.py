"""The training loop: train, validate, keep the best weights, write checkpoints; resume."""

from __future__ import annotations

import csv
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

from tensorboardX import SummaryWriter
from tqdm import tqdm

from training.train import processes
from training.train.trainer import Net, Trainer, save_whole

CHECKPOINT, BEST, LOG = "checkpoint.pt", "best.pt", "log.csv"


def run_training(
    trainer: Trainer[Net], validate: Callable[[Net], float], folder: Path, check_every: int
) -> None:
    """Train all steps of the recipe, from the last checkpoint on; leave best.pt in `folder`.

    Every `check_every` steps and at the end, process 0 validates, keeps the weights if their loss
    is strictly the lowest, and writes a checkpoint. Ctrl-C writes a checkpoint after its step.

    Args:
        trainer: At step 0.
        validate: The validation loss of a network.
        folder: Also receives log.csv (step, training loss, validation loss, loading share) and
            the scalars for TensorBoard.
        check_every: Steps between validations.

    Raises:
        KeyboardInterrupt: Stopped by Ctrl-C.
        FloatingPointError: The loss is no longer a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer.resume(folder / CHECKPOINT)
    first = processes.rank() == 0
    total = trainer.recipe.steps
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
            if trainer.step % check_every == 0 or trainer.step == total:
                if first:
                    score = _check(trainer, validate, folder, loss)
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


def _check(
    trainer: Trainer[Net], validate: Callable[[Net], float], folder: Path, loss: float
) -> float:
    score = validate(trainer.result)
    if score < trainer.best:  # strictly: of equals the earlier one stays
        trainer.best = score
        save_whole(trainer.result.state_dict(), folder / BEST)
    trainer.save(folder / CHECKPOINT)
    with (folder / LOG).open("a", newline="") as file:
        columns = (trainer.step, f"{loss:.5f}", f"{score:.5f}", f"{trainer.loading_share:.4f}")
        csv.writer(file).writerow(columns)
    return score
