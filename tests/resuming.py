"""What every trainer promises: stopped after any step, it ends where an unbroken one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.train.trainer import Trainer


def assert_resumes_exactly(make: Callable[[], Trainer[Any]], checkpoint: Path) -> None:
    """Three steps, at once and with a stop after the first: equal losses, equal weights.

    Args:
        make: A trainer at step 0, of three steps, always the same.
        checkpoint: A file that is not there.
    """
    unbroken = make()
    losses = [unbroken.train_step() for _ in range(3)]
    broken = make()
    assert broken.train_step() == losses[0]
    broken.save(checkpoint)
    resumed = make()
    resumed.resume(checkpoint)
    assert [resumed.train_step() for _ in range(2)] == losses[1:]
    for name, value in unbroken.result.state_dict().items():
        torch.testing.assert_close(resumed.result.state_dict()[name], value, rtol=0, atol=0)
